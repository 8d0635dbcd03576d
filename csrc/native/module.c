/* SPDX-License-Identifier: MIT */
#include "native/module.h"
#include "crew/module.h"
#include "native/work.h"

PyDoc_STRVAR(once_doc,
             "once($module, signature, address, owner, data, input, output, "
             "/)\n--\n\n"
             "Work of one call, with the whole of the two buffers.");
PyDoc_STRVAR(ranges_doc,
             "ranges($module, signature, address, owner, data, total, chunk, "
             "/)\n--\n\n"
             "Work of calls with ranges of numbers below total.");
PyDoc_STRVAR(arrays_doc,
             "arrays($module, signature, address, owner, data, input, output, "
             "/)\n--\n\n"
             "Work of calls with rows of two arrays, or with their doubles.");
PyDoc_STRVAR(unpack_doc, "unpack($module, capsule, /)\n--\n\n"
                         "A capsule's pointer, name (None if it has none) and "
                         "context, or None if the\nobject is no capsule.");

static PyObject *
unpack(PyObject *Py_UNUSED(module), PyObject *capsule)
{
    if (!PyCapsule_CheckExact(capsule)) {
        Py_RETURN_NONE;
    }
    const char *name = PyCapsule_GetName(capsule);
    void *pointer = PyCapsule_GetPointer(capsule, name);
    void *context = PyCapsule_GetContext(capsule);
    if (PyErr_Occurred()) {
        return NULL;
    }
    return Py_BuildValue("NzN", PyLong_FromVoidPtr(pointer), name,
                         PyLong_FromVoidPtr(context));
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function)), METH_FASTCALL

static PyMethodDef methods[] = {{"once", FAST(pyc_work_once), once_doc},
                                {"ranges", FAST(pyc_work_ranges), ranges_doc},
                                {"arrays", FAST(pyc_work_arrays), arrays_doc},
                                {"unpack", unpack, METH_O, unpack_doc},
                                PYC_CREW_MODULE_STOP,
                                {NULL}};

static int
exec(PyObject *module)
{
    return pyc_crew_module_fill(module, &pyc_work_spec, "pyconc._native.Bell");
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec}, PYC_MOD_INTERPRETERS_SLOT PYC_MOD_GIL_SLOT{0, NULL}};

PyModuleDef pyc_native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyconc._native",
    .m_doc = "Calls of C functions in threads without the GIL.",
    .m_size = sizeof(pyc_crew_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = pyc_crew_module_traverse,
    .m_clear = pyc_crew_module_clear,
    .m_free = pyc_crew_module_free,
};
