/* SPDX-License-Identifier: MIT */
/* The Python face of a Future. */
#include "pool/future.h"
#include "pool/bridge.h"
#include "pool/pool.h"
#include "pool/queue.h"

#include "py/arguments.h"
#include "py/asyncio.h"
#include "sync/timeout.h"

#define SELF ((pyc_future *)self)

static const char *const descriptions[] = {"pending", "running", "cancelled",
                                           "cancelled", "finished"};

static PyObject *
parse_timeout(const char *name, PyObject *const *args, Py_ssize_t nargs,
              PyObject *kwnames, int *ok)
{
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    *ok = nargs + nkw <= 1 &&
          (nkw == 0 || PyUnicode_CompareWithASCIIString(
                           PyTuple_GET_ITEM(kwnames, 0), "timeout") == 0);
    if (!*ok) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes one argument, timeout, at most", name);
    }
    return *ok && nargs + nkw == 1 ? args[0] : NULL;
}

/* A worker that waits for a job of its own pool runs it, once no other worker
 * is free to: 1 when it is done, 0 when somebody else runs it or will, -1. */
static int
help(pyc_future *self)
{
    int rc = 0;
    while (rc == 0 && pyc_queue_help(self) < 0) {
        rc = pyc_future_wait(self, pyc_clock_now() + PYC_HELP_AFTER);
    }
    return rc;
}

/* Waits; 0 when there is an outcome, else -1 with the exception that says
 * why not. */
static int
wait_outcome(pyc_future *self, const char *name, PyObject *const *args,
             Py_ssize_t nargs, PyObject *kwnames)
{
    int ok;
    PyObject *timeout = parse_timeout(name, args, nargs, kwnames, &ok);
    if (!ok) {
        return -1;
    }
    if (!pyc_future_done(self)) {
        int64_t deadline;
        if (pyc_timeout_wait(self->module, timeout, &deadline) < 0) {
            return -1;
        }
        int rc = deadline == PYC_NO_DEADLINE ? help(self) : 0;
        if (rc == 0) {
            pyc_queue_hurry(self);
            rc = pyc_future_wait(self, deadline);
        }
        if (rc < 0) {
            return -1;
        }
        if (rc == 0) {
            PyErr_SetNone(PyExc_TimeoutError);
            return -1;
        }
    }
    if (pyc_future_state(self) != PYC_FINISHED) {
        PyErr_SetNone(self->module->base_CancelledError);
        return -1;
    }
    return 0;
}

static PyObject *
future_result(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
              PyObject *kwnames)
{
    if (wait_outcome(SELF, "result", args, nargs, kwnames) < 0) {
        return NULL;
    }
    PyObject *exception = SELF->exception;
    if (exception == NULL) {
        return Py_NewRef(SELF->result == NULL ? Py_None : SELF->result);
    }
    if (!PyExceptionInstance_Check(exception) &&
        !PyExceptionClass_Check(exception)) {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must derive from BaseException, not %R",
                     exception);
    }
    else if (PyExceptionClass_Check(exception)) {
        PyErr_SetNone(exception);
    }
    else {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    }
    return NULL;
}

static PyObject *
future_exception(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    if (wait_outcome(SELF, "exception", args, nargs, kwnames) < 0) {
        return NULL;
    }
    return Py_NewRef(SELF->exception == NULL ? Py_None : SELF->exception);
}

static PyObject *
future_cancel(PyObject *self, PyObject *Py_UNUSED(unused))
{
    int rc = pyc_future_cancel(SELF);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
future_cancelled(PyObject *self, PyObject *Py_UNUSED(unused))
{
    uint32_t state = pyc_future_state(SELF);
    return PyBool_FromLong(state == PYC_CANCELLED || state == PYC_NOTIFIED);
}

static PyObject *
future_running(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pyc_future_shown(SELF) == PYC_RUNNING);
}

static PyObject *
future_done(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pyc_future_done(SELF));
}

static PyObject *
future_add_done_callback(PyObject *self, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames)
{
    static const pyc_signature signature = {"add_done_callback", {"fn"}, 1};
    PyObject *callback = NULL;
    if (pyc_arguments(&signature, args, nargs, kwnames, &callback) < 0) {
        return NULL;
    }
    int rc = pyc_future_add_callback(SELF, callback);
    if (rc < 0 || (rc == 0 && pyc_future_call(SELF, callback) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
future_begin(PyObject *self, PyObject *Py_UNUSED(unused))
{
    int rc = pyc_future_begin(SELF);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
future_set_result(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    static const pyc_signature signature = {"set_result", {"result"}, 1};
    PyObject *result = NULL;
    if (pyc_arguments(&signature, args, nargs, kwnames, &result) < 0 ||
        pyc_future_finish(SELF, result, 0) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
future_set_exception(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    static const pyc_signature signature = {"set_exception", {"exception"}, 1};
    PyObject *exception = NULL;
    if (pyc_arguments(&signature, args, nargs, kwnames, &exception) < 0 ||
        pyc_future_finish(SELF, exception, exception != Py_None) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
future_await(PyObject *self)
{
    PyObject *loop = pyc_running_loop(SELF->module);
    if (loop == Py_None) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a Future is awaited in a running event loop");
        Py_CLEAR(loop);
    }
    PyObject *wrapped = loop == NULL ? NULL : pyc_future_wrap(SELF, loop);
    Py_XDECREF(loop);
    PyObject *iterator = NULL;
    if (wrapped != NULL) {
        iterator = PyObject_CallMethod(wrapped, "__await__", NULL);
        Py_DECREF(wrapped);
    }
    return iterator;
}

static PyObject *
future_repr(PyObject *self)
{
    const char *name = strrchr(Py_TYPE(self)->tp_name, '.');
    name = name == NULL ? Py_TYPE(self)->tp_name : name + 1;
    uint32_t state = pyc_future_shown(SELF);
    const char *verb = NULL;
    PyObject *outcome = NULL;
    if (state == PYC_FINISHED) {
        verb = SELF->exception == NULL ? "returned" : "raised";
        outcome = SELF->exception == NULL ? SELF->result : SELF->exception;
    }
    if (verb == NULL) {
        return PyUnicode_FromFormat("<%s at %p state=%s>", name, self,
                                    descriptions[state]);
    }
    outcome = outcome == NULL ? Py_None : outcome;
    return PyUnicode_FromFormat("<%s at %p state=%s %s %s>", name, self,
                                descriptions[state], verb,
                                Py_TYPE(outcome)->tp_name);
}

static PyObject *
future_get_condition(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *condition;
    pyc_lock_take(&SELF->guard);
    condition = Py_XNewRef(SELF->condition);
    pyc_lock_give(&SELF->guard);
    if (condition != NULL) {
        return condition;
    }
    PyObject *fresh =
        PyObject_CallMethodNoArgs(self, SELF->module->str__new_condition);
    if (fresh == NULL) {
        return NULL;
    }
    pyc_lock_take(&SELF->guard);
    if (SELF->condition == NULL) {
        SELF->condition = Py_NewRef(fresh);
    }
    condition = Py_NewRef(SELF->condition);
    pyc_lock_give(&SELF->guard);
    Py_DECREF(fresh);
    return condition;
}

/* The closure is the offset of a list that is made when asked for. */
static PyObject *
future_get_list(PyObject *self, void *closure)
{
    PyObject **slot = (PyObject **)((char *)self + (intptr_t)closure);
    PyObject *list = NULL;
    while (list == NULL && pyc_future_make_list(SELF, slot) == 0) {
        pyc_lock_take(&SELF->guard);
        list = Py_XNewRef(*slot);
        pyc_lock_give(&SELF->guard);
    }
    return list;
}

static PyObject *
future_get_state(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_InternFromString(pyc_future_state_name(SELF));
}

static int
future_set_state(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    static const char *const names[] = {"PENDING", "RUNNING", "CANCELLED",
                                        "CANCELLED_AND_NOTIFIED", "FINISHED"};
    for (uint32_t i = 0; value != NULL && PyUnicode_Check(value) && i < 5;
         i++) {
        if (PyUnicode_CompareWithASCIIString(value, names[i]) == 0) {
            pyc_future_force(SELF, i);
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "not the state of a Future: %R",
                 value == NULL ? Py_None : value);
    return -1;
}

/* The closure is the offset of the outcome's half: None when NULL. */
static PyObject *
future_get_outcome(PyObject *self, void *closure)
{
    PyObject *value;
    pyc_lock_take(&SELF->guard);
    value = *(PyObject **)((char *)self + (intptr_t)closure);
    value = Py_NewRef(value == NULL ? Py_None : value);
    pyc_lock_give(&SELF->guard);
    return value;
}

static int
future_set_outcome(PyObject *self, PyObject *value, void *closure)
{
    PyObject **slot = (PyObject **)((char *)self + (intptr_t)closure);
    PyObject *old;
    pyc_lock_take(&SELF->guard);
    old = *slot;
    *slot = value == Py_None ? NULL : Py_XNewRef(value);
    pyc_lock_give(&SELF->guard);
    Py_XDECREF(old);
    return 0;
}

static PyObject *
future_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
           PyObject *Py_UNUSED(kwargs))
{
    pyc_state *module = pyc_state_of_type(type);
    return module == NULL ? NULL : (PyObject *)pyc_future_new(type, module);
}

static int
future_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    return PyArg_ParseTupleAndKeywords(args, kwargs, ":Future", names) ? 0 : -1;
}

static int
future_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(SELF->result);
    Py_VISIT(SELF->exception);
    Py_VISIT(SELF->condition);
    Py_VISIT(SELF->waiters);
    Py_VISIT(SELF->callbacks);
    Py_VISIT(SELF->channel);
    Py_VISIT(SELF->pool);
    return 0;
}

static int
future_clear(PyObject *self)
{
    Py_CLEAR(SELF->result);
    Py_CLEAR(SELF->exception);
    Py_CLEAR(SELF->condition);
    Py_CLEAR(SELF->waiters);
    Py_CLEAR(SELF->callbacks);
    pyc_store(SELF->source, NULL);
    Py_CLEAR(SELF->channel);
    Py_CLEAR(SELF->pool);
    return 0;
}

static void
future_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    future_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* clang-format off */
PyDoc_STRVAR(result_doc,
"result($self, /, timeout=None)\n--\n\n"
"What the call returned, or raises what it raised. Waits up to timeout\n"
"seconds (None: for ever), then raises TimeoutError; CancelledError if the\n"
"Future was cancelled. See concurrent.futures.Future.result.");
PyDoc_STRVAR(exception_doc,
"exception($self, /, timeout=None)\n--\n\n"
"What the call raised, or None. Waits as result() does.");
PyDoc_STRVAR(cancel_doc,
"cancel($self, /)\n--\n\n"
"Cancels the call unless it runs or has run: then False, else True.");
PyDoc_STRVAR(cancelled_doc,
"cancelled($self, /)\n--\n\nWhether the Future was cancelled.");
PyDoc_STRVAR(running_doc,
"running($self, /)\n--\n\nWhether the call is running.");
PyDoc_STRVAR(done_doc,
"done($self, /)\n--\n\nWhether the call ended or the Future was cancelled.");
PyDoc_STRVAR(add_done_callback_doc,
"add_done_callback($self, /, fn)\n--\n\n"
"Calls fn(self) in the thread that ends the Future, or now if it is done.\n"
"An Exception that fn raises is logged to \"concurrent.futures\".");
PyDoc_STRVAR(begin_doc,
"set_running_or_notify_cancel($self, /)\n--\n\n"
"For executors: True if the Future runs from now on, False if it was\n"
"cancelled. RuntimeError in any other state.");
PyDoc_STRVAR(set_result_doc,
"set_result($self, /, result)\n--\n\n"
"For executors: ends the Future. InvalidStateError if it is done.");
PyDoc_STRVAR(set_exception_doc,
"set_exception($self, /, exception)\n--\n\n"
"For executors: ends the Future. InvalidStateError if it is done.");
PyDoc_STRVAR(future_doc,
"A concurrent.futures.Future that is awaitable in any asyncio loop.");
/* clang-format on */

static PyMethodDef future_methods[] = {
    {"result", PYC_KEYWORDS(future_result), METH_FASTCALL | METH_KEYWORDS,
     result_doc},
    {"exception", PYC_KEYWORDS(future_exception), METH_FASTCALL | METH_KEYWORDS,
     exception_doc},
    {"cancel", future_cancel, METH_NOARGS, cancel_doc},
    {"cancelled", future_cancelled, METH_NOARGS, cancelled_doc},
    {"running", future_running, METH_NOARGS, running_doc},
    {"done", future_done, METH_NOARGS, done_doc},
    {"add_done_callback", PYC_KEYWORDS(future_add_done_callback),
     METH_FASTCALL | METH_KEYWORDS, add_done_callback_doc},
    {"set_running_or_notify_cancel", future_begin, METH_NOARGS, begin_doc},
    {"set_result", PYC_KEYWORDS(future_set_result),
     METH_FASTCALL | METH_KEYWORDS, set_result_doc},
    {"set_exception", PYC_KEYWORDS(future_set_exception),
     METH_FASTCALL | METH_KEYWORDS, set_exception_doc},
    {NULL},
};

#define AT(field) ((void *)offsetof(pyc_future, field))

static PyGetSetDef future_getset[] = {
    {"_condition", future_get_condition, NULL, NULL, NULL},
    {"_waiters", future_get_list, NULL, NULL, AT(waiters)},
    {"_done_callbacks", future_get_list, NULL, NULL, AT(callbacks)},
    {"_state", future_get_state, future_set_state, NULL, NULL},
    {"_result", future_get_outcome, future_set_outcome, NULL, AT(result)},
    {"_exception", future_get_outcome, future_set_outcome, NULL, AT(exception)},
    {NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)future_doc},
    {Py_tp_new, future_new},
    {Py_tp_init, future_init},
    {Py_tp_dealloc, future_dealloc},
    {Py_tp_traverse, future_traverse},
    {Py_tp_clear, future_clear},
    {Py_tp_repr, future_repr},
    {Py_am_await, future_await},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getset},
    {0, NULL},
};

static PyType_Spec future_spec = {
    .name = "pyconc._core.FutureBase",
    .basicsize = sizeof(pyc_future),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_slots,
};

int
pyc_future_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &future_spec, NULL, &state->future_type);
}
