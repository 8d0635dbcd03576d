/* SPDX-License-Identifier: MIT */
#ifndef PYC_PROC_PROC_H
#define PYC_PROC_PROC_H

#include "py/state.h"

/* Adds what csrc/proc has to the module. 0, or -1 with an exception. */
int pyc_proc_register(PyObject *module, pyc_state *state);

#endif
