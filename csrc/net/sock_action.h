/* SPDX-License-Identifier: MIT */
/* What the sock_*() operations do: the system calls. */
#ifndef PYC_NET_SOCK_ACTION_H
#define PYC_NET_SOCK_ACTION_H

#include "net/sock_op.h"

extern const pyc_sock_action pyc_sock_recv;
extern const pyc_sock_action pyc_sock_recv_into;
extern const pyc_sock_action pyc_sock_recvfrom;
extern const pyc_sock_action pyc_sock_recvfrom_into;
extern const pyc_sock_action pyc_sock_sendall;
extern const pyc_sock_action pyc_sock_sendto;
extern const pyc_sock_action pyc_sock_connect;
extern const pyc_sock_action pyc_sock_accept;

#endif
