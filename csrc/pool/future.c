/* SPDX-License-Identifier: MIT */
/* How a Future changes its state, and how a thread waits for that. */
#include "pool/future.h"
#include "pool/drive.h"
#include "pool/hurry.h"
#include "pool/wait.h"

#include <errno.h>
#include <limits.h>

#define IN(state) (1u << (state))

/* What a change of state brings along, and what it leaves to be done. */
typedef struct {
    uint32_t to;
    PyObject *result;    /* borrowed */
    PyObject *exception; /* borrowed */
    PyObject *callbacks; /* out: those to call, owned */
    PyObject *old[4];    /* out: what it had before, owned */
    pyc_source *source;  /* out: of what is in `old` */
} change;

pyc_future *
pyc_future_new(PyTypeObject *type, pyc_state *module)
{
    pyc_future *self = (pyc_future *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = module;
    }
    return self;
}

pyc_source *
pyc_future_source(pyc_future *self, PyObject **channel)
{
    pyc_source *source;
    pyc_lock_take(&self->guard);
    source = self->source;
    *channel = Py_XNewRef(self->channel);
    pyc_lock_give(&self->guard);
    return source;
}

uint32_t
pyc_future_shown(pyc_future *self)
{
    uint32_t state = pyc_future_state(self);
    if (state != PYC_PENDING || pyc_load(self->source) == NULL) {
        return state;
    }
    PyObject *channel;
    pyc_source *source = pyc_future_source(self, &channel);
    int runs = source != NULL && source->is_running(source, self);
    Py_XDECREF(channel);
    state = pyc_future_state(self); /* it may have ended meanwhile */
    return runs && state == PYC_PENDING ? PYC_RUNNING : state;
}

const char *
pyc_future_state_name(pyc_future *self)
{
    static const char *const names[] = {"PENDING", "RUNNING", "CANCELLED",
                                        "CANCELLED_AND_NOTIFIED", "FINISHED"};
    return names[pyc_future_shown(self)];
}

int
pyc_future_enter(pyc_future *self)
{
    PyObject *condition;
    pyc_lock_take(&self->guard);
    condition = Py_XNewRef(self->condition);
    pyc_lock_give(&self->guard);
    if (condition == NULL) {
        return 0;
    }
    PyObject *done =
        PyObject_CallMethodNoArgs(condition, self->module->str_acquire);
    Py_DECREF(condition);
    Py_XDECREF(done);
    return done == NULL ? -1 : 1;
}

/* Keeps an exception that is set. */
int
pyc_future_leave(pyc_future *self)
{
    PyObject *pending = pyc_take_exception();
    PyObject *done =
        PyObject_CallMethodNoArgs(self->condition, self->module->str_release);
    Py_XDECREF(done);
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
    return done == NULL || pending != NULL ? -1 : 0;
}

static void
wake(pyc_future *self, pyc_source *source)
{
    if (atomic_load(&self->sleepers) != 0) {
        pyc_futex_wake(&self->state, INT_MAX);
        if (source != NULL) {
            source->kick(source);
        }
    }
}

static void
drop_old(change *what)
{
    for (int i = 0; i < 4; i++) {
        Py_CLEAR(what->old[i]);
    }
}

/* The part of a change that nobody may see half done. Returns the old state,
 * which is in `from` if the change was made. */
static uint32_t
apply(pyc_future *self, uint32_t from, change *what)
{
    uint32_t old = atomic_load(&self->state);
    if (!(IN(old) & from)) {
        return old;
    }
    if (what->to == PYC_FINISHED) {
        what->old[0] = self->result;
        what->old[1] = self->exception;
        self->result = Py_XNewRef(what->result);
        self->exception = Py_XNewRef(what->exception);
    }
    if (what->to == PYC_FINISHED || what->to == PYC_CANCELLED) {
        what->callbacks = self->callbacks;
        pyc_store(self->callbacks, NULL);
        what->source = self->source;
        what->old[2] = self->channel;
        what->old[3] = self->pool;
        pyc_store(self->source, NULL);
        self->channel = self->pool = NULL;
    }
    atomic_store(&self->state, what->to);
    return old;
}

/* Tells those who stand in `_waiters`: who waits for several Futures. */
static int
tell_waiters(pyc_future *self, change *what, PyObject *waiters)
{
    pyc_state *module = self->module;
    PyObject *name = what->to == PYC_NOTIFIED  ? module->str_add_cancelled
                     : what->exception == NULL ? module->str_add_result
                                               : module->str_add_exception;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(waiters); i++) {
        PyObject *waiter = PyTuple_GET_ITEM(waiters, i);
        PyObject *told = NULL;
        if (pyc_waiter_check(module, waiter)) {
            pyc_waiter_tell(waiter, what->exception != NULL);
            told = Py_NewRef(Py_None);
        }
        else {
            told = PyObject_CallMethodOneArg(waiter, name, (PyObject *)self);
        }
        if (told == NULL) {
            return -1;
        }
        Py_DECREF(told);
    }
    return 0;
}

/* Tells those who wait on the Condition, whose lock is held. */
static int
tell_condition(pyc_future *self)
{
    PyObject *told = PyObject_CallMethodNoArgs(self->condition,
                                               self->module->str_notify_all);
    Py_XDECREF(told);
    return told == NULL ? -1 : 0;
}

static int
tell(pyc_future *self, change *what, int entered)
{
    int rc = 0;
    PyObject *waiters = NULL;
    if (what->to == PYC_FINISHED || what->to == PYC_NOTIFIED) {
        pyc_lock_take(&self->guard);
        /* A copy: whoever was told may leave the list at once. */
        waiters = self->waiters == NULL || PyList_GET_SIZE(self->waiters) == 0
                      ? NULL
                      : PyList_AsTuple(self->waiters);
        pyc_lock_give(&self->guard);
    }
    if (waiters != NULL) {
        rc = tell_waiters(self, what, waiters);
        Py_DECREF(waiters);
    }
    else if (PyErr_Occurred()) {
        rc = -1;
    }
    if (entered && (what->to == PYC_FINISHED || what->to == PYC_CANCELLED)) {
        rc = tell_condition(self) < 0 ? -1 : rc;
    }
    return rc;
}

/* Makes the change if the state is one of `from`. Stores the old state; -1
 * with an exception set if a lock or a waiter raised. */
static int
move(pyc_future *self, uint32_t from, change *what, uint32_t *old)
{
    int entered, stale;
    do {
        entered = pyc_future_enter(self);
        if (entered < 0) {
            return -1;
        }
        pyc_lock_take(&self->guard);
        /* Somebody may have asked for the Condition meanwhile. */
        stale = !entered && self->condition != NULL;
        if (!stale) {
            *old = apply(self, from, what);
        }
        pyc_lock_give(&self->guard);
    } while (stale);
    int rc = IN(*old) & from ? tell(self, what, entered) : 0;
    if (entered) {
        rc = pyc_future_leave(self) < 0 ? -1 : rc;
    }
    if (what->to != PYC_RUNNING) {
        wake(self, what->source);
    }
    drop_old(what);
    return rc;
}

int
pyc_future_call(pyc_future *self, PyObject *callback)
{
    PyObject *result = PyObject_CallOneArg(callback, (PyObject *)self);
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyObject *exception = pyc_take_exception();
    PyObject *args = Py_BuildValue("(sO)", "exception calling callback for %r",
                                   (PyObject *)self);
    PyObject *kwargs = Py_BuildValue("{sO}", "exc_info", exception);
    PyObject *error =
        PyObject_GetAttrString(self->module->base_logger, "error");
    if (args != NULL && kwargs != NULL && error != NULL) {
        result = PyObject_Call(error, args, kwargs);
    }
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(result);
    Py_XDECREF(error);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(exception);
    return 0;
}

/* Calls all, whatever one of them raises, since others wait
 * for theirs; then -1 with the first exception that is no Exception. */
int
pyc_future_call_all(pyc_future *self, PyObject *callbacks)
{
    if (callbacks == NULL) {
        return 0;
    }
    /* A copy: as_completed() may take its own off the list meanwhile. */
    PyObject *first = NULL, *all = PyList_AsTuple(callbacks);
    Py_DECREF(callbacks);
    for (Py_ssize_t i = 0; all != NULL && i < PyTuple_GET_SIZE(all); i++) {
        if (pyc_future_call(self, PyTuple_GET_ITEM(all, i)) == 0) {
            continue;
        }
        if (first == NULL) {
            first = pyc_take_exception();
        }
        else {
            PyErr_WriteUnraisable((PyObject *)self);
        }
    }
    if (all == NULL) {
        first = pyc_take_exception();
    }
    Py_XDECREF(all);
    if (first == NULL) {
        return 0;
    }
    pyc_put_exception(first);
    return -1;
}

static void
critical(pyc_future *self)
{
    PyObject *id = PyLong_FromVoidPtr(self);
    PyObject *logged =
        id == NULL
            ? NULL
            : PyObject_CallMethod(self->module->base_logger, "critical", "sOs",
                                  "Future %s in unexpected state: %s", id,
                                  pyc_future_state_name(self));
    Py_XDECREF(id);
    if (logged == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
        return;
    }
    Py_DECREF(logged);
}

int
pyc_future_begin(pyc_future *self)
{
    uint32_t old;
    change run = {.to = PYC_RUNNING};
    if (move(self, IN(PYC_PENDING), &run, &old) < 0) {
        return -1;
    }
    if (old == PYC_PENDING) {
        return 1;
    }
    change notify = {.to = PYC_NOTIFIED};
    if (old == PYC_CANCELLED &&
        move(self, IN(PYC_CANCELLED), &notify, &old) < 0) {
        return -1;
    }
    if (old == PYC_CANCELLED) {
        return 0;
    }
    critical(self);
    PyErr_SetString(PyExc_RuntimeError, "Future in unexpected state");
    return -1;
}

int
pyc_future_end(pyc_future *self, PyObject *value, int failed,
               PyObject **callbacks)
{
    uint32_t old, from = IN(PYC_PENDING) | IN(PYC_RUNNING);
    change end = {.to = PYC_FINISHED};
    *(failed ? &end.exception : &end.result) = value;
    int rc = move(self, from, &end, &old);
    if (rc == 0 && !(IN(old) & from)) {
        PyErr_Format(self->module->base_InvalidStateError, "%s: %R",
                     pyc_future_state_name(self), self);
        rc = -1;
    }
    if (rc < 0) {
        Py_CLEAR(end.callbacks);
    }
    *callbacks = end.callbacks;
    return rc;
}

int
pyc_future_finish(pyc_future *self, PyObject *value, int failed)
{
    PyObject *callbacks;
    return pyc_future_end(self, value, failed, &callbacks) < 0
               ? -1
               : pyc_future_call_all(self, callbacks);
}

int
pyc_future_cancel(pyc_future *self)
{
    uint32_t old;
    change cancel = {.to = PYC_CANCELLED};
    if (move(self, IN(PYC_PENDING), &cancel, &old) < 0) {
        Py_XDECREF(cancel.callbacks);
        return -1;
    }
    if (old == PYC_RUNNING || old == PYC_FINISHED) {
        return 0;
    }
    return pyc_future_call_all(self, cancel.callbacks) < 0 ? -1 : 1;
}

void
pyc_future_abandon(pyc_future *self, PyObject *exception)
{
    change end = {.to = PYC_FINISHED, .exception = exception};
    apply(self, IN(PYC_PENDING) | IN(PYC_RUNNING), &end);
    drop_old(&end);
    Py_XDECREF(end.callbacks);
}

int
pyc_future_make_list(pyc_future *self, PyObject **list)
{
    if (pyc_load(*list) != NULL) {
        return 0;
    }
    PyObject *fresh = PyList_New(0);
    if (fresh == NULL) {
        return -1;
    }
    pyc_lock_take(&self->guard);
    if (*list == NULL) {
        pyc_store(*list, fresh);
        fresh = NULL;
    }
    pyc_lock_give(&self->guard);
    Py_XDECREF(fresh);
    return 0;
}

int
pyc_future_add_callback(pyc_future *self, PyObject *callback)
{
    int rc, missing;
    do {
        if (pyc_future_make_list(self, &self->callbacks) < 0) {
            return -1;
        }
        pyc_lock_take(&self->guard);
        rc = pyc_future_done(self) ? 0 : 1;
        missing = rc && self->callbacks == NULL; /* it has ended meanwhile */
        if (rc && !missing) {
            rc = PyList_Append(self->callbacks, callback) < 0 ? -1 : 1;
        }
        pyc_lock_give(&self->guard);
    } while (missing);
    return rc;
}

void
pyc_future_force(pyc_future *self, uint32_t state)
{
    PyObject *channel;
    pyc_source *source = pyc_future_source(self, &channel);
    atomic_store(&self->state, state);
    wake(self, source);
    Py_XDECREF(channel);
}

/* Whether somebody who holds the Condition is still setting the outcome: wait
 * for it. */
static int
settle(pyc_future *self)
{
    int entered = pyc_future_enter(self);
    return entered > 0 ? pyc_future_leave(self) : entered;
}

int
pyc_future_wait(pyc_future *self, int64_t deadline)
{
    int rc = 0;
    PyObject *channel;
    pyc_source *source = pyc_future_source(self, &channel);
    /* Before the state is looked at: who ends the Future looks at the two in
     * the opposite order, so one of us sees the other. */
    atomic_fetch_add(&self->sleepers, 1);
    for (;;) {
        uint32_t state = atomic_load(&self->state);
        if (state >= PYC_CANCELLED || rc == -ETIMEDOUT) {
            rc = state >= PYC_CANCELLED;
            break;
        }
        rc = pyc_drive(source, &self->state, state, deadline);
        pyc_hurry_end(self->module);
        if (rc == -ECANCELED || PyErr_CheckSignals() < 0) {
            rc = -1;
            break;
        }
    }
    atomic_fetch_sub(&self->sleepers, 1);
    Py_XDECREF(channel);
    return rc == 1 && settle(self) < 0 ? -1 : rc;
}
