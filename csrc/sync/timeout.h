/* SPDX-License-Identifier: MIT */
/* Deadlines from the timeouts that threading takes. */
#ifndef PYC_SYNC_TIMEOUT_H
#define PYC_SYNC_TIMEOUT_H

#include "py/compat.h"
#include "py/state.h"

#include "base/futex.h"

/* A deadline that has always passed. */
#define PYC_NO_WAIT INT64_C(0)

#define PYC_TOO_LONG INT64_C(-1)

/* As Condition.wait takes it: None or seconds, NULL for not given; none or
 * less is no time at all. 0, or -1 with an exception set. */
int pyc_timeout_wait(pyc_state *module, PyObject *timeout, int64_t *deadline);

/* From the arguments of Lock.acquire(blocking=True, timeout=-1): seconds, or -1
 * for ever, which is all that goes with blocking=False. 0, or -1 with the
 * exception that the running Python's own lock raises. */
int pyc_timeout_acquire(pyc_state *module, PyObject *const *args,
                        Py_ssize_t nargs, PyObject *kwnames, int64_t *deadline);

/* As Queue.get takes it: None or seconds, not less than none; PYC_TOO_LONG when
 * nobody can wait so long, which is an error only for who has to. 0, or -1 with
 * an exception set. */
int pyc_timeout_queue(pyc_state *module, PyObject *block, PyObject *timeout,
                      int64_t *deadline);

#endif
