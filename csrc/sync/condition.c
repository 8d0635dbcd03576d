/* SPDX-License-Identifier: MIT */
/* How a Condition holds its lock, waits and notifies. */
#include "sync/condition.h"

#define LOCK(self) ((pyc_thread_lock *)(self)->lock)
#define RLOCK(self) ((pyc_rlock *)(self)->lock)

/* How the lock was held before a wait. */
typedef struct {
    unsigned long count;
    uintptr_t owner;
    PyObject *task;
    PyObject *state; /* of a lock that is not ours */
} held;

int
pyc_condition_has_lock(pyc_condition *self)
{
    if (PYC_UNLIKELY(self->lock == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "Condition.__init__() not called");
        return 0;
    }
    return 1;
}

PyObject *
pyc_condition_call(pyc_condition *self, PyObject *name)
{
    return pyc_condition_has_lock(self)
               ? PyObject_CallMethodNoArgs(self->lock, name)
               : NULL;
}

/* Held, unless it can be taken. */
static int
try_foreign(pyc_condition *self)
{
    PyObject *taken = PyObject_CallMethodOneArg(
        self->lock, self->module->str_acquire, Py_False);
    int got = taken == NULL ? -1 : PyObject_IsTrue(taken);
    Py_XDECREF(taken);
    if (got > 0) {
        PyObject *released =
            pyc_condition_call(self, self->module->str_release);
        got = released == NULL ? -1 : 1;
        Py_XDECREF(released);
    }
    return got < 0 ? -1 : !got;
}

int
pyc_condition_is_owned(pyc_condition *self)
{
    if (!pyc_condition_has_lock(self)) {
        return -1;
    }
    if (pyc_condition_over_rlock(self)) {
        return pyc_rlock_is_mine(RLOCK(self));
    }
    if (pyc_condition_over_lock(self)) {
        return LOCK(self)->mutex.held;
    }
    if (self->is_owned == NULL) {
        return try_foreign(self);
    }
    PyObject *owned = PyObject_CallNoArgs(self->is_owned);
    int yes = owned == NULL ? -1 : PyObject_IsTrue(owned);
    Py_XDECREF(owned);
    return yes;
}

int
pyc_condition_check(pyc_condition *self, const char *verb)
{
    int owned = pyc_condition_is_owned(self);
    if (owned == 0) {
        PyErr_Format(PyExc_RuntimeError, "cannot %s on un-acquired lock", verb);
    }
    return owned > 0 ? 0 : -1;
}

static int
release_save(pyc_condition *self, held *how)
{
    *how = (held){0, 0, NULL, NULL};
    if (pyc_condition_over_lock(self)) {
        return pyc_lock_release(LOCK(self));
    }
    if (pyc_condition_over_rlock(self)) {
        how->owner = RLOCK(self)->owner;
        how->task = Py_XNewRef(RLOCK(self)->task);
        how->count = pyc_rlock_release_all(RLOCK(self));
        return how->count == 0 ? -1 : 0;
    }
    how->state = self->release_save == NULL
                     ? pyc_condition_call(self, self->module->str_release)
                     : PyObject_CallNoArgs(self->release_save);
    return how->state == NULL ? -1 : 0;
}

static int
lock_is_ours(pyc_condition *self)
{
    return pyc_condition_over_lock(self) || pyc_condition_over_rlock(self);
}

/* Of a lock that is ours. */
static const pyc_operation *
lock_operation(pyc_condition *self)
{
    return pyc_condition_over_lock(self) ? &pyc_lock_acquiring
                                         : &pyc_rlock_acquiring;
}

/* The mutex of a lock of ours, else NULL. */
static pyc_mutex *
mutex_of(pyc_condition *self)
{
    return pyc_condition_over_lock(self)    ? &LOCK(self)->mutex
           : pyc_condition_over_rlock(self) ? &RLOCK(self)->mutex
                                            : NULL;
}

void
pyc_condition_notify_one(pyc_condition *self)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    /* It could not go on before the lock is free, so it is the lock that wakes
     * it, if it is ours. */
    pyc_mutex *mutex = mutex_of(self);
    pyc_lock_take(&self->guard);
    if (mutex == NULL) {
        wakeup = pyc_waiters_pop(&self->waiters, PYC_GRANTED);
    }
    else {
        pyc_lock_take(&mutex->guard);
        if (mutex->held) {
            pyc_waiters_move(&self->waiters, &mutex->waiters);
        }
        else {
            wakeup = pyc_waiters_pop(&self->waiters, PYC_TRY_AGAIN);
        }
        pyc_lock_give(&mutex->guard);
    }
    pyc_lock_give(&self->guard);
    pyc_wakeup_send(&wakeup);
}

/* Has the waiter wait no longer: 1 when it was notified, which is passed on if
 * nobody will hear of it. */
static int
leave(pyc_condition *self, pyc_waiter *waiter, int pass_on)
{
    pyc_lock_take(&self->guard);
    int notified = waiter->moved || !pyc_waiter_leave(waiter);
    pyc_lock_give(&self->guard);
    if (notified && pass_on) {
        pyc_condition_notify_one(self);
    }
    return notified;
}

/* A wait: the waiter stands in our queue, then takes the lock back. */
enum { TO_JOIN, JOINED, TO_LOCK };

/* Stands in the queue and lets go of the lock: 0, or -1 with an exception. */
static int
join(pyc_condition *self, pyc_wait *wait, held *how)
{
    pyc_lock_take(&self->guard);
    pyc_waiters_join(&self->waiters, &wait->waiter);
    pyc_lock_give(&self->guard);
    if (release_save(self, how) < 0) {
        leave(self, &wait->waiter, 1);
        return -1;
    }
    wait->who = how->owner;
    wait->number = (Py_ssize_t)how->count;
    Py_XSETREF(wait->task, how->task);
    wait->phase = JOINED;
    return 0;
}

/* One attempt to take the lock back. */
static int
lock_again(pyc_wait *wait, int may_join)
{
    pyc_condition *self = (pyc_condition *)wait->subject;
    wait->phase = TO_LOCK;
    wait->subject = self->lock;
    int rc = lock_operation(self)->attempt(wait, may_join);
    wait->subject = (PyObject *)self;
    if (rc > 0 && pyc_condition_over_rlock(self)) {
        RLOCK(self)->count = (unsigned long)wait->number;
    }
    return rc;
}

/* Takes a lock that is not ours back; keeps an exception that is set. */
static int
restore_foreign(pyc_condition *self, held *how)
{
    PyObject *pending = pyc_take_exception();
    PyObject *done =
        self->acquire_restore == NULL
            ? pyc_condition_call(self, self->module->str_acquire)
            : PyObject_CallOneArg(self->acquire_restore, how->state);
    int rc = done == NULL ? -1 : 0;
    Py_XDECREF(done);
    Py_CLEAR(how->state);
    if (rc == 0 && pending != NULL) {
        pyc_put_exception(pending);
        pending = NULL;
    }
    Py_XDECREF(pending);
    return rc;
}

/* Takes the lock back, whatever happens; -1 when one that is not ours raised.
 */
static int
restore(pyc_condition *self, pyc_wait *wait, held *how)
{
    if (!lock_is_ours(self)) {
        return restore_foreign(self, how);
    }
    PyObject *pending = pyc_take_exception();
    while (lock_again(wait, 1) == 0) {
        pyc_waiter_sleep(&wait->waiter, PYC_NO_DEADLINE, 1);
    }
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
    return 0;
}

int
pyc_condition_wait(pyc_condition *self, int64_t deadline)
{
    held how;
    pyc_wait *wait = PyMem_RawCalloc(1, sizeof(*wait));
    if (wait == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    wait->subject = (PyObject *)self;
    wait->module = self->module;
    int rc = join(self, wait, &how);
    if (rc == 0) {
        rc = pyc_waiter_sleep(&wait->waiter, deadline, 0);
        int notified = leave(self, &wait->waiter, rc < 0);
        rc = rc < 0 ? -1 : notified;
        if (restore(self, wait, &how) < 0) {
            rc = -1;
        }
    }
    Py_XDECREF(wait->task);
    PyMem_RawFree(wait);
    return rc;
}

static int
waiting_attempt(pyc_wait *wait, int may_join)
{
    pyc_condition *self = (pyc_condition *)wait->subject;
    held how;
    if (wait->phase == TO_JOIN) {
        if (pyc_condition_check(self, "wait") < 0) {
            return -1;
        }
        return may_join ? join(self, wait, &how) : 0;
    }
    if (wait->phase == JOINED) {
        leave(self, &wait->waiter, 0);
    }
    return lock_again(wait, may_join);
}

static int
waiting_leave(pyc_wait *wait, int good)
{
    pyc_condition *self = (pyc_condition *)wait->subject;
    if (wait->phase == TO_JOIN) {
        return 0;
    }
    if (wait->phase == JOINED) {
        leave(self, &wait->waiter, 1);
        wait->phase = TO_LOCK;
    }
    if (good) {
        wait->subject = self->lock;
        lock_operation(self)->leave(wait, good);
        wait->subject = (PyObject *)self;
    }
    return !good;
}

static const pyc_operation waiting = {waiting_attempt, waiting_leave, NULL, 1,
                                      NULL};

PyObject *
pyc_condition_async(pyc_condition *self, int waits)
{
    if (!pyc_condition_has_lock(self)) {
        return NULL;
    }
    if (!lock_is_ours(self)) {
        PyErr_Format(PyExc_TypeError,
                     "a Condition is awaitable over a Lock or RLock of pyconc, "
                     "not over %R",
                     self->lock);
        return NULL;
    }
    pyc_wait wait =
        pyc_lock_wait(waits ? (PyObject *)self : self->lock, self->module,
                      waits ? &waiting : lock_operation(self));
    return pyc_wait_async(&wait);
}
