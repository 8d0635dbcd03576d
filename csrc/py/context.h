/* SPDX-License-Identifier: MIT */
/* Whether two contexts hold the same variables, which CPython does not tell:
 * copying a context copies one pointer, and so does looking at it. */
#ifndef PYC_PY_CONTEXT_H
#define PYC_PY_CONTEXT_H

#include "py/compat.h"

/* Public, but not as declared: the same from Python 3.7 to 3.15. */
typedef struct {
    PyObject_HEAD
    PyObject *previous;
    PyObject *vars; /* immutable: a change puts another in its place */
} pyc_context;

/* 1 when contexts are as declared here, and it is safe to rely on it; 0 when
 * not; -1 with an exception. */
int pyc_context_is_known(void);

/* For identity only. */
static inline const void *
pyc_context_vars(PyObject *context)
{
    return ((pyc_context *)context)->vars;
}

/* This thread's context, borrowed; NULL when it has none yet. */
static inline PyObject *
pyc_context_current(void)
{
    return PyThreadState_Get()->context;
}

#endif
