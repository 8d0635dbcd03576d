/* SPDX-License-Identifier: MIT */
/* Executor.map in a thread pool: the calls of one map, which as many workers
 * as are free take one after the other. */
#ifndef PYC_POOL_MAP_H
#define PYC_POOL_MAP_H

#include "pool/queue.h"

/* The calls func(item), or func(*item) with `spread`, for the items of the
 * list. None runs before somebody calls the object: that makes calls until
 * none is left. Iterating over it gives the results in order, waited for until
 * `deadline`. A new reference, or NULL. */
PyObject *pyc_map_new(pyc_queue *queue, PyObject *func, PyObject *items,
                      int spread, int64_t deadline);

/* `future` stands for one call of `map`: when it is cancelled or fails, so do
 * the calls that nobody has begun. 0, or -1 with an exception set. */
int pyc_map_add_worker(PyObject *map, pyc_future *future);

/* Cancels the calls that nobody has begun. */
void pyc_map_cancel(PyObject *map);

int pyc_map_register(PyObject *module, pyc_state *state);

#endif
