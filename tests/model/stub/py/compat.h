/* SPDX-License-Identifier: MIT */
/* csrc's own, but nobody holds a GIL, and nothing is raised. */
#include_next "py/compat.h"

#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }

#define pyc_take_exception() ((PyObject *)NULL)
#define pyc_put_exception(exc) ((void)(exc))

/* Whoever else may run in the meantime does so anyway. */
#define pyc_only_thread() 1
#define sched_yield() ((void)0)
