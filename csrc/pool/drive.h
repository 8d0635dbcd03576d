/* SPDX-License-Identifier: MIT */
/* A thread waits for a word, and collects what its source brings meanwhile. */
#ifndef PYC_POOL_DRIVE_H
#define PYC_POOL_DRIVE_H

#include "py/compat.h"

#include "base/futex.h"
#include "base/source.h"

/* Sleeps without the GIL as pyc_futex_wait does, by way of the source unless
 * that is NULL; -ECANCELED with an exception set. */
static inline int
pyc_drive(pyc_source *source, _Atomic uint32_t *word, uint32_t expected,
          int64_t deadline)
{
    if (source != NULL) {
        return source->wait(source, word, expected, deadline);
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pyc_futex_wait(word, expected, deadline);
    Py_END_ALLOW_THREADS
    return rc;
}

#endif
