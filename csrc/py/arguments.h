/* SPDX-License-Identifier: MIT */
/* The arguments of a METH_FASTCALL | METH_KEYWORDS method. */
#ifndef PYC_PY_ARGUMENTS_H
#define PYC_PY_ARGUMENTS_H

#include "py/compat.h"

typedef struct {
    const char *function;
    const char *names[5]; /* NULL after the last */
    Py_ssize_t required;
} pyc_signature;

/* Sorts the arguments into `out`, one place for each name, borrowed; those not
 * given stay as they are. 0, or -1 with a TypeError. */
int pyc_arguments(const pyc_signature *signature, PyObject *const *args,
                  Py_ssize_t nargs, PyObject *kwnames, PyObject **out);

#define PYC_KEYWORDS(f) ((PyCFunction)(void (*)(void))(f))

#endif
