/* SPDX-License-Identifier: MIT */
#include "pool/bridge.h"

#include "sync/mailbox.h"

/* Between a Future and an asyncio future: the done callback of both. */
typedef struct {
    PyObject_HEAD
    pyc_future *source;
    PyObject *target;
    pyc_mailbox *mailbox;
} bridge;

static pyc_letter
outcome_of(pyc_future *source, PyObject *target)
{
    pyc_letter letter = {target, NULL, PYC_CANCEL};
    if (pyc_future_state(source) == PYC_FINISHED) {
        letter.outcome = source->exception ? PYC_EXCEPTION : PYC_RESULT;
        letter.value = source->exception ? source->exception
                       : source->result  ? source->result
                                         : Py_None;
    }
    return letter;
}

/* -1 with an exception set. */
static int
cancel(bridge *self)
{
    if (pyc_load(self->source->pool) == NULL) {
        return pyc_future_cancel(self->source) < 0 ? -1 : 0;
    }
    PyObject *done = PyObject_CallMethodNoArgs(
        (PyObject *)self->source, self->source->module->str_cancel);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *
bridge_call(PyObject *op, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    bridge *self = (bridge *)op;
    PyObject *ended;
    if (!PyArg_UnpackTuple(args, "bridge", 1, 1, &ended)) {
        return NULL;
    }
    if (ended == (PyObject *)self->source) {
        pyc_letter letter = outcome_of(self->source, self->target);
        pyc_mailbox_put(self->mailbox, letter.future, letter.outcome,
                        letter.value);
        Py_RETURN_NONE;
    }
    PyObject *cancelled =
        PyObject_CallMethodNoArgs(ended, self->mailbox->module->str_cancelled);
    if (cancelled == Py_True && cancel(self) < 0) {
        Py_CLEAR(cancelled);
    }
    Py_XDECREF(cancelled);
    if (cancelled == NULL) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Calls `bridge` when either of the two ends. */
static int
join(bridge *self, pyc_state *module)
{
    PyObject *added = PyObject_CallMethodOneArg(
        self->target, module->str_add_done_callback, (PyObject *)self);
    if (added == NULL) {
        return -1;
    }
    Py_DECREF(added);
    int rc = pyc_future_add_callback(self->source, (PyObject *)self);
    if (rc == 0) { /* it ended meanwhile */
        pyc_letter letter = outcome_of(self->source, self->target);
        return pyc_mailbox_deliver(module, &letter);
    }
    return rc < 0 ? -1 : 0;
}

PyObject *
pyc_future_wrap(pyc_future *source, PyObject *loop)
{
    pyc_state *module = source->module;
    PyObject *target =
        PyObject_CallMethodNoArgs(loop, module->str_create_future);
    if (target == NULL) {
        return NULL;
    }
    int rc = -1;
    if (pyc_future_done(source)) {
        pyc_letter letter = outcome_of(source, target);
        rc = pyc_mailbox_deliver(module, &letter);
        goto done;
    }
    PyTypeObject *type = module->bridge_type;
    bridge *self = (bridge *)type->tp_alloc(type, 0);
    if (self == NULL) {
        goto done;
    }
    self->source = (pyc_future *)Py_NewRef(source);
    self->target = Py_NewRef(target);
    self->mailbox = pyc_mailbox_of(module, loop);
    if (self->mailbox != NULL) {
        rc = join(self, module);
    }
    Py_DECREF(self);
done:
    if (rc < 0) {
        Py_CLEAR(target);
    }
    return target;
}

static int
bridge_traverse(PyObject *op, visitproc visit, void *arg)
{
    bridge *self = (bridge *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->source);
    Py_VISIT(self->target);
    Py_VISIT(self->mailbox);
    return 0;
}

static int
bridge_clear(PyObject *op)
{
    bridge *self = (bridge *)op;
    Py_CLEAR(self->source);
    Py_CLEAR(self->target);
    Py_CLEAR(self->mailbox);
    return 0;
}

static PyType_Slot bridge_slots[] = {
    {Py_tp_call, bridge_call},
    {Py_tp_traverse, bridge_traverse},
    {Py_tp_clear, bridge_clear},
    {Py_tp_dealloc, pyc_dealloc},
    {0, NULL},
};

static PyType_Spec bridge_spec = {
    .name = "pyconc._core.Bridge",
    .basicsize = sizeof(bridge),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = bridge_slots,
};

int
pyc_bridge_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &bridge_spec, NULL, &state->bridge_type);
}
