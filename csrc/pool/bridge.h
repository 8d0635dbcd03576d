/* SPDX-License-Identifier: MIT */
/* Between a Future and the asyncio future that stands for it in a loop. */
#ifndef PYC_POOL_BRIDGE_H
#define PYC_POOL_BRIDGE_H

#include "pool/future.h"

/* An asyncio future of `loop` that ends as `source` does; cancelling it
 * cancels `source`. */
PyObject *pyc_future_wrap(pyc_future *source, PyObject *loop);

int pyc_bridge_register(PyObject *module, pyc_state *state);

#endif
