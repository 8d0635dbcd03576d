/* SPDX-License-Identifier: MIT */
#include "ipc/segment.h"

#include "ipc/memory.h"
#include "ipc/guard.h"
#include "py/arguments.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    pyc_shared shared;
    void *memory;
    size_t size;
    int fd;
    bool is_open; /* there is an fd to be closed */
} segment;

/* In the block. */
typedef struct {
    _Atomic uint64_t size;
} record;

/* What keeps a segment's memory there after its object, until the pickle that
 * is on its way has arrived. */
typedef struct {
    pyc_link link;
    pyc_block block;
    int fd;
} kept;

static segment *
as_segment(PyObject *self)
{
    return (segment *)self;
}

void *
pyc_segment_memory(PyObject *self, size_t *size)
{
    *size = as_segment(self)->size;
    return as_segment(self)->memory;
}

/* Takes the descriptor over. 0, or -1 with an exception set. */
static int
map(segment *self, int fd, size_t size)
{
    self->fd = fd;
    self->is_open = true;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->memory = memory;
    self->size = size;
    return 0;
}

static PyObject *
segment_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", "huge", NULL};
    Py_ssize_t size;
    int huge = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|$p", names, &size,
                                     &huge)) {
        return NULL;
    }
    if (size <= 0) {
        PyErr_Format(PyExc_ValueError, "size must be positive, not %zd", size);
        return NULL;
    }
    if (huge) {
        size_t page = 2 << 20;
        size = (Py_ssize_t)(((size_t)size + page - 1) / page * page);
    }
    PyObject *self = pyc_shared_new(type, sizeof(record), PYC_KIND_SEGMENT);
    if (self == NULL) {
        return NULL;
    }
    pyc_segments_forget(pyc_ipc_of(self), false);
    int fd = pyc_memory_open("pyconc", (size_t)size, huge ? MFD_HUGETLB : 0);
    if (fd < 0 || map(as_segment(self), fd, (size_t)size) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    atomic_store(&PYC_MEMORY(self, record)->size, (uint64_t)size);
    return self;
}

void
pyc_memory_keep(pyc_ipc *state, pyc_block *block, int *fd)
{
    kept *memory = PyMem_RawMalloc(sizeof(*memory));
    if (memory == NULL) {
        return;
    }
    memory->block = *block;
    memory->fd = *fd;
    block->arena = NULL;
    *fd = -1;
    pyc_guard_take(state);
    pyc_link_insert(&state->kept, &memory->link);
    pyc_guard_give(state);
}

static kept *
take_kept(pyc_ipc *state, bool all)
{
    kept *found = NULL;
    pyc_guard_take(state);
    for (pyc_link *at = state->kept.next; at != &state->kept && found == NULL;
         at = at->next) {
        kept *memory = pyc_container(at, kept, link);
        if (all || !pyc_block_is_sent(&memory->block)) {
            found = memory;
        }
    }
    if (found != NULL) {
        pyc_link_remove(&found->link);
    }
    pyc_guard_give(state);
    return found;
}

void
pyc_segments_forget(pyc_ipc *state, bool all)
{
    kept *memory;
    while ((memory = take_kept(state, all)) != NULL) {
        close(memory->fd);
        pyc_block_drop(&memory->block);
        PyMem_RawFree(memory);
    }
}

static void
segment_dealloc(PyObject *object)
{
    segment *self = as_segment(object);
    pyc_ipc *state = pyc_ipc_of(object);
    PyObject_GC_UnTrack(object);
    if (self->memory != NULL) {
        munmap(self->memory, self->size);
        pyc_segments_forget(state, false);
        if (pyc_block_is_sent(&self->shared.block)) {
            pyc_memory_keep(state, &self->shared.block, &self->fd);
        }
    }
    if (self->is_open && self->fd >= 0) {
        close(self->fd);
    }
    pyc_shared_dealloc(object);
}

static PyObject *
segment_send(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *block = pyc_block_send(&((pyc_shared *)self)->block);
    return block == NULL ? NULL
                         : Py_BuildValue("(Nii)", block, (int)getpid(),
                                         as_segment(self)->fd);
}

/* The memory is opened first: once the block has arrived, a sender that has let
 * go of it closes its descriptor. */
PyObject *
pyc_memory_receive(PyTypeObject *type, PyObject *const *args, Py_ssize_t nargs,
                   uint32_t kind, int *fd)
{
    PyObject *block;
    int pid;
    if (nargs < 1 || !PyTuple_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "receive() takes a tuple of send()");
        return NULL;
    }
    if (!PyArg_ParseTuple(args[0], "O!ii;receive() takes a tuple of send()",
                          &PyTuple_Type, &block, &pid, fd)) {
        return NULL;
    }
    if (pid != 0 && (*fd = pyc_memory_open_of(pid, *fd)) < 0) {
        return NULL;
    }
    PyObject *self = NULL;
    if (pyc_memory_check(*fd, 1) == 0) {
        PyObject *arguments[] = {block, nargs > 1 ? args[1] : Py_None};
        self = pyc_shared_receive(type, arguments, 2, kind);
    }
    if (self == NULL && *fd >= 0) {
        close(*fd);
    }
    return self;
}

PyObject *
pyc_memory_arrived(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_block_arrived(&((pyc_shared *)self)->block);
    Py_RETURN_NONE;
}

static PyObject *
segment_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    PyObject *self = pyc_memory_receive((PyTypeObject *)type, args, nargs,
                                        PYC_KIND_SEGMENT, &fd);
    if (self == NULL) {
        return NULL;
    }
    uint64_t size = atomic_load(&PYC_MEMORY(self, record)->size);
    if (pyc_memory_check(fd, size) < 0) {
        close(fd);
        Py_DECREF(self);
        return NULL;
    }
    if (map(as_segment(self), fd, size) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static PyObject *
segment_descriptors(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(ii)", pyc_block_fd(&((pyc_shared *)self)->block),
                         as_segment(self)->fd);
}

static int
segment_buffer(PyObject *self, Py_buffer *view, int flags)
{
    segment *memory = as_segment(self);
    return PyBuffer_FillInfo(view, self, memory->memory,
                             (Py_ssize_t)memory->size, 0, flags);
}

static Py_ssize_t
segment_length(PyObject *self)
{
    return (Py_ssize_t)as_segment(self)->size;
}

static PyMethodDef methods[] = {
    {"send", segment_send, METH_NOARGS, "send($self, /)\n--\n\nFor receive()."},
    {"receive", PYC_KEYWORDS(segment_receive), METH_FASTCALL | METH_CLASS,
     "receive($type, sent, extra=None, /)\n--\n\n"
     "The segment that another process sent."},
    PYC_ARRIVED_METHOD,
    {"descriptors", segment_descriptors, METH_NOARGS,
     "descriptors($self, /)\n--\n\nOf the arena and of the memory."},
    {"__reduce__", pyc_shared_reduce, METH_NOARGS, NULL},
    {NULL}};

PyDoc_STRVAR(segment_doc,
             "Segment(size, *, huge=False)\n--\n\n"
             "Memory of `size` bytes for several processes, all zero, as a "
             "writable buffer.\n\n"
             "It has no name; it can be sent to any process of the same user, "
             "as an argument of a\nProcess or an item of a queue, and is gone "
             "with the last object of it, however its\nprocesses end. With "
             "huge=True of huge pages (the size is rounded up to them). Raises"
             "\nOSError where there is not so much memory.");

static PyType_Slot slots[] = {
    {Py_tp_new, segment_new},         {Py_tp_doc, (void *)segment_doc},
    {Py_tp_methods, methods},         {Py_tp_traverse, pyc_shared_traverse},
    {Py_tp_clear, pyc_shared_clear},  {Py_tp_members, pyc_shared_members},
    {Py_tp_dealloc, segment_dealloc}, {Py_bf_getbuffer, segment_buffer},
    {Py_sq_length, segment_length},   {0, NULL}};

PyType_Spec pyc_segment_spec = {
    .name = "pyconc._ipc.Segment",
    .basicsize = sizeof(segment),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
