/* SPDX-License-Identifier: MIT */
/* csrc's own, but nobody holds a GIL. */
#include_next "py/compat.h"

#undef Py_BEGIN_ALLOW_THREADS
#undef Py_END_ALLOW_THREADS
#define Py_BEGIN_ALLOW_THREADS {
#define Py_END_ALLOW_THREADS }
