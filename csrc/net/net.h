/* SPDX-License-Identifier: MIT */
#ifndef PYC_NET_NET_H
#define PYC_NET_NET_H

#include "py/state.h"

/* Adds the types of csrc/net to the module. 0, or -1 with an exception. */
int pyc_net_register(PyObject *module, pyc_state *state);

int pyc_stream_register(PyObject *module, pyc_state *state);
int pyc_clients_register(PyObject *module, pyc_state *state);
int pyc_pipe_register(PyObject *module, pyc_state *state);
int pyc_listener_register(PyObject *module, pyc_state *state);

#endif
