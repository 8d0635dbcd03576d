/* SPDX-License-Identifier: MIT */
/* What the rest of _core may ask of the thread pool. */
#ifndef PYC_POOL_POOL_H
#define PYC_POOL_POOL_H

#include "py/compat.h"
#include "py/state.h"

/* Whether `executor` is a ThreadPoolExecutor of ours whose submit() nobody
 * has overridden, so that pyc_pool_submit_to_loop does what submit() and
 * asyncio.wrap_future would. */
int pyc_pool_is_ours(pyc_state *state, PyObject *executor);

/* Runs func(*args) in a worker: an asyncio future of `loop`, any asyncio loop,
 * made by loop.create_future(). Cancelling it keeps the call from starting. A
 * new reference, or NULL with what submit() raises. */
PyObject *pyc_pool_submit_to_loop(PyObject *executor, PyObject *loop,
                                  PyObject *func, PyObject *const *args,
                                  Py_ssize_t nargs);

int pyc_pool_register(PyObject *module, pyc_state *state);

/* The parts that it registers. */
int pyc_future_register(PyObject *module, pyc_state *state);

#endif
