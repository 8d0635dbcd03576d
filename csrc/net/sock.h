/* SPDX-License-Identifier: MIT */
/* The sock_*() methods of the loop. */
#ifndef PYC_NET_SOCK_H
#define PYC_NET_SOCK_H

#include "py/state.h"

/* Adds them to the loop's type, which is registered already. 0, or -1 with an
 * exception. */
int pyc_sock_register(PyObject *module, pyc_state *state);

#endif
