/* SPDX-License-Identifier: MIT */
/* What Lock and RLock are made of: held or free, and who waits. */
#ifndef PYC_SYNC_MUTEX_H
#define PYC_SYNC_MUTEX_H

#include "sync/waiter.h"

typedef struct {
    pyc_waiters waiters;
    pyc_lock guard;
    char held;
} pyc_mutex;

static inline void
pyc_mutex_init(pyc_mutex *self)
{
    pyc_waiters_init(&self->waiters);
    pyc_lock_reset(&self->guard);
    pyc_store(self->held, 0);
}

/* Whether it was free, and is held now. */
static inline int
pyc_mutex_try(pyc_mutex *self)
{
    pyc_lock_take(&self->guard);
    int got = !self->held;
    pyc_store(self->held, 1);
    pyc_lock_give(&self->guard);
    return got;
}

/* The two halves of an operation. */
int pyc_mutex_attempt(pyc_mutex *self, pyc_waiter *waiter, int join);
void pyc_mutex_leave(pyc_mutex *self, pyc_waiter *waiter);

/* Takes the waiter out of the queue; what it was woken for is left to the next
 * attempt. */
static inline void
pyc_mutex_step_aside(pyc_mutex *self, pyc_waiter *waiter)
{
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(waiter);
    pyc_lock_give(&self->guard);
}

/* At one time or another. */
static inline int
pyc_mutex_is_held(pyc_mutex *self)
{
    return pyc_load(self->held);
}

/* 0, or -1, without an exception, when it is free already. */
int pyc_mutex_release(pyc_mutex *self);

#endif
