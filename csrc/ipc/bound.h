/* SPDX-License-Identifier: MIT */
/* __enter__ and __exit__ for types whose `with` is short. Before 3.14 a `with`
 * makes a bound method for each, two objects of the collector, which takes
 * longer than the lock; these are made of what the last one left. */
#ifndef PYC_IPC_BOUND_H
#define PYC_IPC_BOUND_H

#include "ipc/state.h"

extern PyType_Spec pyc_quick_method_spec;
extern PyType_Spec pyc_quick_bound_spec;

/* What either does with the object; arguments are of no account to it. */
typedef PyObject *(*pyc_quick_function)(PyObject *self, PyObject *ignored);

/* Gives the type both. 0, or -1 with an exception set. */
int pyc_quick_with(pyc_ipc *state, PyTypeObject *type, pyc_quick_function enter,
                   pyc_quick_function leave);

#endif
