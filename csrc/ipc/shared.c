/* SPDX-License-Identifier: MIT */
#include "ipc/shared.h"

PyMemberDef pyc_shared_members[] = {{"__weaklistoffset__", T_PYSSIZET,
                                     offsetof(pyc_shared, weakrefs), READONLY},
                                    {NULL}};

static PyObject *
empty(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &pyc_ipc_module);
    PyObject *self = module == NULL ? NULL : type->tp_alloc(type, 0);
    if (self != NULL) {
        ((pyc_shared *)self)->module = Py_NewRef(module);
        ((pyc_shared *)self)->state = pyc_ipc_of_module(module);
    }
    return self;
}

PyObject *
pyc_shared_new(PyTypeObject *type, size_t size, uint32_t kind)
{
    PyObject *self = empty(type);
    if (self == NULL) {
        return NULL;
    }
    pyc_shared *shared = (pyc_shared *)self;
    if (pyc_block_new(shared->state, size, kind, &shared->block) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

PyObject *
pyc_shared_receive(PyTypeObject *type, PyObject *const *args, Py_ssize_t nargs,
                   uint32_t kind)
{
    if (nargs < 1 || nargs > 2) {
        PyErr_Format(PyExc_TypeError,
                     "receive() takes 1 or 2 arguments (%zd given)", nargs);
        return NULL;
    }
    PyObject *self = empty(type);
    if (self == NULL) {
        return NULL;
    }
    pyc_shared *shared = (pyc_shared *)self;
    if (pyc_block_receive(shared->state, args[0], kind, &shared->block) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    if (nargs == 2 && args[1] != Py_None) {
        shared->extra = Py_NewRef(args[1]);
    }
    return self;
}

PyObject *
pyc_shared_send(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return pyc_block_send(&((pyc_shared *)self)->block);
}

PyObject *
pyc_shared_descriptor(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(pyc_block_fd(&((pyc_shared *)self)->block));
}

/* Borrowed. Of threads that import it at once, the first one's stays. */
static PyObject *
reduce_of(pyc_ipc *state)
{
    PyObject *reduce = __atomic_load_n(&state->reduce, __ATOMIC_ACQUIRE);
    if (reduce != NULL) {
        return reduce;
    }
    PyObject *module = PyImport_ImportModule("pyconc.multiprocessing.handover");
    if (module == NULL) {
        return NULL;
    }
    PyObject *found = PyObject_GetAttrString(module, "reduce");
    Py_DECREF(module);
    if (found == NULL ||
        __atomic_compare_exchange_n(&state->reduce, &reduce, found, false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        return found;
    }
    Py_DECREF(found);
    return reduce;
}

PyObject *
pyc_shared_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *extra = ((pyc_shared *)self)->extra;
    PyObject *reduce = reduce_of(pyc_ipc_of(self));
    return reduce == NULL
               ? NULL
               : PyObject_CallFunctionObjArgs(
                     reduce, self, extra == NULL ? Py_None : extra, NULL);
}

int
pyc_shared_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((pyc_shared *)self)->module);
    Py_VISIT(((pyc_shared *)self)->extra);
    return 0;
}

int
pyc_shared_clear(PyObject *self)
{
    Py_CLEAR(((pyc_shared *)self)->extra);
    return 0;
}

void
pyc_shared_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    pyc_shared *shared = (pyc_shared *)self;
    PyObject_GC_UnTrack(self);
    if (shared->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    Py_CLEAR(shared->extra);
    pyc_block_drop(&shared->block);
    PyObject *module = shared->module;
    type->tp_free(self);
    Py_XDECREF(module);
    Py_DECREF(type);
}
