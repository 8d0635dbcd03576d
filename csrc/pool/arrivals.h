/* SPDX-License-Identifier: MIT */
#ifndef PYC_POOL_ARRIVALS_H
#define PYC_POOL_ARRIVALS_H

#include "py/state.h"

/* Calls those of a list of callbacks that are put() of some Arrivals, and takes
 * them out of it: they call no code of the program. */
void pyc_arrivals_tell(PyObject *callbacks, PyObject *future);

int pyc_arrivals_register(PyObject *module, pyc_state *state);

#endif
