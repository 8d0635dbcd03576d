/* SPDX-License-Identifier: MIT */
#ifndef PYC_POOL_WAIT_H
#define PYC_POOL_WAIT_H

#include "pool/future.h"

/* Whether what stands in a Future's `_waiters` is of ours; then it is told of
 * the end by a call of C. */
int pyc_waiter_check(pyc_state *module, PyObject *op);
void pyc_waiter_tell(PyObject *op, int failed);

int pyc_wait_register(PyObject *module, pyc_state *state);

#endif
