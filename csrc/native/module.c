/* SPDX-License-Identifier: MIT */
#include "native/module.h"
#include "crew/bell.h"
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
PyDoc_STRVAR(stop_doc, "stop($module, /)\n--\n\n"
                       "Cancel all work and end the threads, for good: for the "
                       "interpreter's exit.");

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

static PyObject *
stop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    pyc_crew_state *state = PyModule_GetState(module);
    pyc_job_stop_all(&state->crew);
    Py_RETURN_NONE;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function)), METH_FASTCALL

static PyMethodDef methods[] = {{"once", FAST(pyc_work_once), once_doc},
                                {"ranges", FAST(pyc_work_ranges), ranges_doc},
                                {"arrays", FAST(pyc_work_arrays), arrays_doc},
                                {"unpack", unpack, METH_O, unpack_doc},
                                {"stop", stop, METH_NOARGS, stop_doc},
                                {NULL}};

static int
exec(PyObject *module)
{
    pyc_crew_state *state = PyModule_GetState(module);
    state->job_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &pyc_work_spec, NULL);
    if (state->job_type == NULL ||
        PyModule_AddType(module, state->job_type) < 0) {
        return -1;
    }
    return pyc_bell_add(module, "pyconc._native.Bell");
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    pyc_crew_state *state = PyModule_GetState(module);
    Py_VISIT(state->job_type);
    return 0;
}

static int
clear(PyObject *module)
{
    pyc_crew_state *state = PyModule_GetState(module);
    Py_CLEAR(state->job_type);
    return 0;
}

static void
free_module(void *module)
{
    clear(module);
    pyc_crew_state *state = PyModule_GetState(module);
    pyc_crew *crew = atomic_load(&state->crew);
    if (crew != NULL && !pyc_crew_is_orphan(crew)) {
        pyc_crew_free(crew);
    }
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
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = free_module,
};
