/* SPDX-License-Identifier: MIT */
/* Which sockets of the sock_*() operations are ready.
 *
 * They have an epoll set of their own, edge-triggered and watched by the loop:
 * a socket is registered once instead of before and after each operation, and
 * one that is known to be drained is not tried in vain. A socket that was
 * closed, or whose number another one has taken, can neither be mistaken for
 * it nor keep the poll awake. */
#ifndef PYC_NET_SOCK_POLL_H
#define PYC_NET_SOCK_POLL_H

#include "loop/loop.h"

enum { PYC_SOCK_READ = 1, PYC_SOCK_WRITE = 2 };

/* Whether an operation on `sock`, whose descriptor is `fd`, is worth a system
 * call: 0 only when it would block for sure. */
int pyc_sock_may_be_ready(pyc_loop *loop, int fd, PyObject *sock, int kind);

/* A system call would have blocked. */
void pyc_sock_is_drained(pyc_loop *loop, int fd, PyObject *sock, int kind);

/* A read of `sock` got that much. */
void pyc_sock_has_read(pyc_loop *loop, int fd, PyObject *sock, size_t got,
                       size_t asked);
/* Whether reads of `sock`, a TCP stream, get that much that copying it once
 * more would tell. */
int pyc_sock_reads_bulk(pyc_loop *loop, int fd, PyObject *sock);

/* Has pyc_sock_op_ready(waiter) called when `sock` gets ready, in the place of
 * an earlier waiter of that kind. With `anew`, what is known of it is out of
 * date. 0, or -1 with OSError. */
int pyc_sock_wait(pyc_loop *loop, int fd, PyObject *sock, int kind,
                  PyObject *waiter, int anew);
void pyc_sock_forget(pyc_loop *loop, int fd, int kind, PyObject *waiter);

int pyc_sock_poll_register(PyObject *module, pyc_state *state);

#endif
