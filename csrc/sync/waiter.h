/* SPDX-License-Identifier: MIT */
/* A queue of those who wait for one thing: threads, each asleep on a word of
 * its own, and coroutines, each reached through the mailbox of its loop.
 *
 * The queue is guarded by its owner's pyc_lock. Whoever provides what is
 * waited for takes a waiter out under that lock and wakes it after. A waiter
 * that comes and finds the thing gone again stands in front, and what is
 * provided next is granted to it, so that nobody starves. */
#ifndef PYC_SYNC_WAITER_H
#define PYC_SYNC_WAITER_H

#include "py/compat.h"
#include "py/lock.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/futex.h"
#include "base/list.h"
#include "sync/mailbox.h"

typedef struct {
    pyc_link head;
    Py_ssize_t length;
} pyc_waiters;

typedef struct {
    pyc_link link;
    pyc_waiters *queue; /* NULL when it stands in none */
    _Atomic uint32_t woken;
    char granted; /* what it waited for is its own already */
    char refused; /* was woken with something else than it waited for */
    char lost;    /* was woken in vain once */
    char moved;   /* from the queue it joined to another */
    pid_t process;
    PyObject *future; /* of a coroutine, else NULL */
    pyc_mailbox *mailbox;
} pyc_waiter;

/* Somebody to be woken once the lock is given back. */
typedef struct {
    _Atomic uint32_t *word;
    PyObject *future;
    pyc_mailbox *mailbox;
} pyc_wakeup;

/* How a waiter is woken. */
typedef enum { PYC_TRY_AGAIN, PYC_GRANTED, PYC_REFUSED } pyc_verdict;

static inline void
pyc_waiters_init(pyc_waiters *self)
{
    pyc_link_init(&self->head);
    self->length = 0;
}

/* Under the lock: puts the waiter at the end, in front if it was woken in
 * vain. */
void pyc_waiters_join(pyc_waiters *self, pyc_waiter *waiter);

/* Under the lock: the one to be served next, or NULL. Those that a fork left
 * behind are gone. */
pyc_waiter *pyc_waiters_first(pyc_waiters *self);

/* Under the lock: takes the first out, if there is one. */
pyc_wakeup pyc_waiters_pop(pyc_waiters *self, pyc_verdict verdict);

/* Under the locks of both: has the first of one stand at the end of another. */
void pyc_waiters_move(pyc_waiters *from, pyc_waiters *to);

/* Under the lock: takes the waiter out of where it stands: whether it stood
 * somewhere. */
static inline int
pyc_waiter_leave(pyc_waiter *waiter)
{
    if (waiter->queue == NULL) {
        return 0;
    }
    waiter->queue->length--;
    waiter->queue = NULL;
    pyc_link_remove(&waiter->link);
    return 1;
}

void pyc_wakeup_deliver(pyc_wakeup *wakeup);

/* Not under the lock: may call Python code, and keeps an exception that is
 * set. */
static inline void
pyc_wakeup_send(pyc_wakeup *wakeup)
{
    if (PYC_UNLIKELY(wakeup->word != NULL || wakeup->future != NULL)) {
        pyc_wakeup_deliver(wakeup);
    }
}

/* Sleeps, without the GIL, until woken: 1, 0 when the deadline passed first,
 * -1 when a signal handler raised (never if `deaf`). */
int pyc_waiter_sleep(pyc_waiter *waiter, int64_t deadline, int deaf);

#endif
