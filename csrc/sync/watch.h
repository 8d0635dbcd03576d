/* SPDX-License-Identifier: MIT */
/* Finds threads that wait for each other's locks, while somebody wants to be
 * told of them. */
#ifndef PYC_SYNC_WATCH_H
#define PYC_SYNC_WATCH_H

#include "sync/wait.h"

typedef struct pyc_watched pyc_watched;

/* A thread is about to wait, without a deadline: reports the cycle that it
 * closes. NULL without memory. */
pyc_watched *pyc_watch_begin(pyc_wait *wait);
void pyc_watch_end(pyc_watched *self);

int pyc_watch_register(PyObject *module, pyc_state *state);

#endif
