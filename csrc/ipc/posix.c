/* SPDX-License-Identifier: MIT */
#include "ipc/posix.h"
#include "ipc/memory.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int
mapping_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    pyc_mapping *mapping = (pyc_mapping *)self;
    if (PyBuffer_FillInfo(view, self, mapping->memory, mapping->size, 0,
                          flags) < 0) {
        return -1;
    }
    __atomic_add_fetch(&mapping->exports, 1, __ATOMIC_RELAXED);
    return 0;
}

static void
mapping_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
    __atomic_sub_fetch(&((pyc_mapping *)self)->exports, 1, __ATOMIC_RELAXED);
}

static PyObject *
mapping_exports(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(pyc_load(((pyc_mapping *)self)->exports));
}

static void
mapping_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    pyc_mapping *mapping = (pyc_mapping *)self;
    if (mapping->memory != NULL) {
        munmap(mapping->memory, (size_t)mapping->size);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* 0, or -1 with an exception set. */
static int
fill(int fd, Py_ssize_t size)
{
    if (pyc_memory_ask((size_t)size) < 0) {
        return -1;
    }
    int err = pyc_memory_fill(fd, (size_t)size);
    if (err > 0) {
        errno = err;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return err == 0 ? 0 : -1;
}

static Py_ssize_t
size_of_file(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (status.st_size == 0) {
        PyErr_SetString(PyExc_ValueError, "shared memory is empty: whoever "
                                          "creates it has not given it a size");
        return -1;
    }
    return status.st_size;
}

static PyObject *
map_file(PyTypeObject *type, int fd, Py_ssize_t size)
{
    pyc_mapping *mapping = (pyc_mapping *)type->tp_alloc(type, 0);
    if (mapping == NULL) {
        return NULL;
    }
    void *memory =
        mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(mapping);
        return NULL;
    }
    mapping->memory = memory;
    mapping->size = size;
    return (PyObject *)mapping;
}

/* _map(fd, size): maps the file, after making it as large when size > 0; the
 * mapping. The descriptor remains the caller's. */
static PyObject *
named_map(PyObject *self, PyObject *args)
{
    int fd;
    Py_ssize_t size;
    pyc_ipc *state = pyc_posix_state(self);
    if (state == NULL || !PyArg_ParseTuple(args, "in:_map", &fd, &size)) {
        return NULL;
    }
    if (size > 0 ? fill(fd, size) < 0 : (size = size_of_file(fd)) < 0) {
        return NULL;
    }
    PyObject *mapping = map_file(state->mapping_type, fd, size);
    if (mapping != NULL) {
        PyObject *old;
        PYC_BEGIN_CRITICAL_SECTION(self);
        old = ((pyc_named *)self)->mapping;
        ((pyc_named *)self)->mapping = Py_NewRef(mapping);
        PYC_END_CRITICAL_SECTION();
        Py_XDECREF(old);
    }
    return mapping;
}

pyc_mapping *
pyc_named_mapping(PyObject *self)
{
    PyObject *mapping;
    PYC_BEGIN_CRITICAL_SECTION(self);
    mapping = Py_XNewRef(((pyc_named *)self)->mapping);
    PYC_END_CRITICAL_SECTION();
    if (mapping == NULL) {
        PyErr_SetString(PyExc_ValueError, "shared memory is closed");
    }
    return (pyc_mapping *)mapping;
}

static PyObject *
named_get_mapping(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *mapping = (PyObject *)pyc_named_mapping(self);
    if (mapping == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return mapping;
}

static PyObject *
named_unmap(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *mapping;
    PYC_BEGIN_CRITICAL_SECTION(self);
    mapping = ((pyc_named *)self)->mapping;
    ((pyc_named *)self)->mapping = NULL;
    PYC_END_CRITICAL_SECTION();
    Py_XDECREF(mapping);
    Py_RETURN_NONE;
}

static void
named_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((pyc_named *)self)->mapping);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyGetSetDef mapping_getset[] = {
    {"exports", mapping_exports, NULL, "Buffers that are in use.", NULL},
    {NULL},
};

static PyType_Slot mapping_slots[] = {
    {Py_tp_dealloc, mapping_dealloc},
    {Py_tp_getset, mapping_getset},
    {Py_bf_getbuffer, mapping_getbuffer},
    {Py_bf_releasebuffer, mapping_releasebuffer},
    {0, NULL},
};

PyType_Spec pyc_mapping_spec = {
    .name = "pyconc._ipc.Mapping",
    .basicsize = sizeof(pyc_mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = mapping_slots,
};

static PyMethodDef named_methods[] = {
    {"_map", named_map, METH_VARARGS, NULL},
    {"_unmap", named_unmap, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef named_getset[] = {
    {"_mmap", named_get_mapping, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot named_slots[] = {
    {Py_tp_dealloc, named_dealloc},
    {Py_tp_methods, named_methods},
    {Py_tp_getset, named_getset},
    {0, NULL},
};

PyType_Spec pyc_named_spec = {
    .name = "pyconc._ipc.SharedMemory",
    .basicsize = sizeof(pyc_named),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = named_slots,
};
