/* SPDX-License-Identifier: MIT */
/* How channels are made, sent to other processes and gone. */
#include "ipc/channel.h"

#include "ipc/segment.h"

#define BYTES_MOST (UINT64_C(256) << 20)

static pyc_channel *
as_channel(PyObject *self)
{
    return (pyc_channel *)self;
}

/* A channel without queues; steals nothing. */
static pyc_channel *
empty(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &pyc_ipc_module);
    pyc_channel *self =
        module == NULL ? NULL : (pyc_channel *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = Py_NewRef(module);
        self->state = pyc_ipc_of_module(module);
        pyc_channel_source(&self->source);
    }
    return self;
}

static int
number_between(Py_ssize_t number, Py_ssize_t most, const char *name)
{
    if (number < 1 || number > most) {
        PyErr_Format(PyExc_ValueError, "%s must be between 1 and %zd, not %zd",
                     name, most, number);
        return -1;
    }
    return 0;
}

static int
make_shared(pyc_channel *self, uint32_t workers, uint32_t slots)
{
    PyObject *queue_type = (PyObject *)self->state->queue_type;
    size_t size = pyc_board_size(slots, workers);
    self->jobs = (pyc_queue *)PyObject_CallNoArgs(queue_type);
    if (self->jobs == NULL) {
        return -1;
    }
    self->results = (pyc_queue *)PyObject_CallNoArgs(queue_type);
    if (self->results == NULL) {
        return -1;
    }
    self->segment = PyObject_CallFunction((PyObject *)self->state->segment_type,
                                          "n", (Py_ssize_t)size);
    if (self->segment == NULL) {
        return -1;
    }
    pyc_queue_borrow(self->results, self->jobs);
    self->board = pyc_segment_memory(self->segment, &size);
    pyc_board_begin(self->board, slots, workers,
                    pyc_arena_me(self->jobs->shared.block.arena));
    return 0;
}

static int
make_slots(pyc_channel *self)
{
    uint32_t n = self->board->slots;
    self->slots = PyMem_Calloc(n, sizeof(*self->slots));
    if (self->slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < n; i++) {
        self->slots[i].next = i + 1;
    }
    self->pid = self->state->pid;
    return 0;
}

PyObject *
pyc_channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"workers", "slots", "max_bytes", NULL};
    Py_ssize_t workers, slots = 1024;
    unsigned long long max_bytes = BYTES_MOST;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|nK", names, &workers,
                                     &slots, &max_bytes) ||
        number_between(workers, PYC_WORKERS_MOST, "workers") < 0 ||
        number_between(slots, PYC_SLOTS_MOST, "slots") < 0) {
        return NULL;
    }
    pyc_channel *self = empty(type);
    if (self != NULL) {
        self->max_bytes = max_bytes;
        if (make_shared(self, (uint32_t)workers, (uint32_t)slots) < 0 ||
            make_slots(self) < 0) {
            Py_CLEAR(self);
        }
    }
    return (PyObject *)self;
}

/* The channel of another process, from what __reduce__ gave. */
PyObject *
pyc_channel_attach(PyObject *type, PyObject *args)
{
    PyObject *jobs, *results, *segment;
    size_t size;
    pyc_channel *self = empty((PyTypeObject *)type);
    if (self == NULL) {
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!O!O!", self->state->queue_type, &jobs,
                          self->state->queue_type, &results,
                          self->state->segment_type, &segment)) {
        Py_DECREF(self);
        return NULL;
    }
    self->jobs = (pyc_queue *)Py_NewRef(jobs);
    self->results = (pyc_queue *)Py_NewRef(results);
    self->segment = Py_NewRef(segment);
    self->board = pyc_segment_memory(segment, &size);
    if (jobs == results || !pyc_board_check(self->board, size)) {
        PyErr_SetString(PyExc_ValueError, "no channel's memory");
        Py_CLEAR(self);
        return NULL;
    }
    pyc_queue_borrow(self->results, self->jobs);
    return (PyObject *)self;
}

PyObject *
pyc_channel_reduce(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    pyc_channel *self = as_channel(object);
    PyObject *attach =
        PyObject_GetAttrString((PyObject *)Py_TYPE(object), "_attach");
    return attach == NULL ? NULL
                          : Py_BuildValue("N(OOO)", attach, self->jobs,
                                          self->results, self->segment);
}

int
pyc_channel_traverse(PyObject *object, visitproc visit, void *arg)
{
    pyc_channel *self = as_channel(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->module);
    Py_VISIT(self->jobs);
    Py_VISIT(self->results);
    Py_VISIT(self->segment);
    Py_VISIT(self->refill);
    Py_VISIT(self->describe);
    Py_VISIT(self->relief);
    Py_VISIT(self->deferred);
    for (uint32_t i = 0; self->slots != NULL && i < self->board->slots; i++) {
        pyc_call *call = &self->slots[i].call;
        Py_VISIT(call->future);
        Py_VISIT(call->blob);
        Py_VISIT(call->args);
        Py_VISIT(call->kwargs);
    }
    return 0;
}

/* The queues and the board stay as long as the channel does; what the board
 * says is not for a forked child to change, where the lock may be a thread's
 * that is gone. */
int
pyc_channel_clear(PyObject *object)
{
    pyc_channel *self = as_channel(object);
    Py_CLEAR(self->refill);
    Py_CLEAR(self->describe);
    Py_CLEAR(self->relief);
    Py_CLEAR(self->deferred);
    for (uint32_t i = 0; self->slots != NULL && i < self->board->slots; i++) {
        pyc_call call = self->slots[i].call;
        self->slots[i].call = (pyc_call){0};
        pyc_call_clear(&call);
    }
    return 0;
}

void
pyc_channel_dealloc(PyObject *object)
{
    pyc_channel *self = as_channel(object);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    pyc_channel_clear(object);
    PyMem_Free(self->slots);
    Py_CLEAR(self->jobs);
    Py_CLEAR(self->results);
    Py_CLEAR(self->segment);
    Py_CLEAR(self->capsule);
    PyObject *module = self->module;
    type->tp_free(object);
    Py_XDECREF(module);
    Py_DECREF(type);
}
