/* SPDX-License-Identifier: MIT */
/* threading.Event. */
#include "sync/object.h"
#include "sync/sync.h"
#include "sync/wait.h"

#include "py/arguments.h"

typedef struct {
    PYC_SYNC_HEAD
    pyc_waiters waiters;
    pyc_lock guard;
    char flag;
} event;

#define SELF ((event *)self)

static int
waiting_attempt(pyc_wait *wait, int join)
{
    event *self = (event *)wait->subject;
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(&wait->waiter);
    int got = self->flag || wait->waiter.granted;
    if (!got && join) {
        pyc_waiters_join(&self->waiters, &wait->waiter);
    }
    pyc_lock_give(&self->guard);
    return got;
}

static int
waiting_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    event *self = (event *)wait->subject;
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(&wait->waiter);
    pyc_lock_give(&self->guard);
    return 0;
}

static const pyc_operation waiting = {
    .attempt = waiting_attempt,
    .leave = waiting_leave,
};

static PyObject *
event_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames)
{
    static const pyc_signature signature = {"wait", {"timeout"}};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (pyc_arguments(&signature, args, nargs, kwnames, &timeout) < 0) {
        return NULL;
    }
    if (pyc_load(SELF->flag)) {
        Py_RETURN_TRUE;
    }
    if (pyc_timeout_wait(SELF->module, timeout, &deadline) < 0) {
        return NULL;
    }
    pyc_wait wait = {
        .operation = &waiting, .module = SELF->module, .subject = self};
    int rc = pyc_wait_block(&wait, deadline);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
event_wait_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_wait wait = {
        .operation = &waiting, .module = SELF->module, .subject = self};
    return pyc_wait_async(&wait);
}

static PyObject *
event_set(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_lock_take(&SELF->guard);
    pyc_store(SELF->flag, 1);
    Py_ssize_t waiting_now = SELF->waiters.length;
    pyc_lock_give(&SELF->guard);
    for (; waiting_now > 0; waiting_now--) {
        pyc_lock_take(&SELF->guard);
        pyc_wakeup wakeup = pyc_waiters_pop(&SELF->waiters, PYC_GRANTED);
        pyc_lock_give(&SELF->guard);
        pyc_wakeup_send(&wakeup, &SELF->waiters, &SELF->guard, NULL, NULL);
    }
    Py_RETURN_NONE;
}

static PyObject *
event_clear(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_lock_take(&SELF->guard);
    pyc_store(SELF->flag, 0);
    pyc_lock_give(&SELF->guard);
    Py_RETURN_NONE;
}

static PyObject *
event_is_set(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pyc_load(SELF->flag));
}

static PyObject *
event_get_flag(PyObject *self, void *Py_UNUSED(closure))
{
    return event_is_set(self, NULL);
}

static PyObject *
event_after_fork(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_lock_reset(&SELF->guard);
    pyc_waiters_init(&SELF->waiters);
    Py_RETURN_NONE;
}

static int
event_init(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    return PyArg_ParseTupleAndKeywords(args, kwargs, ":Event", names) ? 0 : -1;
}

static PyObject *
event_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
          PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = pyc_sync_new(type);
    if (self != NULL) {
        pyc_waiters_init(&SELF->waiters);
    }
    return self;
}

static void
event_dealloc(PyObject *self)
{
    pyc_sync_free(self, NULL);
}

/* clang-format off */
PyDoc_STRVAR(wait_doc,
"wait($self, /, timeout=None)\n--\n\n"
"Waits until the event is set: True, or False when timeout seconds have passed\n"
"(None: waits for ever). Source: threading.Event.wait.");
PyDoc_STRVAR(wait_async_doc,
"wait_async($self, /)\n--\n\n"
"Waits as a coroutine of any asyncio loop until the event is set: True.");
PyDoc_STRVAR(set_doc,
"set($self, /)\n--\n\nSets the event and wakes all who wait for it.");
PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nSets it back.");
PyDoc_STRVAR(is_set_doc, "is_set($self, /)\n--\n\nWhether it is set.");
/* clang-format on */

static PyMethodDef event_methods[] = {
    {"wait", PYC_KEYWORDS(event_wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"wait_async", event_wait_async, METH_NOARGS, wait_async_doc},
    {"set", event_set, METH_NOARGS, set_doc},
    {"clear", event_clear, METH_NOARGS, clear_doc},
    {"is_set", event_is_set, METH_NOARGS, is_set_doc},
    {"_at_fork_reinit", event_after_fork, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef event_members[] = {
    PYC_SYNC_WEAKREFS,
    {NULL},
};

static PyGetSetDef event_getset[] = {
    {"_flag", event_get_flag, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, "EventBase()\n--\n\nWhat Event does in C."},
    {Py_tp_new, event_new},
    {Py_tp_init, event_init},
    {Py_tp_dealloc, event_dealloc},
    {Py_tp_methods, event_methods},
    {Py_tp_members, event_members},
    {Py_tp_getset, event_getset},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "pyconc._core.EventBase",
    .basicsize = sizeof(event),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = event_slots,
};

int
pyc_event_register(PyObject *module, pyc_state *state)
{
    return pyc_sync_add_type(module, &event_spec, "EventBase", NULL);
}
