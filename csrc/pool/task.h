/* SPDX-License-Identifier: MIT */
#ifndef PYC_POOL_TASK_H
#define PYC_POOL_TASK_H

#include "py/state.h"

int pyc_task_register(PyObject *module, pyc_state *state);

#endif
