/* SPDX-License-Identifier: MIT */
#include "py/state.h"

pyc_state *
pyc_state_of_module(PyObject *module)
{
    return (pyc_state *)PyModule_GetState(module);
}

pyc_state *
pyc_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &pyc_core_module);
    return module == NULL ? NULL : pyc_state_of_module(module);
}

int
pyc_add_type(PyObject *module, PyType_Spec *spec, PyObject *bases,
             PyTypeObject **slot)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, bases);
    if (type == NULL) {
        return -1;
    }
    Py_XSETREF(*slot, (PyTypeObject *)type);
    return PyModule_AddType(module, *slot);
}

void
pyc_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    type->tp_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}
