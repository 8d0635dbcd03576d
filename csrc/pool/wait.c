/* SPDX-License-Identifier: MIT */
/* concurrent.futures.wait for Futures of ours alone: one object stands in the
 * `_waiters` of all, and no Condition is made. */
#include "pool/wait.h"
#include "pool/drive.h"
#include "pool/queue.h"

#include "sync/timeout.h"

typedef struct {
    PyObject_HEAD
    _Atomic uint32_t woken;
    _Atomic Py_ssize_t pending; /* how many must still end */
    int first_exception;        /* an exception ends the wait */
    pyc_source *source;         /* what its thread collects from, or NULL */
    PyObject *channel;          /* whose that is */
} waiter;

static int
is_over(pyc_future *future)
{
    uint32_t state = pyc_future_state(future);
    return state == PYC_NOTIFIED || state == PYC_FINISHED;
}

int
pyc_waiter_check(pyc_state *module, PyObject *op)
{
    return Py_IS_TYPE(op, module->waiter_type);
}

void
pyc_waiter_tell(PyObject *op, int failed)
{
    waiter *self = (waiter *)op;
    if (atomic_fetch_sub(&self->pending, 1) <= 1 ||
        (failed && self->first_exception)) {
        atomic_store(&self->woken, 1);
        pyc_futex_wake(&self->woken, 1);
        if (self->source != NULL) {
            self->source->kick(self->source);
        }
    }
}

/* The thread collects from the source of the first that needs one. */
static void
choose_source(waiter *self, PyObject *futures)
{
    Py_ssize_t count = PyList_GET_SIZE(futures);
    for (Py_ssize_t i = 0; self->source == NULL && i < count; i++) {
        self->source = pyc_future_source(
            (pyc_future *)PyList_GET_ITEM(futures, i), &self->channel);
    }
}

/* Puts the waiter where the end of `future` finds it, or counts the end that
 * came first. */
static int
install(waiter *self, pyc_future *future)
{
    int rc = 0, over;
    if (pyc_future_make_list(future, &future->waiters) < 0) {
        return -1;
    }
    pyc_lock_take(&future->guard);
    over = is_over(future);
    if (!over) {
        rc = PyList_Append(future->waiters, (PyObject *)self);
    }
    pyc_lock_give(&future->guard);
    if (over) {
        pyc_waiter_tell((PyObject *)self, future->exception != NULL);
    }
    return rc;
}

static void
uninstall(pyc_state *module, waiter *self, pyc_future *future)
{
    PyObject *list, *pending = pyc_take_exception();
    pyc_lock_take(&future->guard);
    list = Py_XNewRef(future->waiters);
    pyc_lock_give(&future->guard);
    if (list != NULL) {
        PyObject *done = PyObject_CallMethodOneArg(list, module->str_remove,
                                                   (PyObject *)self);
        Py_XDECREF(done);
        Py_DECREF(list);
        PyErr_Clear(); /* ValueError: it ended before it was put there */
    }
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
}

/* Those of the list that are over, as a set. */
static PyObject *
collect(PyObject *futures, int *failed)
{
    PyObject *over = PySet_New(NULL);
    *failed = 0;
    for (Py_ssize_t i = 0; over != NULL && i < PyList_GET_SIZE(futures); i++) {
        pyc_future *future = (pyc_future *)PyList_GET_ITEM(futures, i);
        if (is_over(future)) {
            *failed |= future->exception != NULL;
            if (PySet_Add(over, (PyObject *)future) < 0) {
                Py_CLEAR(over);
            }
        }
    }
    return over;
}

static int
wait_for(pyc_state *module, PyObject *futures, Py_ssize_t pending,
         int first_exception, int64_t deadline)
{
    PyTypeObject *type = module->waiter_type;
    waiter *self = (waiter *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return -1;
    }
    self->pending = pending;
    self->first_exception = first_exception;
    choose_source(self, futures);
    int rc = 0;
    Py_ssize_t count = PyList_GET_SIZE(futures), put = 0;
    for (; rc == 0 && put < count; put++) {
        rc = install(self, (pyc_future *)PyList_GET_ITEM(futures, put));
    }
    if (rc == 0) {
        rc = pyc_drive_until_set(self->source, &self->woken, deadline);
    }
    while (--put >= 0) {
        uninstall(module, self, (pyc_future *)PyList_GET_ITEM(futures, put));
    }
    Py_DECREF(self);
    return rc;
}

/* A worker runs what it would wait for, once no other is free to: 1 when it
 * has run some, -1 when that is to be asked again, 0 when there is nothing. */
static int
help(PyObject *futures, int first)
{
    int rc = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(futures); i++) {
        pyc_future *future = (pyc_future *)PyList_GET_ITEM(futures, i);
        uint32_t state = pyc_future_state(future);
        if (first && state == PYC_RUNNING) {
            return 0; /* another will end the wait */
        }
        int helped = is_over(future) ? 0 : pyc_queue_help(future);
        rc = helped != 0 && rc <= 0 ? helped : rc;
        if (first && rc > 0) {
            break;
        }
    }
    return rc;
}

static int
are_ours(pyc_state *state, PyObject *futures)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(futures); i++) {
        PyTypeObject *type = Py_TYPE(PyList_GET_ITEM(futures, i));
        if (!PyType_IsSubtype(type, state->future_type)) {
            return 0;
        }
    }
    return 1;
}

/* Whether those that are over, or NULL with an exception set, are what to
 * return. */
static int
is_enough(PyObject *over, PyObject *futures, int first_completed, int failed)
{
    return over == NULL || failed ||
           PySet_GET_SIZE(over) == PyList_GET_SIZE(futures) ||
           (first_completed && PySet_GET_SIZE(over) > 0);
}

/* Until those that are over are enough or there is nothing that this worker
 * could run. */
static int
wait_in_worker(pyc_state *state, PyObject *futures, int first_completed,
               int first_exception)
{
    int failed;
    Py_ssize_t pending = first_completed ? 1 : PyList_GET_SIZE(futures);
    for (;;) {
        PyObject *over = collect(futures, &failed);
        if (over == NULL) {
            return -1;
        }
        int enough = is_enough(over, futures, first_completed,
                               first_exception && failed);
        Py_DECREF(over);
        int helped =
            enough ? 0 : help(futures, first_completed || first_exception);
        if (helped == 0) {
            return 0;
        }
        if (helped < 0 && wait_for(state, futures, pending, first_exception,
                                   pyc_clock_now() + PYC_HELP_AFTER) < 0) {
            return -1;
        }
    }
}

static PyObject *
wait_futures(PyObject *module, PyObject *args)
{
    pyc_state *state = pyc_state_of_module(module);
    PyObject *futures, *timeout;
    int first_completed, first_exception, failed;
    int64_t deadline;
    if (!PyArg_ParseTuple(args, "O!Opp:wait", &PyList_Type, &futures, &timeout,
                          &first_completed, &first_exception)) {
        return NULL;
    }
    if (!are_ours(state, futures)) {
        Py_RETURN_NONE;
    }
    if (timeout == Py_None && pyc_queue_in_worker(state) &&
        wait_in_worker(state, futures, first_completed, first_exception) < 0) {
        return NULL;
    }
    PyObject *over = collect(futures, &failed);
    if (is_enough(over, futures, first_completed, first_exception && failed)) {
        return over;
    }
    Py_DECREF(over);
    Py_ssize_t pending = first_completed ? 1 : PyList_GET_SIZE(futures);
    if (pyc_timeout_wait(state, timeout, &deadline) < 0 ||
        wait_for(state, futures, pending, first_exception, deadline) < 0) {
        return NULL;
    }
    return collect(futures, &failed);
}

static PyObject *
help_with(PyObject *module, PyObject *future)
{
    pyc_state *state = pyc_state_of_module(module);
    if (!PyObject_TypeCheck(future, state->future_type)) {
        PyErr_Format(PyExc_TypeError, "not a Future: %R", future);
        return NULL;
    }
    return PyLong_FromLong(pyc_queue_help((pyc_future *)future));
}

static PyObject *
in_worker(PyObject *module, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pyc_queue_in_worker(pyc_state_of_module(module)));
}

static void
waiter_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    Py_XDECREF(((waiter *)op)->channel);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot waiter_slots[] = {
    {Py_tp_dealloc, waiter_dealloc},
    {0, NULL},
};

static PyType_Spec waiter_spec = {
    .name = "pyconc._core.Waiter",
    .basicsize = sizeof(waiter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = waiter_slots,
};

static PyMethodDef functions[] = {
    {"wait", wait_futures, METH_VARARGS,
     "wait(futures, timeout, first_completed, first_exception, /)\n--\n\n"
     "The set of those in the list that are done; None if one is not ours."},
    {"help", help_with, METH_O,
     "help(future, /)\n--\n\n"
     "Runs the future's job here, 1, if it waits in the pool whose worker this "
     "thread is and no other is free; -1 if one is; 0 if it waits not there."},
    {"in_worker", in_worker, METH_NOARGS,
     "in_worker()\n--\n\nWhether this thread is one of a thread pool's."},
    {NULL},
};

int
pyc_wait_register(PyObject *module, pyc_state *state)
{
    if (PyModule_AddFunctions(module, functions) < 0) {
        return -1;
    }
    return pyc_add_type(module, &waiter_spec, NULL, &state->waiter_type);
}
