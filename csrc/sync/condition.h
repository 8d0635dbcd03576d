/* SPDX-License-Identifier: MIT */
/* threading.Condition, over a lock of ours or of anybody's. */
#ifndef PYC_SYNC_CONDITION_H
#define PYC_SYNC_CONDITION_H

#include "sync/lock.h"

typedef struct {
    PYC_SYNC_HEAD
    PyObject *lock;
    PyObject *release_save; /* the lock's methods: NULL when the lock is ours */
    PyObject *acquire_restore;
    PyObject *is_owned; /* or has none */
    pyc_waiters waiters;
    pyc_lock guard;
} pyc_condition;

static inline int
pyc_condition_over_lock(pyc_condition *self)
{
    return pyc_is_lock(self->module, self->lock);
}

static inline int
pyc_condition_over_rlock(pyc_condition *self)
{
    return pyc_is_rlock(self->module, self->lock);
}

/* False, with RuntimeError, when __init__ has not been called. */
int pyc_condition_has_lock(pyc_condition *self);

/* Calls a method of the lock's. */
PyObject *pyc_condition_call(pyc_condition *self, PyObject *name);

/* Whether the lock is held: 1, 0 or -1 with an exception set. */
int pyc_condition_is_owned(pyc_condition *self);

/* 0, or -1 with "cannot `verb` on un-acquired lock". */
int pyc_condition_check(pyc_condition *self, const char *verb);

/* Waits as a thread that holds the lock: 1 when notified, 0 when the deadline
 * passed, -1 with an exception set. */
int pyc_condition_wait(pyc_condition *self, int64_t deadline);

/* Wakes up to `n` of those who wait now. */
void pyc_condition_notify(pyc_condition *self, Py_ssize_t n);

/* How many wait. */
Py_ssize_t pyc_condition_waiting(pyc_condition *self);

/* An awaitable that waits to be notified, or one that takes the lock. */
PyObject *pyc_condition_async(pyc_condition *self, int waits);

#endif
