/* SPDX-License-Identifier: MIT */
/* How a Condition holds its lock, waits and notifies. */
#include "sync/condition.h"

#define LOCK(lock) ((pyc_thread_lock *)(lock))
#define RLOCK(lock) ((pyc_rlock *)(lock))

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
        return pyc_rlock_is_mine(RLOCK(self->lock));
    }
    if (pyc_condition_over_lock(self)) {
        return pyc_mutex_is_held(&LOCK(self->lock)->mutex);
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

/* `lock` is the condition's in this and what follows, also after the collector
 * has taken it from the condition. */
static int
release_save(pyc_condition *self, PyObject *lock, held *how)
{
    *how = (held){0, 0, NULL, NULL};
    if (pyc_is_lock(self->module, lock)) {
        return pyc_lock_release(LOCK(lock));
    }
    if (pyc_is_rlock(self->module, lock)) {
        how->owner = RLOCK(lock)->owner;
        how->task = Py_XNewRef(RLOCK(lock)->task);
        how->count = pyc_rlock_release_all(RLOCK(lock));
        return how->count == 0 ? -1 : 0;
    }
    how->state = self->release_save == NULL
                     ? pyc_condition_call(self, self->module->str_release)
                     : PyObject_CallNoArgs(self->release_save);
    return how->state == NULL ? -1 : 0;
}

/* The mutex of a lock of ours, else NULL. */
static pyc_mutex *
mutex_of(pyc_condition *self, PyObject *lock)
{
    return pyc_is_lock(self->module, lock)    ? &LOCK(lock)->mutex
           : pyc_is_rlock(self->module, lock) ? &RLOCK(lock)->mutex
                                              : NULL;
}

/* Has coroutines in front whose loop is closed wait no longer: they would hear
 * of nothing. */
static void
skip_unreachable(pyc_condition *self)
{
    int closed;
    do {
        pyc_mailbox *mailbox = NULL;
        closed = 0;
        pyc_lock_take(&self->guard);
        pyc_waiter *first = pyc_waiters_first(&self->waiters);
        if (first != NULL && first->mailbox != NULL) {
            mailbox = (pyc_mailbox *)Py_NewRef(first->mailbox);
        }
        pyc_lock_give(&self->guard);
        if (mailbox == NULL) {
            return;
        }
        PyObject *pending = pyc_take_exception();
        closed = !pyc_mailbox_is_open(mailbox);
        if (pending != NULL) {
            pyc_put_exception(pending);
        }
        pyc_lock_take(&self->guard);
        first = pyc_waiters_first(&self->waiters);
        if (closed && first != NULL && first->mailbox == mailbox) {
            pyc_waiter_leave(first);
            first->refused = 1;
        }
        pyc_lock_give(&self->guard);
        Py_DECREF(mailbox);
    } while (closed);
}

static void
notify_one(pyc_condition *self, PyObject *lock)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    /* It could not go on before the lock is free, so it is the lock that wakes
     * it, if it is ours. */
    pyc_mutex *mutex = mutex_of(self, lock);
    skip_unreachable(self);
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
    pyc_wakeup_send(&wakeup, &self->waiters, &self->guard, NULL, NULL);
}

Py_ssize_t
pyc_condition_waiting(pyc_condition *self)
{
    pyc_lock_take(&self->guard);
    Py_ssize_t length = self->waiters.length;
    pyc_lock_give(&self->guard);
    return length;
}

void
pyc_condition_notify(pyc_condition *self, Py_ssize_t n)
{
    PyObject *lock = Py_NewRef(self->lock);
    for (n = Py_MIN(n, pyc_condition_waiting(self)); n > 0; n--) {
        notify_one(self, lock);
    }
    Py_DECREF(lock);
}

/* Has the waiter wait no longer: whether it was notified. */
static int
leave(pyc_condition *self, pyc_waiter *waiter)
{
    pyc_lock_take(&self->guard);
    int notified =
        waiter->moved || (!pyc_waiter_leave(waiter) && !waiter->refused);
    pyc_lock_give(&self->guard);
    return notified;
}

/* A wait, whose item is the lock: the waiter stands in our queue, then takes
 * the lock back. */
enum { TO_JOIN, JOINED, TO_LOCK, NOTIFIED_TO_LOCK };

/* Stands in the queue and lets go of the lock: 0, or -1 with an exception. */
static int
join(pyc_condition *self, pyc_wait *wait, held *how)
{
    pyc_lock_take(&self->guard);
    pyc_waiters_join(&self->waiters, &wait->waiter);
    pyc_lock_give(&self->guard);
    if (release_save(self, wait->item, how) < 0) {
        if (leave(self, &wait->waiter)) {
            notify_one(self, wait->item);
        }
        return -1;
    }
    wait->who = how->owner;
    wait->number = (Py_ssize_t)how->count;
    Py_XSETREF(wait->task, how->task);
    wait->phase = JOINED;
    return 0;
}

/* One attempt to take a lock of ours back. */
static int
lock_again(pyc_wait *wait, int may_join)
{
    PyObject *lock = wait->item;
    if (pyc_is_lock(wait->module, lock)) {
        return pyc_lock_attempt(LOCK(lock), wait, may_join);
    }
    int rc = pyc_rlock_retake(RLOCK(lock), wait, may_join);
    if (rc > 0) {
        pyc_store(RLOCK(lock)->count, (unsigned long)wait->number);
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
    if (mutex_of(self, wait->item) == NULL) {
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

/* Sleeps until notified: 1, 0 when the deadline passed, -1 when a signal
 * handler raised: then a notification goes to the next one. */
static int
sleep_notified(pyc_condition *self, pyc_wait *wait, int64_t deadline)
{
    int slept = pyc_waiter_sleep(&wait->waiter, deadline, 0);
    int notified = leave(self, &wait->waiter);
    if (slept >= 0) {
        return notified;
    }
    if (notified) {
        notify_one(self, wait->item);
    }
    return -1;
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
    wait->item = Py_NewRef(self->lock);
    int rc = join(self, wait, &how);
    if (rc == 0) {
        rc = sleep_notified(self, wait, deadline);
        if (restore(self, wait, &how) < 0) {
            rc = -1;
        }
    }
    Py_XDECREF(wait->task);
    Py_DECREF(wait->item);
    PyMem_RawFree(wait);
    return rc;
}

/* 0, or -1 when who asks does not hold the lock. */
static int
check_waiting(pyc_condition *self, const pyc_wait *wait)
{
    PyObject *lock = wait->item;
    /* The task that asks need not be the one that takes this step. */
    if (wait->task != NULL && pyc_is_rlock(self->module, lock) &&
        RLOCK(lock)->owner == wait->who) {
        return 0;
    }
    return pyc_condition_check(self, "wait");
}

static int
waiting_attempt(pyc_wait *wait, int may_join)
{
    pyc_condition *self = (pyc_condition *)wait->subject;
    held how;
    if (wait->phase == TO_JOIN) {
        if (check_waiting(self, wait) < 0) {
            return -1;
        }
        return may_join ? join(self, wait, &how) : 0;
    }
    if (wait->phase == JOINED) {
        wait->phase = leave(self, &wait->waiter) ? NOTIFIED_TO_LOCK : TO_LOCK;
    }
    return lock_again(wait, may_join);
}

static int
waiting_leave(pyc_wait *wait, int good)
{
    pyc_condition *self = (pyc_condition *)wait->subject;
    pyc_mutex *mutex = mutex_of(self, wait->item);
    if (wait->phase == TO_JOIN) {
        return 0;
    }
    int notified = wait->phase == NOTIFIED_TO_LOCK ||
                   (wait->phase == JOINED && leave(self, &wait->waiter));
    wait->phase = TO_LOCK;
    if (good) {
        pyc_mutex_leave(mutex, &wait->waiter);
    }
    else {
        pyc_mutex_step_aside(mutex, &wait->waiter);
    }
    if (notified) { /* and will not tell anybody */
        notify_one(self, wait->item);
    }
    return !good;
}

static const pyc_operation waiting = {
    .attempt = waiting_attempt,
    .leave = waiting_leave,
    .by_task = 1,
};

PyObject *
pyc_condition_async(pyc_condition *self, int waits)
{
    if (!pyc_condition_has_lock(self)) {
        return NULL;
    }
    if (mutex_of(self, self->lock) == NULL) {
        PyErr_Format(PyExc_TypeError,
                     "a Condition is awaitable over a Lock or RLock of pyconc, "
                     "not over %R",
                     self->lock);
        return NULL;
    }
    pyc_wait wait =
        pyc_lock_wait(self->lock, self->module,
                      pyc_condition_over_lock(self) ? &pyc_lock_acquiring
                                                    : &pyc_rlock_acquiring);
    if (waits) {
        wait.operation = &waiting;
        wait.subject = (PyObject *)self;
        wait.item = self->lock;
    }
    return pyc_wait_async(&wait);
}
