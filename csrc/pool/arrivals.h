/* SPDX-License-Identifier: MIT */
#ifndef PYC_POOL_ARRIVALS_H
#define PYC_POOL_ARRIVALS_H

#include "py/state.h"

int pyc_arrivals_register(PyObject *module, pyc_state *state);

/* Whether a callback is the put() of one: it waits for nothing. */
int pyc_arrivals_is_put(PyObject *callback);

#endif
