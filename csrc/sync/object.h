/* SPDX-License-Identifier: MIT */
/* What the objects of this folder have in common. */
#ifndef PYC_SYNC_OBJECT_H
#define PYC_SYNC_OBJECT_H

#include "py/compat.h"
#include "py/state.h"

#define PYC_SYNC_HEAD                                                          \
    PyObject_HEAD                                                              \
    PyObject *weakrefs;                                                        \
    pyc_state *module;

typedef struct {
    PYC_SYNC_HEAD
} pyc_sync_object;

#define PYC_SYNC_WEAKREFS                                                      \
    {"__weaklistoffset__", T_PYSSIZET, offsetof(pyc_sync_object, weakrefs),    \
     READONLY, NULL}

/* An object of `type` with its module, else zero; NULL with an exception. */
static inline PyObject *
pyc_sync_new(PyTypeObject *type)
{
    pyc_state *module = pyc_state_of_type(type);
    PyObject *self = module == NULL ? NULL : type->tp_alloc(type, 0);
    if (self != NULL) {
        ((pyc_sync_object *)self)->module = module;
    }
    return self;
}

/* The end of a dealloc; `clear` may be NULL. */
static inline void
pyc_sync_free(PyObject *self, inquiry clear)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyType_IS_GC(type)) {
        PyObject_GC_UnTrack(self);
    }
    if (((pyc_sync_object *)self)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    if (clear != NULL) {
        clear(self);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* Makes the type of `spec` and adds it to the module as `name`: the short name
 * of the type is that of others, too. Stores a reference in *slot, unless it is
 * NULL. 0, or -1 with an exception set. */
static inline int
pyc_sync_add_type(PyObject *module, PyType_Spec *spec, const char *name,
                  PyTypeObject **slot)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int rc = type == NULL ? -1 : PyModule_AddObjectRef(module, name, type);
    if (slot != NULL) {
        *slot = (PyTypeObject *)Py_XNewRef(type);
    }
    Py_XDECREF(type);
    return rc;
}

#endif
