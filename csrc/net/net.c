/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/datagram.h"
#include "net/net.h"
#include "net/sock.h"

int
pyc_net_register(PyObject *module, pyc_state *state)
{
    if (pyc_datagram_register(module, state) < 0 ||
        pyc_sock_register(module, state) < 0) {
        return -1;
    }
    return 0;
}
