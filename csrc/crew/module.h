/* SPDX-License-Identifier: MIT */
/* A module that has a crew: its state is a pyc_crew_state. */
#ifndef PYC_CREW_MODULE_H
#define PYC_CREW_MODULE_H

#include "py/crew.h"

/* Adds the type of the jobs and the type Bell, whose full name is `bell`, a
 * constant. 0 or -1. */
int pyc_crew_module_fill(PyObject *module, PyType_Spec *job, const char *bell);

/* Its function stop(). */
PyObject *pyc_crew_module_stop(PyObject *module, PyObject *ignored);

#define PYC_CREW_MODULE_STOP                                                   \
    {"stop", pyc_crew_module_stop, METH_NOARGS,                                \
     "stop($module, /)\n--\n\n"                                                \
     "Cancel all work and end the threads, for good: for the interpreter's "   \
     "exit."}

int pyc_crew_module_traverse(PyObject *module, visitproc visit, void *arg);
int pyc_crew_module_clear(PyObject *module);
void pyc_crew_module_free(void *module);

#endif
