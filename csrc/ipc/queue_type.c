/* SPDX-License-Identifier: MIT */
/* The methods of queues. */
#include "ipc/queue.h"

#include "ipc/memory.h"
#include "ipc/segment.h"
#include "ipc/sleep.h"
#include "ipc/guard.h"
#include "py/arguments.h"

#include <unistd.h>

static pyc_queue *
as_queue(PyObject *self)
{
    return (pyc_queue *)self;
}

static pyc_ring *
ring_of(PyObject *self)
{
    return &pyc_queue_shared(as_queue(self))->ring;
}

/* Takes the descriptor over. */
static void
open_store(pyc_queue *self, int fd)
{
    pyc_ipc *state = self->shared.state;
    self->store.fd = fd;
    self->store.extents = &pyc_queue_shared(self)->ring.heap.extents;
    pyc_link_init(&self->views);
    pyc_guard_take(state);
    pyc_link_insert(&state->queues, &self->link);
    pyc_guard_give(state);
    self->is_open = 1;
}

static int
limit(PyObject *value, const char *name, uint64_t *number)
{
    if (value == NULL || value == Py_None) {
        return 0;
    }
    Py_ssize_t n = PyNumber_AsSsize_t(value, PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) {
        return -1;
    }
    *number = n > 0 ? (uint64_t)n : 0;
    return 0;
}

/* Without limits, whatever the arguments: what a derived class is called with
 * is for its __init__() to know. */
static PyObject *
queue_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
          PyObject *Py_UNUSED(kwargs))
{
    pyc_queue *self = (pyc_queue *)pyc_shared_new(
        type, sizeof(pyc_queue_memory), PYC_KIND_QUEUE);
    if (self == NULL) {
        return NULL;
    }
    pyc_segments_forget(self->shared.state, false);
    int fd = pyc_memory_open("pyconc-queue", 4096, 0);
    if (fd < 0) {
        Py_DECREF(self);
        return NULL;
    }
    open_store(self, fd);
    int rc = pyc_ring_begin(ring_of((PyObject *)self), &self->store);
    if (rc < 0) {
        pyc_queue_error(rc);
        Py_DECREF(self);
        return NULL;
    }
    pyc_queue_shared(self)->simple = 0;
    pyc_queue_shared(self)->maxsize = 0;
    pyc_queue_shared(self)->max_bytes = 0;
    return (PyObject *)self;
}

static int
queue_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"maxsize", "max_bytes", "simple", NULL};
    PyObject *maxsize = NULL, *max_bytes = NULL;
    uint64_t items = 0, bytes = 0;
    int simple = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O$Op", names, &maxsize,
                                     &max_bytes, &simple) ||
        limit(maxsize, "maxsize", &items) < 0 ||
        limit(max_bytes, "max_bytes", &bytes) < 0) {
        return -1;
    }
    pyc_queue_memory *memory = pyc_queue_shared(as_queue(self));
    memory->simple = (uint32_t)simple;
    memory->maxsize = items;
    memory->max_bytes = bytes;
    return 0;
}

static void
queue_dealloc(PyObject *object)
{
    pyc_queue *self = as_queue(object);
    pyc_ipc *state = self->shared.state;
    PyObject_GC_UnTrack(object);
    if (self->is_open) {
        pyc_guard_take(state);
        pyc_link_remove(&self->link);
        pyc_guard_give(state);
        pyc_store_unmap(&self->store);
        pyc_segments_forget(state, false);
        if (pyc_block_is_sent(&self->shared.block)) {
            pyc_memory_keep(state, &self->shared.block, &self->store.fd);
        }
        if (self->store.fd >= 0) {
            close(self->store.fd);
        }
    }
    if (self->lender != NULL) {
        if (self->lender->borrower == self) {
            self->lender->borrower = NULL;
        }
        Py_CLEAR(self->lender);
    }
    Py_CLEAR(self->failures);
    pyc_shared_dealloc(object);
}

static int
queue_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(as_queue(self)->failures);
    Py_VISIT(as_queue(self)->lender);
    return pyc_shared_traverse(self, visit, arg);
}

static int
queue_clear(PyObject *self)
{
    Py_CLEAR(as_queue(self)->failures);
    return pyc_shared_clear(self);
}

static PyObject *
queue_send(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *block = pyc_block_send(&as_queue(self)->shared.block);
    return block == NULL ? NULL
                         : Py_BuildValue("(Nii)", block, (int)getpid(),
                                         as_queue(self)->store.fd);
}

static PyObject *
queue_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    pyc_queue *self = (pyc_queue *)pyc_memory_receive(
        (PyTypeObject *)type, args, nargs, PYC_KIND_QUEUE, &fd);
    if (self == NULL) {
        return NULL;
    }
    open_store(self, fd);
    int rc = pyc_store_map(&self->store);
    if (rc < 0) {
        pyc_queue_error(rc);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyObject *
queue_descriptors(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(ii)", pyc_block_fd(&as_queue(self)->shared.block),
                         as_queue(self)->store.fd);
}

static int
check_open(PyObject *self)
{
    if (PYC_LIKELY(!pyc_load(as_queue(self)->is_closed))) {
        return 0;
    }
    if (pyc_queue_shared(as_queue(self))->simple) {
        PyErr_SetString(PyExc_OSError, "handle is closed");
    }
    else {
        PyErr_Format(PyExc_ValueError, "Queue %R is closed", self);
    }
    return -1;
}

static PyObject *
put_one(PyObject *self, PyObject *item, int64_t deadline)
{
    Py_ssize_t done = 0;
    if (check_open(self) < 0) {
        return NULL;
    }
    pyc_store(as_queue(self)->is_used, 1);
    if (pyc_queue_put(as_queue(self), &item, 1, deadline, &done) < 0) {
        return NULL;
    }
    if (done == 0) {
        PyErr_SetNone(as_queue(self)->shared.state->queue_Full);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
queue_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames)
{
    static const pyc_signature signature = {
        "put", {"obj", "block", "timeout", NULL}, 1};
    PyObject *values[3] = {NULL};
    int64_t deadline;
    if (nargs == 1 && kwnames == NULL) {
        return put_one(self, args[0], PYC_NO_DEADLINE);
    }
    if (pyc_arguments(&signature, args, nargs, kwnames, values) < 0 ||
        pyc_sleep_deadline(values[1], values[2], &deadline) < 0) {
        return NULL;
    }
    return put_one(self, values[0], deadline);
}

static PyObject *
queue_put_nowait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    static const pyc_signature signature = {"put_nowait", {"obj", NULL}, 1};
    PyObject *item = NULL;
    if (pyc_arguments(&signature, args, nargs, kwnames, &item) < 0) {
        return NULL;
    }
    return put_one(self, item, 0);
}

/* queue.Full and ShutDown of put_many() say how many were put. */
static PyObject *
put_many(PyObject *self, PyObject *items, int64_t deadline)
{
    Py_ssize_t done = 0;
    if (check_open(self) < 0) {
        return NULL;
    }
    PyObject *all = PySequence_Tuple(items);
    if (all == NULL) {
        return NULL;
    }
    pyc_store(as_queue(self)->is_used, 1);
    Py_ssize_t n = PyTuple_GET_SIZE(all);
    int rc = n == 0 ? 0
                    : pyc_queue_put(as_queue(self), &PyTuple_GET_ITEM(all, 0),
                                    n, deadline, &done);
    Py_DECREF(all);
    if (rc < 0) {
        return NULL;
    }
    if (done < n) {
        PyObject *count = PyLong_FromSsize_t(done);
        if (count != NULL) {
            PyErr_SetObject(as_queue(self)->shared.state->queue_Full, count);
            Py_DECREF(count);
        }
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
queue_put_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const pyc_signature signature = {
        "put_many", {"items", "block", "timeout", NULL}, 1};
    PyObject *values[3] = {NULL};
    int64_t deadline;
    if (pyc_arguments(&signature, args, nargs, kwnames, values) < 0 ||
        pyc_sleep_deadline(values[1], values[2], &deadline) < 0) {
        return NULL;
    }
    return put_many(self, values[0], deadline);
}

static PyObject *
queue_get(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames)
{
    static const pyc_signature signature = {
        "get", {"block", "timeout", NULL}, 0};
    PyObject *values[2] = {NULL};
    int64_t deadline = PYC_NO_DEADLINE;
    if (check_open(self) < 0) {
        return NULL;
    }
    if ((nargs > 0 || kwnames != NULL) &&
        (pyc_arguments(&signature, args, nargs, kwnames, values) < 0 ||
         pyc_sleep_deadline(values[0], values[1], &deadline) < 0)) {
        return NULL;
    }
    return pyc_queue_get(as_queue(self), deadline);
}

static PyObject *
queue_get_nowait(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return check_open(self) < 0 ? NULL : pyc_queue_get(as_queue(self), 0);
}

static PyObject *
queue_get_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const pyc_signature signature = {
        "get_many", {"n", "block", "timeout", "max_messages_to_get", NULL}, 0};
    PyObject *values[4] = {NULL};
    int64_t deadline;
    if (check_open(self) < 0 ||
        pyc_arguments(&signature, args, nargs, kwnames, values) < 0 ||
        pyc_sleep_deadline(values[1], values[2], &deadline) < 0) {
        return NULL;
    }
    PyObject *most = values[0] == NULL ? values[3] : values[0];
    Py_ssize_t n = PY_SSIZE_T_MAX;
    if (most != NULL && most != Py_None) {
        n = PyNumber_AsSsize_t(most, PyExc_OverflowError);
        if (n == -1 && PyErr_Occurred()) {
            return NULL;
        }
        if (n <= 0) {
            PyErr_SetString(PyExc_ValueError, "'n' must be a positive number");
            return NULL;
        }
    }
    return pyc_queue_get_many(as_queue(self), n, deadline);
}

static PyObject *
queue_qsize(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(pyc_ring_count(ring_of(self)));
}

/* A Queue that was closed before it was used says that it is empty, as the
 * standard one does. */
static PyObject *
queue_empty(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_queue *queue = as_queue(self);
    if (queue->is_closed &&
        (queue->is_used || pyc_queue_shared(queue)->simple)) {
        PyErr_SetString(PyExc_OSError, "handle is closed");
        return NULL;
    }
    return PyBool_FromLong(pyc_ring_count(ring_of(self)) == 0);
}

static PyObject *
queue_full(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_queue_memory *memory = pyc_queue_shared(as_queue(self));
    pyc_ring_cursor in;
    pyc_ring_load(&memory->ring.in, &in);
    return PyBool_FromLong(
        (memory->maxsize != 0 &&
         pyc_ring_count(&memory->ring) >= memory->maxsize) ||
        (memory->max_bytes != 0 &&
         pyc_ring_weight(&memory->ring, &in) >= memory->max_bytes));
}

static PyObject *
queue_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_store(as_queue(self)->is_closed, 1);
    Py_RETURN_NONE;
}

static PyObject *
queue_shutdown(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const pyc_signature signature = {"shutdown", {"immediate", NULL}, 0};
    PyObject *immediate = Py_False;
    if (pyc_arguments(&signature, args, nargs, kwnames, &immediate) < 0) {
        return NULL;
    }
    int at_once = PyObject_IsTrue(immediate);
    if (at_once < 0) {
        return NULL;
    }
    pyc_queue_shutdown(as_queue(self), at_once);
    Py_RETURN_NONE;
}

static PyObject *
queue_task_done(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (pyc_queue_task_done(as_queue(self)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* join(timeout=None), which tells whether all tasks are done. */
static PyObject *
queue_join(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t deadline;
    if (pyc_sleep_deadline(NULL, nargs > 0 ? args[0] : NULL, &deadline) < 0) {
        return NULL;
    }
    int rc = pyc_queue_join(as_queue(self), deadline);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
arm(PyObject *self, pyc_bells *bells)
{
    return PyLong_FromUnsignedLongLong(
        pyc_bells_arm(as_queue(self)->shared.block.arena, bells));
}

static PyObject *
queue_arm_get(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return arm(self, &pyc_queue_shared(as_queue(self))->item_bells);
}

static PyObject *
queue_arm_put(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return arm(self, &pyc_queue_shared(as_queue(self))->space_bells);
}

static PyObject *
queue_arm_join(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return arm(self, &pyc_queue_shared(as_queue(self))->finished_bells);
}

static PyObject *
get_is_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(pyc_load(as_queue(self)->is_closed));
}

static PyObject *
get_maxsize(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(
        pyc_queue_shared(as_queue(self))->maxsize);
}

static PyObject *
get_max_bytes(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(
        pyc_queue_shared(as_queue(self))->max_bytes);
}

static PyObject *
get_is_shutdown(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(
        atomic_load(&pyc_queue_shared(as_queue(self))->shut) != 0);
}

static PyObject *
get_memory_size(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(pyc_heap_size(&ring_of(self)->heap));
}

static PyGetSetDef members[] = {
    {"maxsize", get_maxsize, NULL, "The most items it holds; 0: any number."},
    {"max_bytes", get_max_bytes, NULL,
     "The most bytes its items may have; 0: any number."},
    {"is_shutdown", get_is_shutdown, NULL, "Whether shutdown() was called."},
    {"memory_size", get_memory_size, NULL,
     "How many bytes of shared memory the queue has mapped, in use or not."},
    {"_closed", get_is_closed, NULL, NULL},
    {NULL}};

#define FAST PYC_KEYWORDS
#define FAST_FLAGS METH_FASTCALL | METH_KEYWORDS

static PyMethodDef methods[] = {
    {"put", FAST(queue_put), FAST_FLAGS,
     "put($self, obj, block=True, timeout=None)\n--\n\n"
     "Put an item into the queue, which is pickled here and now."},
    {"put_nowait", FAST(queue_put_nowait), FAST_FLAGS,
     "put_nowait($self, obj)\n--\n\nput(obj, False)."},
    {"put_many", FAST(queue_put_many), FAST_FLAGS,
     "put_many($self, items, block=True, timeout=None)\n--\n\n"
     "Put all items into the queue, in their order. Full(n): only the first n "
     "had room in time."},
    {"get", FAST(queue_get), FAST_FLAGS,
     "get($self, block=True, timeout=None)\n--\n\nTake the oldest item."},
    {"get_nowait", queue_get_nowait, METH_NOARGS,
     "get_nowait($self, /)\n--\n\nget(False)."},
    {"get_many", FAST(queue_get_many), FAST_FLAGS,
     "get_many($self, n=None, block=True, timeout=None, "
     "max_messages_to_get=None)\n--\n\n"
     "Take all items there are, n at most, as a list; waits for the first "
     "one."},
    {"qsize", queue_qsize, METH_NOARGS,
     "qsize($self, /)\n--\n\nHow many items are in the queue."},
    {"empty", queue_empty, METH_NOARGS,
     "empty($self, /)\n--\n\nWhether no item is in the queue."},
    {"full", queue_full, METH_NOARGS,
     "full($self, /)\n--\n\nWhether the queue has as much as it may have."},
    {"close", queue_close, METH_NOARGS,
     "close($self, /)\n--\n\nThis process will use the queue no longer."},
    {"shutdown", FAST(queue_shutdown), FAST_FLAGS,
     "shutdown($self, immediate=False)\n--\n\n"
     "Nobody can put any longer, in any process, and get() raises ShutDown "
     "once the queue\nis empty; immediate empties it."},
    {"_task_done", queue_task_done, METH_NOARGS,
     "_task_done($self, /)\n--\n\nAn item that was taken has been worked on."},
    {"_join", FAST(queue_join), METH_FASTCALL, NULL},
    {"_arm_get", queue_arm_get, METH_NOARGS, NULL},
    {"_arm_put", queue_arm_put, METH_NOARGS, NULL},
    {"_arm_join", queue_arm_join, METH_NOARGS, NULL},
    {"send", queue_send, METH_NOARGS, "send($self, /)\n--\n\nFor receive()."},
    {"receive", FAST(queue_receive), METH_FASTCALL | METH_CLASS,
     "receive($type, sent, extra=None, /)\n--\n\n"
     "The queue that another process sent."},
    PYC_ARRIVED_METHOD,
    {"descriptors", queue_descriptors, METH_NOARGS,
     "descriptors($self, /)\n--\n\nOf the arena and of the memory."},
    {"__reduce__", pyc_shared_reduce, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL}};

PyDoc_STRVAR(queue_doc,
             "Queue(maxsize=0, *, max_bytes=None, simple=False)\n--\n\n"
             "A queue for processes, in shared memory that grows with it.");

static PyType_Slot slots[] = {
    {Py_tp_new, queue_new},         {Py_tp_init, queue_init},
    {Py_tp_doc, (void *)queue_doc}, {Py_tp_methods, methods},
    {Py_tp_getset, members},        {Py_tp_traverse, queue_traverse},
    {Py_tp_clear, queue_clear},     {Py_tp_members, pyc_shared_members},
    {Py_tp_dealloc, queue_dealloc}, {0, NULL}};

PyType_Spec pyc_queue_spec = {
    .name = "pyconc._ipc.Queue",
    .basicsize = sizeof(pyc_queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};
