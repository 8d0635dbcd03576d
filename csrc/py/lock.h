/* SPDX-License-Identifier: MIT */
/* A lock around a few lines of C that neither call Python nor let go of the
 * GIL: where there is a GIL it is the lock, and this one costs nothing. */
#ifndef PYC_PY_LOCK_H
#define PYC_PY_LOCK_H

#include "py/compat.h"

#ifdef Py_GIL_DISABLED
typedef PyMutex pyc_lock;
#    define pyc_lock_take(lock) PyMutex_Lock(lock)
#    define pyc_lock_give(lock) PyMutex_Unlock(lock)
/* For a forked child, where the thread that held it is gone. */
#    define pyc_lock_reset(lock) (*(lock) = (PyMutex){0})
#else
typedef struct {
} pyc_lock;
#    define pyc_lock_take(lock) ((void)(lock))
#    define pyc_lock_give(lock) ((void)(lock))
#    define pyc_lock_reset(lock) ((void)(lock))
#endif

/* For a field that is written under a lock and read without it, where any of
 * its values will do. */
#define pyc_load(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define pyc_store(field, value)                                                \
    __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

#endif
