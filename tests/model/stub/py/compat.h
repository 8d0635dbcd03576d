/* SPDX-License-Identifier: MIT */
/* csrc's own, but nobody holds a GIL, and nothing is raised. */
#include_next "py/compat.h"

#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }

/* NULL, unless the model has another. */
PyObject *model_take_exception(void);
#undef pyc_take_exception
#undef pyc_put_exception
#define pyc_take_exception() model_take_exception()
#define pyc_put_exception(exc) ((void)(exc))

/* Whoever else may run in the meantime does so anyway. */
#define pyc_only_thread() 1
#define sched_yield() ((void)0)
