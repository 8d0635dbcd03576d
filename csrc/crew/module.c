/* SPDX-License-Identifier: MIT */
#include "crew/module.h"
#include "crew/bell.h"

int
pyc_crew_module_fill(PyObject *module, PyType_Spec *job, const char *bell)
{
    pyc_crew_state *state = PyModule_GetState(module);
    state->job_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, job, NULL);
    if (state->job_type == NULL ||
        PyModule_AddType(module, state->job_type) < 0) {
        return -1;
    }
    return pyc_bell_add(module, bell);
}

PyObject *
pyc_crew_module_stop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    pyc_crew_state *state = PyModule_GetState(module);
    pyc_crew *crew = atomic_load(&state->crew);
    if (crew != NULL && !pyc_crew_is_orphan(crew)) {
        Py_BEGIN_ALLOW_THREADS
        pyc_crew_stop(crew);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

int
pyc_crew_module_traverse(PyObject *module, visitproc visit, void *arg)
{
    pyc_crew_state *state = PyModule_GetState(module);
    Py_VISIT(state->job_type);
    return 0;
}

int
pyc_crew_module_clear(PyObject *module)
{
    pyc_crew_state *state = PyModule_GetState(module);
    Py_CLEAR(state->job_type);
    return 0;
}

void
pyc_crew_module_free(void *module)
{
    pyc_crew_module_clear(module);
    pyc_crew_state *state = PyModule_GetState(module);
    pyc_crew *crew = atomic_load(&state->crew);
    if (crew != NULL && !pyc_crew_is_orphan(crew)) {
        pyc_crew_free(crew);
    }
}
