/* SPDX-License-Identifier: MIT */
/* The latest of what one process writes, for many to read: a seqlock with two
 * copies. A write goes into the copy that is not the latest, and one store at
 * its end makes it that. So a reader waits for no write under way, and a writer
 * who is killed leaves what was written before. */
#include "ipc/mutex.h"
#include "ipc/value.h"
#include "ipc/values.h"

#include <string.h>

typedef struct {
    _Atomic uint64_t version; /* of what is, or is being, written here */
    _Atomic uint64_t size;
} copy_head;

typedef struct {
    pyc_mutex writer;
    _Atomic uint64_t version; /* the latest; 0: nothing was written yet */
    copy_head copies[2];
    _Atomic uint64_t data[];
} snapshot_memory;

typedef struct {
    PyObject_HEAD
    PyObject *memory; /* a Cell or a Segment */
    pyc_arena *arena;
    snapshot_memory *at;
    size_t capacity;
} snapshot;

#define SELF ((snapshot *)self)
#define TRIES 50 /* to read, without the writers' lock */

static size_t
words(size_t size)
{
    return (size + 7) / 8;
}

static PyObject *
bytes_for(PyObject *Py_UNUSED(type), PyObject *capacity)
{
    Py_ssize_t size = PyNumber_AsSsize_t(capacity, PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (size <= 0 || size > PY_SSIZE_T_MAX / 4) {
        PyErr_Format(PyExc_ValueError, "capacity must be positive, not %R",
                     capacity);
        return NULL;
    }
    return PyLong_FromSize_t(sizeof(snapshot_memory) +
                             16 * words((size_t)size));
}

static PyObject *
snapshot_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *memory;
    Py_ssize_t capacity;
    size_t size;
    PyObject *module = PyType_GetModuleByDef(type, &pyc_ipc_module);
    if (module == NULL ||
        !PyArg_ParseTuple(args, "On:Snapshot", &memory, &capacity)) {
        return NULL;
    }
    char *at = pyc_memory_of(pyc_ipc_of_module(module), memory, &size);
    if (at == NULL) {
        return NULL;
    }
    if (capacity <= 0 || size < sizeof(snapshot_memory) ||
        words((size_t)capacity) > (size - sizeof(snapshot_memory)) / 16) {
        PyErr_Format(PyExc_ValueError, "%R is too small", memory);
        return NULL;
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        SELF->memory = Py_NewRef(memory);
        SELF->arena = PYC_ARENA(memory);
        SELF->at = (snapshot_memory *)at;
        SELF->capacity = (size_t)capacity;
    }
    return self;
}

static _Atomic uint64_t *
data_of(snapshot *self, uint64_t version)
{
    return self->at->data + (version & 1) * words(self->capacity);
}

static void
put(_Atomic uint64_t *to, const char *from, size_t size)
{
    for (; size > 0; to++) {
        uint64_t word = 0;
        size_t part = size < 8 ? size : 8;
        memcpy(&word, from, part);
        atomic_store_explicit(to, word, memory_order_relaxed);
        from += part;
        size -= part;
    }
}

static void
fetch(char *to, _Atomic uint64_t *from, size_t size)
{
    for (; size > 0; from++) {
        uint64_t word = atomic_load_explicit(from, memory_order_relaxed);
        size_t part = size < 8 ? size : 8;
        memcpy(to, &word, part);
        to += part;
        size -= part;
    }
}

static void
write_locked(snapshot *self, const char *from, size_t size)
{
    snapshot_memory *at = self->at;
    uint64_t next =
        atomic_load_explicit(&at->version, memory_order_relaxed) + 1;
    copy_head *copy = &at->copies[next & 1];
    atomic_store_explicit(&copy->version, next, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* before the data */
    atomic_store_explicit(&copy->size, size, memory_order_relaxed);
    size_t half = size / 16;
    put(data_of(self, next), from, 8 * half);
    PYC_KILL_POINT("snapshot.write");
    put(data_of(self, next) + half, from + 8 * half, size - 8 * half);
    atomic_store_explicit(&at->version, next, memory_order_release);
}

/* Writers come one after the other; one that was killed has left nothing to be
 * undone. */
static PyObject *
snapshot_write(PyObject *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    size_t size = (size_t)view.len;
    if (size > SELF->capacity) {
        PyErr_Format(PyExc_ValueError,
                     "%zu bytes are more than the %zu there "
                     "is room for",
                     size, SELF->capacity);
    }
    else {
        pyc_mutex_lock(SELF->arena, &SELF->at->writer);
        write_locked(SELF, view.buf, size);
        pyc_mutex_unlock(&SELF->at->writer);
    }
    PyBuffer_Release(&view);
    if (size > SELF->capacity) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Makes *bytes of `size` bytes, unless it is: what a try has paged in, the next
 * one finds. 0, or -1 with an exception set. */
static int
make_room(PyObject **bytes, size_t size)
{
    if (*bytes == NULL || (size_t)PyBytes_GET_SIZE(*bytes) != size) {
        Py_XSETREF(*bytes, PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size));
    }
    return *bytes == NULL ? -1 : 0;
}

/* 1: the latest version is in *bytes; 0: it was overwritten meanwhile; -1: an
 * exception. */
static int
try_to_read(snapshot *self, PyObject **bytes)
{
    snapshot_memory *at = self->at;
    uint64_t version = atomic_load_explicit(&at->version, memory_order_acquire);
    copy_head *copy = &at->copies[version & 1];
    size_t size = version == 0 ? 0 : atomic_load(&copy->size);
    if (size > self->capacity) {
        PyErr_Format(PyExc_ValueError, "%R does not hold a Snapshot",
                     self->memory);
        return -1;
    }
    if (make_room(bytes, size) < 0) {
        return -1;
    }
    fetch(PyBytes_AS_STRING(*bytes), data_of(self, version), size);
    atomic_thread_fence(memory_order_acquire); /* after the data */
    return atomic_load_explicit(&copy->version, memory_order_relaxed) ==
               version ||
           version == 0;
}

/* Who always comes too late has the writers wait for a moment. */
static PyObject *
snapshot_read(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *bytes = NULL;
    int done = 0;
    for (int i = 0; i < TRIES && done == 0; i++) {
        done = try_to_read(SELF, &bytes);
    }
    if (done == 0) {
        pyc_mutex_lock(SELF->arena, &SELF->at->writer);
        done = try_to_read(SELF, &bytes);
        pyc_mutex_unlock(&SELF->at->writer);
    }
    if (done < 0) {
        Py_CLEAR(bytes);
    }
    return bytes;
}

static PyObject *
snapshot_version(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(
        atomic_load_explicit(&SELF->at->version, memory_order_acquire));
}

static int
snapshot_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(SELF->memory);
    return 0;
}

/* No tp_clear: a Snapshot without its memory would be of no use, and memory
 * holds nothing that leads back to it. */
static void
snapshot_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(SELF->memory);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"bytes_for", bytes_for, METH_O | METH_CLASS,
     "bytes_for($type, capacity, /)\n--\n\n"
     "The bytes of memory that `capacity` bytes need."},
    {"_write", snapshot_write, METH_O, NULL},
    {"_read", snapshot_read, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef getset[] = {
    {"version", snapshot_version, NULL, "How often it was written.", NULL},
    {NULL},
};

static PyMemberDef members[] = {
    {"_memory", T_OBJECT_EX, offsetof(snapshot, memory), READONLY, NULL},
    {"capacity", T_PYSSIZET, offsetof(snapshot, capacity), READONLY,
     "The most bytes it holds."},
    {NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, snapshot_new},
    {Py_tp_traverse, snapshot_traverse},
    {Py_tp_dealloc, snapshot_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec pyc_snapshot_spec = {
    .name = "pyconc._ipc.Snapshot",
    .basicsize = sizeof(snapshot),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
