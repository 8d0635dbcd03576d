/* SPDX-License-Identifier: MIT */
#ifndef PYC_CREW_BELL_H
#define PYC_CREW_BELL_H

#include "py/crew.h"

/* Adds the type Bell, for objects of the module's job_type. `name` is its full
 * name, a constant. 0 or -1. */
int pyc_bell_add(PyObject *module, const char *name);

#endif
