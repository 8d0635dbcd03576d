/* SPDX-License-Identifier: MIT */
/* Memory for what is too small to have a Segment: a number, a structure. */
#include "ipc/segment.h"
#include "ipc/value.h"

#include "py/arguments.h"

typedef struct {
    _Atomic uint32_t size;
    char unused[12]; /* for alignment */
    char data[];
} cell;

#define MOST ((Py_ssize_t)(PYC_BLOCK_MOST - sizeof(cell)))

/* As this process knows it: what is in shared memory may change. */
typedef struct {
    pyc_shared shared;
    Py_ssize_t size;
} cell_object;

#define SELF ((cell_object *)self)

static PyObject *
cell_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", NULL};
    Py_ssize_t size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n:Cell", names, &size)) {
        return NULL;
    }
    if (size < 0 || size > MOST) {
        PyErr_Format(PyExc_ValueError, "a Cell has 0 to %zd bytes, not %zd",
                     MOST, size);
        return NULL;
    }
    PyObject *self =
        pyc_shared_new(type, sizeof(cell) + (size_t)size, PYC_KIND_VALUE);
    if (self != NULL) {
        SELF->size = size;
        atomic_store(&PYC_MEMORY(self, cell)->size, (uint32_t)size);
    }
    return self;
}

static PyObject *
cell_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *self =
        pyc_shared_receive((PyTypeObject *)type, args, nargs, PYC_KIND_VALUE);
    if (self != NULL) {
        uint32_t size = atomic_load(&PYC_MEMORY(self, cell)->size);
        if (size > MOST) {
            PyErr_SetString(PyExc_ValueError, "there is no Cell");
            Py_CLEAR(self);
            return NULL;
        }
        SELF->size = size;
    }
    return self;
}

static int
cell_buffer(PyObject *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, self, PYC_MEMORY(self, cell)->data,
                             SELF->size, 0, flags);
}

static Py_ssize_t
cell_length(PyObject *self)
{
    return SELF->size;
}

char *
pyc_memory_of(pyc_ipc *state, PyObject *memory, size_t *size)
{
    if (Py_IS_TYPE(memory, state->cell_type)) {
        *size = (size_t)((cell_object *)memory)->size;
        return PYC_MEMORY(memory, cell)->data;
    }
    if (Py_IS_TYPE(memory, state->segment_type)) {
        return pyc_segment_memory(memory, size);
    }
    PyErr_Format(PyExc_TypeError, "%R is no memory of pyconc's", memory);
    return NULL;
}

static PyMethodDef methods[] = {
    {"receive", PYC_KEYWORDS(cell_receive), METH_FASTCALL | METH_CLASS,
     "receive($type, sent, extra=None, /)\n--\n\n"
     "The cell that another process sent."},
    PYC_SHARED_METHODS,
    {NULL},
};

PyDoc_STRVAR(doc, "Cell(size)\n--\n\n"
                  "A few bytes for several processes, all zero, as a writable "
                  "buffer.");

static PyType_Slot slots[] = {
    {Py_tp_new, cell_new},
    {Py_tp_doc, (void *)doc},
    {Py_tp_methods, methods},
    PYC_SHARED_SLOTS,
    {Py_bf_getbuffer, cell_buffer},
    {Py_sq_length, cell_length},
    {0, NULL},
};

PyType_Spec pyc_cell_spec = {
    .name = "pyconc._ipc.Cell",
    .basicsize = sizeof(cell_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
