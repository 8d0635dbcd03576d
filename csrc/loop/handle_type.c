/* SPDX-License-Identifier: MIT */
/* Handle and TimerHandle as Python sees them. */
#include "py/compat.h"
#include "loop/handle.h"
#include "base/futex.h"

#include <errno.h>

static PyObject *
asyncio_type_of(pyc_handle *self)
{
    pyc_state *state = self->loop->state;
    if (self->threadsafe) {
        return state->asyncio_ThreadSafeHandle;
    }
    return Py_IS_TYPE(self, state->timer_handle_type)
               ? state->asyncio_TimerHandle
               : state->asyncio_Handle;
}

/* isinstance(handle, asyncio.Handle) asks for __class__ too: so a handle is
 * one without carrying the slots of that Python class. */
static PyObject *
handle_get_class(pyc_handle *self, void *closure)
{
    return Py_NewRef(asyncio_type_of(self));
}

/* What asyncio's class does in Python does for ours as well. */
static PyObject *
as_asyncio(pyc_handle *self, const char *method)
{
    PyObject *function = PyObject_GetAttrString(asyncio_type_of(self), method);
    if (function == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_CallOneArg(function, (PyObject *)self);
    Py_DECREF(function);
    return result;
}

static PyObject *
handle_repr(pyc_handle *self)
{
    return as_asyncio(self, "__repr__");
}

static PyObject *
handle_repr_info(pyc_handle *self, PyObject *unused)
{
    return as_asyncio(self, "_repr_info");
}

/* Whether another thread runs it now. */
static int
runs_elsewhere(pyc_handle *self)
{
    int elsewhere;
    PYC_BEGIN_CRITICAL_SECTION(self);
    unsigned long runner = self->runner ? self->runner : self->loop->thread;
    elsewhere = self->running && runner != PyThread_get_thread_ident();
    PYC_END_CRITICAL_SECTION();
    return elsewhere;
}

static int
sleep_until_it_ended(pyc_handle *self)
{
    pyc_loop *loop = self->loop;
    int failed = 0;
    atomic_fetch_add(&loop->run_waiters, 1);
    while (!failed) {
        uint32_t ended = atomic_load(&loop->runs_ended);
        if (!runs_elsewhere(self)) {
            break;
        }
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = pyc_futex_wait(&loop->runs_ended, ended, PYC_NO_DEADLINE);
        Py_END_ALLOW_THREADS
        failed = rc == -EINTR && PyErr_CheckSignals() < 0;
    }
    atomic_fetch_sub(&loop->run_waiters, 1);
    return failed ? -1 : 0;
}

/* Has a thread wait while another runs a handle of call_soon_threadsafe().
 * 0, or -1 with what a signal handler raised. */
static inline int
wait_until_it_ended(pyc_handle *self)
{
    if (!PYC_HANDLE_WAITS || !self->threadsafe || !runs_elsewhere(self)) {
        return 0;
    }
    return sleep_until_it_ended(self);
}

static PyObject *
handle_cancel(pyc_handle *self, PyObject *unused)
{
    if (wait_until_it_ended(self) < 0) {
        return NULL;
    }
    pyc_handle_cancel(self);
    /* Without a GIL it may have begun in between. */
    if (wait_until_it_ended(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
handle_cancelled(pyc_handle *self, PyObject *unused)
{
    if (wait_until_it_ended(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(self->cancelled);
}

static unsigned long
set_runner(pyc_handle *self, unsigned long runner)
{
    unsigned long before;
    PYC_BEGIN_CRITICAL_SECTION(self);
    before = self->runner;
    self->runner = runner;
    PYC_END_CRITICAL_SECTION();
    return before;
}

static PyObject *
handle_run_method(pyc_handle *self, PyObject *unused)
{
    if (wait_until_it_ended(self) < 0) {
        return NULL;
    }
    unsigned long outer = set_runner(self, PyThread_get_thread_ident());
    pyc_handle_run(self);
    set_runner(self, outer);
    Py_RETURN_NONE;
}

static PyObject *
handle_args(pyc_handle *self, void *closure)
{
    PyObject *args;
    PYC_BEGIN_CRITICAL_SECTION(self); /* another thread may cancel it */
    args = pyc_handle_arguments(self);
    PYC_END_CRITICAL_SECTION();
    return args;
}

#define OBJECT_GETTER(field)                                                   \
    static PyObject *get_##field(pyc_handle *self, void *closure)              \
    {                                                                          \
        PyObject *value;                                                       \
        PYC_BEGIN_CRITICAL_SECTION(self);                                      \
        value = (PyObject *)self->field;                                       \
        value = Py_NewRef(value == NULL ? Py_None : value);                    \
        PYC_END_CRITICAL_SECTION();                                            \
        return value;                                                          \
    }
OBJECT_GETTER(callback)
OBJECT_GETTER(loop)
OBJECT_GETTER(source_traceback)
OBJECT_GETTER(repr)
#undef OBJECT_GETTER

static PyObject *
get_context(pyc_handle *self, void *closure)
{
    PyObject *context;
    PYC_BEGIN_CRITICAL_SECTION(self);
    context = self->context == NULL
                  ? Py_None /* the garbage collector has been here */
                  : pyc_handle_own_context(self);
    Py_XINCREF(context);
    PYC_END_CRITICAL_SECTION();
    return context;
}

static PyObject *
handle_get_context(pyc_handle *self, PyObject *unused)
{
    return get_context(self, NULL);
}

static PyObject *
handle_is_cancelled(pyc_handle *self, void *closure)
{
    return PyBool_FromLong(self->cancelled);
}

static PyMethodDef handle_methods[] = {
    {"cancel", (PyCFunction)handle_cancel, METH_NOARGS,
     "cancel($self, /)\n--\n\nKeep the callback from running, unless it runs "
     "already; no effect the second time.\n\nSource: asyncio.Handle.cancel"},
    {"cancelled", (PyCFunction)handle_cancelled, METH_NOARGS,
     "cancelled($self, /)\n--\n\nTrue after cancel().\n\n"
     "Source: asyncio.Handle.cancelled"},
    {"get_context", (PyCFunction)handle_get_context, METH_NOARGS,
     "get_context($self, /)\n--\n\nThe contextvars.Context the callback runs "
     "in.\n\nSource: asyncio.Handle.get_context (3.12)"},
    {"_run", (PyCFunction)handle_run_method, METH_NOARGS,
     "_run($self, /)\n--\n\nRun the callback; its errors go to the loop's "
     "exception handler."},
    {"_repr_info", (PyCFunction)handle_repr_info, METH_NOARGS,
     "_repr_info($self, /)\n--\n\nThe words of repr(), as a list."},
    {NULL},
};

static PyGetSetDef handle_getset[] = {
    {"__class__", (getter)handle_get_class, NULL,
     "What asyncio's loop would give out: asyncio.Handle or a subclass"},
    {"_callback", (getter)get_callback},
    {"_args", (getter)handle_args},
    {"_context", (getter)get_context},
    {"_loop", (getter)get_loop},
    {"_cancelled", (getter)handle_is_cancelled},
    {"_source_traceback", (getter)get_source_traceback},
    {"_repr", (getter)get_repr},
    {NULL},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(pyc_handle, weakrefs),
     READONLY},
    {NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, "A callback that the loop is going to run.\n\n"
                "Made by call_soon() and call_soon_threadsafe().\n\n"
                "Source: asyncio.Handle"},
    {Py_tp_dealloc, pyc_handle_dealloc},
    {Py_tp_traverse, pyc_handle_traverse},
    {Py_tp_clear, pyc_handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "pyconc._core.Handle",
    .basicsize = sizeof(pyc_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

/* ---- TimerHandle ------------------------------------------------------- */

static int
timer_traverse(pyc_timer_handle *self, visitproc visit, void *arg)
{
    Py_VISIT(self->when_given);
    return pyc_handle_traverse(&self->handle, visit, arg);
}

static PyObject *
timer_when(pyc_timer_handle *self, void *unused)
{
    return self->when_given != NULL ? Py_NewRef(self->when_given)
                                    : PyFloat_FromDouble(self->when);
}

static PyObject *
timer_scheduled(pyc_timer_handle *self, void *closure)
{
    return PyBool_FromLong(self->handle.scheduled);
}

static PyObject *
timer_compare(PyObject *self, PyObject *other, int op)
{
    static const char *const names[] = {"__lt__", "__le__", "__eq__",
                                        NULL,     "__gt__", "__ge__"};
    if (op == Py_NE) { /* asyncio's class leaves it to Python to derive */
        PyObject *equal = timer_compare(self, other, Py_EQ);
        if (equal == NULL || equal == Py_NotImplemented) {
            return equal; /* an error, or for `other` to say: as it is */
        }
        int differ = equal == Py_False;
        Py_DECREF(equal);
        return PyBool_FromLong(differ);
    }
    return PyObject_CallMethod(asyncio_type_of((pyc_handle *)self), names[op],
                               "OO", self, other);
}

static Py_hash_t
timer_hash(pyc_timer_handle *self)
{
    PyObject *when = timer_when(self, NULL);
    Py_hash_t hash = when == NULL ? -1 : PyObject_Hash(when);
    Py_XDECREF(when);
    return hash;
}

static PyMethodDef timer_methods[] = {
    {"when", (PyCFunction)timer_when, METH_NOARGS,
     "when($self, /)\n--\n\nWhen the callback is due, in seconds of the loop's "
     "time().\n\nSource: asyncio.TimerHandle.when"},
    {NULL},
};

static PyGetSetDef timer_getset[] = {
    {"_when", (getter)timer_when},
    {"_scheduled", (getter)timer_scheduled},
    {NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_doc, "A callback that the loop is going to run at a time.\n\n"
                "Made by call_later() and call_at().\n\n"
                "Source: asyncio.TimerHandle"},
    {Py_tp_dealloc, pyc_handle_dealloc},
    {Py_tp_traverse, timer_traverse},
    {Py_tp_clear, pyc_handle_clear},
    {Py_tp_richcompare, timer_compare},
    {Py_tp_hash, timer_hash},
    {Py_tp_methods, timer_methods},
    {Py_tp_getset, timer_getset},
    {0, NULL},
};

static PyType_Spec timer_spec = {
    .name = "pyconc._core.TimerHandle",
    .basicsize = sizeof(pyc_timer_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

int
pyc_handle_register(PyObject *module, pyc_state *state)
{
    if (pyc_add_type(module, &handle_spec, NULL, &state->handle_type) < 0) {
        return -1;
    }
    return pyc_add_type(module, &timer_spec, (PyObject *)state->handle_type,
                        &state->timer_handle_type);
}
