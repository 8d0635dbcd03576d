/* SPDX-License-Identifier: MIT */
#ifndef PYC_POOL_ASIDE_H
#define PYC_POOL_ASIDE_H

#include "py/compat.h"
#include "py/state.h"

/* What a thread is in the middle of while it helps: another job must not find
 * a running loop or an exception there. */
typedef struct {
    PyObject *pending;
    PyObject *handled;
    PyObject *loop;
    PyObject *task;
} pyc_aside;

void pyc_aside_begin(pyc_state *module, pyc_aside *self);
void pyc_aside_end(pyc_state *module, pyc_aside *self);

#endif
