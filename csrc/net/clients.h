/* SPDX-License-Identifier: MIT */
/* The connections of one server: what a WeakSet of transports would be, at the
 * price of two pointers a connection. */
#ifndef PYC_NET_CLIENTS_H
#define PYC_NET_CLIENTS_H

#include "py/lock.h"
#include "py/state.h"
#include "base/list.h"

struct pyc_stream;

typedef struct pyc_clients {
    PyObject_HEAD
    pyc_lock lock; /* of the list: a transport may end in any thread */
    pyc_link list; /* of pyc_stream.client */
    size_t len;
    PyObject *emptied; /* called when the last has gone, or None */
} pyc_clients;

/* The stream must be in none. */
void pyc_clients_add(pyc_clients *clients, struct pyc_stream *stream);
/* Takes it out of the one it is in, if any. -1 with an exception: emptied()
 * raised it. */
int pyc_clients_discard(struct pyc_stream *stream);

#endif
