/* SPDX-License-Identifier: MIT */
/* Lock and RLock, as Condition takes them in its hands. */
#ifndef PYC_SYNC_LOCK_H
#define PYC_SYNC_LOCK_H

#include "sync/mutex.h"
#include "sync/object.h"
#include "sync/wait.h"

typedef struct {
    PYC_SYNC_HEAD
    pyc_mutex mutex;
    _Atomic uintptr_t owner; /* a thread; only while locks are watched */
} pyc_thread_lock;

typedef struct {
    PYC_SYNC_HEAD
    pyc_mutex mutex;
    _Atomic uintptr_t owner; /* a thread or a task; 0: nobody */
    unsigned long count;
    PyObject *task; /* the owner, if it is one */
} pyc_rlock;

static inline pyc_wait
pyc_lock_wait(PyObject *lock, pyc_state *module, const pyc_operation *operation)
{
    return (pyc_wait){.operation = operation,
                      .module = module,
                      .subject = lock,
                      .who = PyThread_get_thread_ident()};
}

extern const pyc_operation pyc_lock_acquiring;
extern const pyc_operation pyc_rlock_acquiring;

static inline int
pyc_is_lock(pyc_state *module, PyObject *object)
{
    return Py_IS_TYPE(object, module->thread_lock_type);
}

static inline int
pyc_is_rlock(pyc_state *module, PyObject *object)
{
    return Py_IS_TYPE(object, module->rlock_type);
}

/* An attempt at a lock that `wait` does not hold. Of an RLock, whoever asks:
 * who let go of it for a while must not share it with who has it meanwhile. */
int pyc_lock_attempt(pyc_thread_lock *self, pyc_wait *wait, int join);
int pyc_rlock_retake(pyc_rlock *self, pyc_wait *wait, int join);

/* 0, or -1 with RuntimeError. */
int pyc_lock_release(pyc_thread_lock *self);
int pyc_rlock_release(pyc_rlock *self);

/* Whether the thread, or the task that it runs, holds the lock. */
int pyc_rlock_is_mine(pyc_rlock *self);

/* Lets go of it whatever its count, which is returned; 0 with RuntimeError
 * when nobody held it. */
unsigned long pyc_rlock_release_all(pyc_rlock *self);

/* acquire(blocking=True, timeout=-1) as a function. */
PyObject *pyc_lock_acquire(PyObject *self, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyc_rlock_acquire(PyObject *self, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames);

int pyc_lock_register(PyObject *module, pyc_state *state);
int pyc_rlock_register(PyObject *module, pyc_state *state);

#endif
