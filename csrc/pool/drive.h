/* SPDX-License-Identifier: MIT */
/* A thread waits for a word, and collects what its source brings meanwhile. */
#ifndef PYC_POOL_DRIVE_H
#define PYC_POOL_DRIVE_H

#include "py/compat.h"

#include "base/futex.h"
#include "base/source.h"

#include <errno.h>

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

/* Sleeps until the word is no longer 0: 0, also when the deadline has passed;
 * -1 with an exception set. */
static inline int
pyc_drive_until_set(pyc_source *source, _Atomic uint32_t *word,
                    int64_t deadline)
{
    int rc = 0;
    while (!atomic_load(word) && rc != -ETIMEDOUT) {
        rc = pyc_drive(source, word, 0, deadline);
        if (rc == -ECANCELED || PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return 0;
}

#endif
