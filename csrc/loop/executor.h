/* SPDX-License-Identifier: MIT */
/* run_in_executor() and the default executor. */
#ifndef PYC_LOOP_EXECUTOR_H
#define PYC_LOOP_EXECUTOR_H

#include "py/compat.h"
#include "loop/loop.h"

PyObject *pyc_loop_run_in_executor(pyc_loop *self, PyObject *const *args,
                                   Py_ssize_t nargs, PyObject *kwnames);

#endif
