/* SPDX-License-Identifier: MIT */
/* One stream connection, TCP or Unix: asyncio.Transport in C. */
#ifndef PYC_NET_STREAM_H
#define PYC_NET_STREAM_H

#include "net/address.h"
#include "net/clients.h"
#include "net/transport.h"

typedef struct pyc_stream {
    PYC_TRANSPORT_HEAD;
    PyObject *sock;       /* owns the descriptor once it is there */
    PyObject *server;     /* or NULL */
    pyc_clients *clients; /* of the server, if it is one of ours */
    pyc_link client;      /* in clients->list */
#ifdef Py_GIL_DISABLED
    PyObject *client_ref; /* weak, to itself, for clients->list */
#endif
    pyc_callback buffer; /* get_buffer */
    /* Takes what is received in the place of the protocol's methods; or NULL.
     */
    void (*filter)(PyObject *protocol, const char *data, size_t len);
    PyObject *empty_waiter; /* sendfile's: a Future that it waits on */
    unsigned conn_lost;     /* writes after the end, plus one */
    unsigned char bulk;     /* the last reads filled their buffer */
    char buffered;          /* the protocol has get_buffer() */
    char read_off;          /* end of file, and the protocol keeps it open */
    char eof;               /* write_eof() was called */
    char closed;            /* the descriptor is */
    union {
        sa_family_t family; /* AF_UNSPEC: ask the kernel */
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } peer;
} pyc_stream;

/* ---- stream.c ---------------------------------------------------------- */

/* A transport of the descriptor, which it owns from then on; on failure the
 * caller still does. It has no protocol yet. */
pyc_stream *pyc_stream_new(PyTypeObject *type, pyc_loop *loop, int fd,
                           PyObject *context);
/* Makes it the transport of `sock`, a socket object, with connection_made() and
 * the waiter's result in the next turn. 0, or -1 with an exception. */
int pyc_stream_open(pyc_stream *self, PyObject *sock, PyObject *protocol,
                    PyObject *waiter, PyObject *server);
/* Gives back all that is outside of Python. 0, or -1 with an exception from the
 * socket's or the server's Python side. */
int pyc_stream_release(pyc_stream *self);
/* As pyc_stream_new(). */
pyc_stream *pyc_stream_accepted(pyc_loop *loop, int fd, const pyc_address *peer,
                                PyObject *context);
void pyc_stream_attach(pyc_stream *self, PyObject *server,
                       pyc_clients *clients);
/* 0, or -1 with an exception. */
int pyc_stream_set_protocol(pyc_stream *self, PyObject *protocol);

/* Watches for what the state now asks for, and holds or releases the
 * transport: needs a reference of the caller. */
void pyc_stream_update(pyc_stream *self);

/* Calls protocol.name(), or protocol.name(arg) if there is one, in the
 * transport's context: a new reference, or NULL with an exception. */
PyObject *pyc_stream_tell(pyc_stream *self, PyObject *name, PyObject *arg);

/* Ends the connection for the exception that is set, which is reported unless
 * it is an OSError. */
void pyc_stream_fatal(pyc_stream *self, const char *message);
/* Drops what was not sent; connection_lost(exc) follows in the next turn. 0, or
 * -1 with an exception. */
int pyc_stream_force_close(pyc_stream *self, PyObject *exc);
int pyc_stream_close(pyc_stream *self);
/* connection_lost(None) follows in the next turn. */
int pyc_stream_finish(pyc_stream *self);

/* ---- stream_read.c ----------------------------------------------------- */

void pyc_stream_read(pyc_stream *self);

static inline int
pyc_stream_reading(const pyc_stream *self)
{
    return self->started && !self->paused && !self->closing &&
           !self->read_off && !self->conn_lost;
}

/* ---- stream_write.c ---------------------------------------------------- */

PyObject *pyc_stream_write(pyc_stream *self, PyObject *data);
PyObject *pyc_stream_writelines(pyc_stream *self, PyObject *lines);
PyObject *pyc_stream_write_eof(pyc_stream *self, PyObject *ignored);
PyObject *pyc_stream_can_write_eof(pyc_stream *self, PyObject *ignored);

/* Sends it at once if nothing is queued, and keeps a copy of what does not go.
 * 0, or -1 with MemoryError. */
int pyc_stream_send(pyc_stream *self, const char *data, size_t len);
/* For pyc_transport_kind. */
ssize_t pyc_stream_send_pieces(pyc_transport *self, struct iovec *iov,
                               unsigned len);
void pyc_stream_emptied(pyc_transport *self);

/* Nothing is queued, and nothing was sent in this turn: it may go at once. */
static inline int
pyc_stream_may_send(const pyc_stream *self)
{
    return self->outbox == NULL && self->wrote != self->loop->turn;
}

/* ---- stream_sendfile.c ------------------------------------------------- */

PyObject *pyc_stream__make_empty_waiter(pyc_stream *self, PyObject *ignored);
PyObject *pyc_stream__make_room_waiter(pyc_stream *self, PyObject *ignored);
PyObject *pyc_stream__reset_empty_waiter(pyc_stream *self, PyObject *ignored);
/* What a sendfile() waits for has happened, or the connection is lost. */
void pyc_stream_tell_waiter(pyc_stream *self, int lost);

/* ---- stream_info.c ----------------------------------------------------- */

extern PyGetSetDef pyc_stream_getset[];
/* For those who ask after the end. */
void pyc_stream_keep_names(pyc_stream *self);
PyObject *pyc_stream_repr(pyc_stream *self);
PyObject *pyc_stream_get_extra_info(pyc_stream *self, PyObject *args,
                                    PyObject *kwargs);
/* The socket object, made when first asked for: borrowed, or NULL with an
 * exception. */
PyObject *pyc_stream_socket(pyc_stream *self);

#endif
