/* SPDX-License-Identifier: MIT */
/* threading's primitives and queue's queues. */
#ifndef PYC_SYNC_SYNC_H
#define PYC_SYNC_SYNC_H

#include "py/compat.h"
#include "py/state.h"

int pyc_sync_register(PyObject *module, pyc_state *state);

/* The parts that it registers. */
int pyc_condition_register(PyObject *module, pyc_state *state);
int pyc_semaphore_register(PyObject *module, pyc_state *state);
int pyc_event_register(PyObject *module, pyc_state *state);
int pyc_barrier_register(PyObject *module, pyc_state *state);

#endif
