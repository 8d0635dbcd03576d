/* SPDX-License-Identifier: MIT */
/* The Python face of work, and how it is made. */
#include "native/work.h"
#include <errno.h>

/* Between two looks at whether a signal has come. */
#define ATTEND_MS 50

static int
expect_args(const char *function, Py_ssize_t count, Py_ssize_t wanted)
{
    if (count == wanted) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", function,
                 wanted, count);
    return -1;
}

/* args: signature, address, owner, data. NULL with an exception set. */
static pyc_work *
work_new(PyObject *module, PyObject *const *args)
{
    pyc_crew_state *state = PyModule_GetState(module);
    int signature = pyc_as_int(args[0]);
    void *function = PyLong_AsVoidPtr(args[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (signature < 0 || signature >= PYC_SIGNATURES || function == NULL) {
        PyErr_SetString(PyExc_ValueError, "no such signature, or no function");
        return NULL;
    }
    pyc_work *self = (pyc_work *)state->job_type->tp_alloc(state->job_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->signature = (pyc_signature)signature;
    self->function = function;
    self->owner = Py_NewRef(args[2]);
    self->job.run = pyc_work_call;
    self->job.total = 1;
    self->job.chunk = 1;
    if (pyc_work_hold_data(self, args[3]) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

PyObject *
pyc_work_once(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (expect_args("once", count, 6) < 0) {
        return NULL;
    }
    pyc_work *self = work_new(module, args);
    if (self == NULL) {
        return NULL;
    }
    /* A single call is often one that waits, as for a lock or a reply. */
    self->job.waits = true;
    if (pyc_work_hold_whole(self, args[4], args[5]) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

PyObject *
pyc_work_ranges(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (expect_args("ranges", count, 6) < 0) {
        return NULL;
    }
    size_t total = PyLong_AsSize_t(args[4]);
    size_t chunk = PyErr_Occurred() ? 0 : PyLong_AsSize_t(args[5]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    pyc_work *self = work_new(module, args);
    if (self != NULL) {
        self->job.total = total;
        self->job.chunk = chunk;
    }
    return (PyObject *)self;
}

PyObject *
pyc_work_arrays(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (expect_args("arrays", count, 6) < 0) {
        return NULL;
    }
    pyc_work *self = work_new(module, args);
    if (self != NULL && pyc_work_hold_rows(self, args[4], args[5]) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(
    start_doc,
    "start($self, width, threads, chunk, /)\n--\n\n"
    "Begin, on at most `width` of the `threads` that there may be for "
    "work of this\nkind, and with that many items a call (0: as made).");

static PyObject *
work_start(pyc_work *self, PyObject *const *args, Py_ssize_t count)
{
    if (expect_args("start", count, 3) < 0) {
        return NULL;
    }
    size_t width = PyLong_AsSize_t(args[0]);
    size_t threads = PyErr_Occurred() ? 0 : PyLong_AsSize_t(args[1]);
    size_t chunk = PyErr_Occurred() ? 0 : PyLong_AsSize_t(args[2]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (atomic_exchange(&self->started, true)) {
        PyErr_SetString(PyExc_RuntimeError, "work runs once");
        return NULL;
    }
    self->job.width = width;
    self->job.threads = threads > 0 ? threads : 1;
    self->job.chunk = chunk > 0 ? chunk : self->job.chunk;
    if (pyc_job_submit(&self->state->crew, NULL, &self->job) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(wait_doc,
             "wait($self, milliseconds, /)\n--\n\n"
             "Whether it is over, after that many milliseconds at most; "
             "negative: for ever.");

static PyObject *
work_wait(pyc_work *self, PyObject *arg)
{
    long long left = PyLong_AsLongLong(arg);
    if (left == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (pyc_job_is_over(&self->job)) {
        Py_RETURN_TRUE;
    }
    int64_t end = left < 0 ? INT64_MAX : pyc_clock_now() / 1000000 + left;
    for (;;) {
        if (pyc_crew_is_lost(&self->job) || self->job.crew == NULL) {
            PyErr_SetString(PyExc_RuntimeError,
                            "the work belongs to the parent process");
            return NULL;
        }
        left = end == INT64_MAX ? ATTEND_MS : end - pyc_clock_now() / 1000000;
        left = left < 0 ? 0 : left;
        if (pyc_job_wait(&self->job,
                         (int)(left < ATTEND_MS ? left : ATTEND_MS))) {
            Py_RETURN_TRUE;
        }
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
        if (left == 0) {
            Py_RETURN_FALSE;
        }
    }
}

PyDoc_STRVAR(cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Begin no further call; False when it is too late for that.");

static PyObject *
work_cancel(pyc_work *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!pyc_crew_is_lost(&self->job) &&
                           pyc_crew_cancel(&self->job));
}

PyDoc_STRVAR(claim_doc,
             "claim($self, finish, /)\n--\n\n"
             "True for the first who asks once it is over: lets go of what was "
             "held and calls\nthe functions of the tuple `finish`, all of them "
             "even if one raises. It is one call\nso that no signal's handler "
             "can come between.");

static PyObject *
work_claim(pyc_work *self, PyObject *finish)
{
    if (!PyTuple_CheckExact(finish)) {
        PyErr_SetString(PyExc_TypeError, "claim() takes a tuple");
        return NULL;
    }
    if (!pyc_job_is_over(&self->job) || atomic_exchange(&self->claimed, true)) {
        Py_RETURN_FALSE;
    }
    pyc_work_release(self);
    PyObject *error = NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(finish); i++) {
        PyObject *done = PyObject_CallNoArgs(PyTuple_GET_ITEM(finish, i));
        Py_XDECREF(done);
        if (done == NULL) {
            Py_XSETREF(error, pyc_take_exception());
        }
    }
    if (error != NULL) {
        pyc_put_exception(error);
        return NULL;
    }
    Py_RETURN_TRUE;
}

static PyObject *
work_get_due(pyc_work *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(pyc_job_is_over(&self->job) &&
                           !atomic_load(&self->claimed));
}

static PyObject *
work_get_over(pyc_work *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(pyc_job_is_over(&self->job));
}

static PyObject *
work_get_cut(pyc_work *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->job.cut);
}

static PyObject *
work_get_done(pyc_work *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(pyc_crew_done(&self->job));
}

static PyObject *
work_get_total(pyc_work *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->job.total);
}

static PyObject *
work_get_item_size(pyc_work *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->in_step + self->out_step);
}

static PyObject *
work_get_value(pyc_work *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(self->value);
}

static PyObject *
work_get_fault(pyc_work *self, void *Py_UNUSED(closure))
{
    if (self->job.fault == 0) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("Ln", (long long)self->job.fault,
                         (Py_ssize_t)self->job.end);
}

static int
work_traverse(pyc_work *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    for (int i = 0; i < self->view_count; i++) {
        Py_VISIT(self->views[i].obj);
    }
    return 0;
}

static int
work_clear(pyc_work *self)
{
    pyc_job_abandon(&self->job);
    pyc_work_release(self);
    return 0;
}

static void
work_dealloc(pyc_work *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    work_clear(self);
    pyc_crew_clear(&self->job);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef work_methods[] = {
    {"start", (PyCFunction)(void (*)(void))work_start, METH_FASTCALL,
     start_doc},
    {"wait", (PyCFunction)work_wait, METH_O, wait_doc},
    {"cancel", (PyCFunction)work_cancel, METH_NOARGS, cancel_doc},
    {"claim", (PyCFunction)work_claim, METH_O, claim_doc},
    {NULL}};

static PyGetSetDef work_getset[] = {
    {"over", (getter)work_get_over, NULL,
     "Whether no thread works on it any more."},
    {"due", (getter)work_get_due, NULL,
     "Whether it is over and nobody has claimed it."},
    {"cut", (getter)work_get_cut, NULL, "Whether it was cancelled in time."},
    {"done", (getter)work_get_done, NULL, "Items that are worked through."},
    {"total", (getter)work_get_total, NULL, "Items there are."},
    {"item_size", (getter)work_get_item_size, NULL,
     "Bytes that an item has in both buffers."},
    {"value", (getter)work_get_value, NULL, "What the only call returned."},
    {"fault", (getter)work_get_fault, NULL,
     "None, or the error code of the first call that failed and the item it "
     "began with."},
    {NULL}};

static PyType_Slot work_slots[] = {
    {Py_tp_doc, "Calls of a C function in threads that never take the GIL."},
    {Py_tp_dealloc, work_dealloc},
    {Py_tp_traverse, work_traverse},
    {Py_tp_clear, work_clear},
    {Py_tp_methods, work_methods},
    {Py_tp_getset, work_getset},
    {0, NULL}};

PyType_Spec pyc_work_spec = {
    .name = "pyconc._native.Work",
    .basicsize = sizeof(pyc_work),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = work_slots,
};
