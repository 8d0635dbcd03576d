/* SPDX-License-Identifier: MIT */
/* DatagramTransport: UDP, Unix and other datagram sockets. datagram.c is the
 * Python type, datagram_io.c what happens on the descriptor. */
#ifndef PYC_NET_DATAGRAM_H
#define PYC_NET_DATAGRAM_H

#include "py/compat.h"
#include "loop/loop.h"
#include "net/address.h"

typedef struct {
    PyObject_HEAD
    PyObject *extra; /* the slot _extra of asyncio.BaseTransport */
    PyObject *weakrefs;
    pyc_state *state; /* outlives it: the type holds the module */
    pyc_loop *loop;
    PyObject *sock;     /* NULL once connection_lost() was called */
    PyObject *protocol; /* likewise */
    PyObject *address;  /* where everything goes, or NULL */
    PyObject *context;
    PyObject *waiter; /* resolved after connection_made(), or NULL */
    PyObject *error;  /* for connection_lost(), or NULL */
    pyc_watcher *watcher;
    pyc_ring queue; /* {address or NULL, bytes}, both owned */
    Py_ssize_t queued;
    Py_ssize_t high;
    Py_ssize_t low;
    pyc_peers peers;
    int fd;
    int family;
    int lost; /* connection_lost() is due or done; counts dropped sends */
    char started;
    char closing;
    char paused;          /* pause_reading() */
    char protocol_paused; /* pause_writing() was called */
    char connected;       /* send() without an address */
} pyc_datagram;

/* Shared by the two files. An int result is 0, or -1 with an exception. */

/* The pyc_soon_fn that begins: connection_made(), reading, the waiter. */
void pyc_datagram_start(pyc_loop *loop, PyObject *self);
void pyc_datagram_ready(pyc_watcher *watcher, int events);
/* Sends now or queues; `address` may be NULL. */
int pyc_datagram_send(pyc_datagram *self, PyObject *data, PyObject *address);
/* Asks the poll for what the state needs. */
int pyc_datagram_update(pyc_datagram *self);
int pyc_datagram_close(pyc_datagram *self);
/* Drops what is queued. Steals `error`, which may be NULL. */
int pyc_datagram_force_close(pyc_datagram *self, PyObject *error);
void pyc_datagram_maybe_pause(pyc_datagram *self);
void pyc_datagram_clear_queue(pyc_datagram *self);
void pyc_datagram_close_watcher(pyc_datagram *self);
/* The watcher and the socket. */
void pyc_datagram_close_socket(pyc_datagram *self);

static inline int
pyc_datagram_is_reading(pyc_datagram *self)
{
    return self->started && !self->closing && !self->paused;
}

int pyc_datagram_register(PyObject *module, pyc_state *state);

#endif
