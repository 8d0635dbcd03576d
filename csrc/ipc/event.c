/* SPDX-License-Identifier: MIT */
/* multiprocessing.Event. */
#include "ipc/event.h"
#include "ipc/bell.h"
#include "ipc/flag.h"
#include "ipc/lock.h"
#include "ipc/luck.h"
#include "ipc/sleep.h"

#include "py/arguments.h"

typedef struct {
    _Atomic uint32_t word;
    pyc_bells bells;
} event_memory;

typedef struct {
    pyc_shared shared;
    pyc_luck luck;
} event_object;

#define MEMORY PYC_MEMORY(self, event_memory)

static PyObject *
event_is_set(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(pyc_flag_is_set(&MEMORY->word));
}

static PyObject *
event_set(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (pyc_flag_set(&MEMORY->word)) {
        PYC_KILL_POINT("event.set");
        pyc_wake(&MEMORY->word, INT32_MAX);
        pyc_bells_ring(pyc_ipc_of(self), PYC_ARENA(self), &MEMORY->bells);
    }
    Py_RETURN_NONE;
}

static PyObject *
event_clear(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_flag_clear(&MEMORY->word);
    Py_RETURN_NONE;
}

/* 1: it was set; 0: too late; -1: an exception of a signal's handler. */
static int
wait_for_it(PyObject *self, uint32_t before, int64_t deadline)
{
    uint32_t expected;
    pyc_luck_watch(&((event_object *)self)->luck, &MEMORY->word, before);
    while (pyc_flag_doze(&MEMORY->word, before, &expected)) {
        switch (pyc_sleep(&MEMORY->word, expected, deadline)) {
        case PYC_INTERRUPTED:
            return -1;
        case PYC_TOO_LATE:
            return pyc_flag_was_set(atomic_load(&MEMORY->word), before);
        default:
            break;
        }
    }
    return 1;
}

static PyObject *
event_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames)
{
    static const pyc_signature signature = {"wait", {"timeout"}};
    PyObject *timeout = NULL;
    int64_t deadline = PYC_NO_DEADLINE;
    uint32_t before = atomic_load(&MEMORY->word);
    if (pyc_arguments(&signature, args, nargs, kwnames, &timeout) < 0) {
        return NULL;
    }
    if ((before & PYC_SET) != 0) {
        Py_RETURN_TRUE;
    }
    if (pyc_sleep_deadline(NULL, timeout, &deadline) < 0) {
        return NULL;
    }
    int rc = deadline == 0 ? 0 : wait_for_it(self, before, deadline);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

/* What a task that waits remembers. */
static PyObject *
event_before(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint32_t before = atomic_load(&MEMORY->word);
    return PyLong_FromUnsignedLong(before & PYC_TIMES);
}

static PyObject *
event_was_set(PyObject *self, PyObject *given)
{
    unsigned long before = PyLong_AsUnsignedLong(given);
    if (before == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    return PyBool_FromLong(
        pyc_flag_was_set(atomic_load(&MEMORY->word), (uint32_t)before));
}

static PyObject *
event_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint32_t expected, now = atomic_load(&MEMORY->word);
    uint64_t key = pyc_bells_arm(PYC_ARENA(self), &MEMORY->bells);
    pyc_flag_doze(&MEMORY->word, now & PYC_TIMES, &expected);
    return PyLong_FromUnsignedLongLong(key);
}

static PyObject *
event_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ctx", NULL};
    PyObject *ctx = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Event", names, &ctx)) {
        return NULL;
    }
    return pyc_shared_new(type, sizeof(event_memory), PYC_KIND_EVENT);
}

static PyObject *
event_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    return pyc_shared_receive((PyTypeObject *)type, args, nargs,
                              PYC_KIND_EVENT);
}

/* clang-format off */
PyDoc_STRVAR(wait_doc,
"wait($self, /, timeout=None)\n--\n\n"
"Waits until the event is set: True, or False when timeout seconds have passed\n"
"(None: waits for ever). Source: multiprocessing.Event.wait.");
PyDoc_STRVAR(set_doc,
"set($self, /)\n--\n\nSets the event and wakes all who wait for it.");
PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nSets it back.");
PyDoc_STRVAR(is_set_doc, "is_set($self, /)\n--\n\nWhether it is set.");
/* clang-format on */

static PyMethodDef event_methods[] = {
    {"wait", PYC_KEYWORDS(event_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"set", event_set, METH_NOARGS, set_doc},
    {"clear", event_clear, METH_NOARGS, clear_doc},
    {"is_set", event_is_set, METH_NOARGS, is_set_doc},
    {"receive", PYC_KEYWORDS(event_receive), METH_FASTCALL | METH_CLASS,
     PYC_RECEIVE_DOC},
    {"_before", event_before, METH_NOARGS,
     "_before($self, /)\n--\n\nWhat _was_set() is asked with."},
    {"_was_set", event_was_set, METH_O,
     "_was_set($self, before, /)\n--\n\nWhether it was set since _before()."},
    {"arm", event_arm, METH_NOARGS,
     "arm($self, /)\n--\n\n"
     "Has who sets it ring this process's bell: with which key."},
    PYC_SHARED_METHODS,
    {NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, "Event(*, ctx=None)\n--\n\nWhat Event does in C."},
    {Py_tp_new, event_new},
    {Py_tp_methods, event_methods},
    PYC_SHARED_SLOTS,
    {0, NULL},
};

PyType_Spec pyc_event_spec = {
    .name = "pyconc._ipc.Event",
    .basicsize = sizeof(event_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = event_slots,
};
