/* SPDX-License-Identifier: MIT */
/* The executors' Future: concurrent.futures.Future without a lock of its own.
 * Its state is a futex word; a Condition object exists from the first time
 * that somebody asks for `_condition` (concurrent.futures.wait does). */
#ifndef PYC_POOL_FUTURE_H
#define PYC_POOL_FUTURE_H

#include "py/compat.h"
#include "py/state.h"

#include "base/futex.h"
#include "base/source.h"
#include "py/lock.h"

enum {
    PYC_PENDING,
    PYC_RUNNING,
    PYC_CANCELLED,
    PYC_NOTIFIED, /* CANCELLED_AND_NOTIFIED */
    PYC_FINISHED,
};

typedef struct {
    PyObject_HEAD
    _Atomic uint32_t state;
    _Atomic uint32_t sleepers; /* threads in pyc_future_wait */
    PyObject *result;
    PyObject *exception;
    PyObject *condition; /* NULL until asked for, as the two lists */
    PyObject *waiters;
    PyObject *callbacks;
    const void *queue;   /* in which its job was put, only to be compared */
    struct pyc_job *job; /* while it waits there; belongs to the queue */
    pyc_source *source;  /* what brings the outcome; NULL: another thread */
    PyObject *channel;   /* whose source it is; NULL when done, as the pool */
    PyObject *pool;      /* which is asked to cancel */
    pyc_state *module;
    pyc_lock guard; /* of the lists, and of the state against them */
} pyc_future;

/* A pending Future of `type`, which derives from module->future_type. */
pyc_future *pyc_future_new(PyTypeObject *type, pyc_state *module);

static inline uint32_t
pyc_future_state(pyc_future *self)
{
    return atomic_load_explicit(&self->state, memory_order_acquire);
}

static inline int
pyc_future_done(pyc_future *self)
{
    return pyc_future_state(self) >= PYC_CANCELLED;
}

/* What brings the outcome of one that is not done, and in *channel a new
 * reference to what it belongs to; else NULL. */
pyc_source *pyc_future_source(pyc_future *self, PyObject **channel);

/* The state that others are told: RUNNING, too, when the source says so. */
uint32_t pyc_future_shown(pyc_future *self);

/* The shown state's name as concurrent.futures spells it, borrowed. */
const char *pyc_future_state_name(pyc_future *self);

/* Moves the Future out of PENDING: 1 it runs now, 0 it was cancelled and the
 * waiters know, -1 with an exception set. */
int pyc_future_begin(pyc_future *self);

/* Ends the Future with `value`, its exception when `failed`, and calls the
 * callbacks. -1 with InvalidStateError set when it is done already, or with
 * what a callback raised that is no Exception. */
int pyc_future_finish(pyc_future *self, PyObject *value, int failed);
/* The same in two steps: *callbacks is a list for the second, which takes it
 * over, or NULL. */
int pyc_future_end(pyc_future *self, PyObject *value, int failed,
                   PyObject **callbacks);
int pyc_future_call_all(pyc_future *self, PyObject *callbacks);

/* 1 when it is cancelled now or was before, 0 when it runs or ran, -1. Asks no
 * pool. */
int pyc_future_cancel(pyc_future *self);

/* Ends the Future in a forked child, where nobody else can be looking at it:
 * calls nothing. */
void pyc_future_abandon(pyc_future *self, PyObject *exception);

/* Makes one of the two lists if there is none. 0, or -1 with an exception set.
 * Without the guard: the garbage collector may run anything in it. */
int pyc_future_make_list(pyc_future *self, PyObject **list);

/* 1 when `callback` will be called with the Future, 0 when it is done
 * already, -1 with an exception set. */
int pyc_future_add_callback(pyc_future *self, PyObject *callback);

/* Sleeps, without the GIL, until the Future is done: 1, 0 when the deadline
 * passed first, -1 when a signal handler raised. */
int pyc_future_wait(pyc_future *self, int64_t deadline);

/* Calls callback(self) and logs the Exception it raises; -1 with any other
 * exception set. */
int pyc_future_call(pyc_future *self, PyObject *callback);

/* Sets the state without asking, for the setter of `_state`. */
void pyc_future_force(pyc_future *self, uint32_t state);

/* Takes the Condition's lock if there is one: 1, 0 without, -1. */
int pyc_future_enter(pyc_future *self);
int pyc_future_leave(pyc_future *self);

#endif
