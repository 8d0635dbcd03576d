/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/datagram.h"
#include "net/net.h"
#include "net/sock.h"
#include "net/streams/streams.h"
#include "net/tls/tls.h"

int
pyc_net_register(PyObject *module, pyc_state *state)
{
    if (pyc_streams_register(module, state) < 0 ||
        pyc_stream_register(module, state) < 0 ||
        pyc_tls_register(module, state) < 0 ||
        pyc_tls_transport_register(module, state) < 0 ||
        pyc_clients_register(module, state) < 0 ||
        pyc_listener_register(module, state) < 0 ||
        pyc_pipe_register(module, state) < 0 ||
        pyc_datagram_register(module, state) < 0 ||
        pyc_sock_register(module, state) < 0) {
        return -1;
    }
    return 0;
}
