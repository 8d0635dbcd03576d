/* SPDX-License-Identifier: MIT */
/* asyncio's streams: the C half of pyconc.loop.streams. */
#ifndef PYC_NET_STREAMS_STREAMS_H
#define PYC_NET_STREAMS_STREAMS_H

#include "net/callback.h"

/* What a StreamReader has of the connection: its attributes that asyncio's has
 * with an underscore before the name. */
typedef struct {
    PyObject_HEAD
    PyObject *reader; /* a weak reference */
    PyObject *buffer; /* a bytearray, in which goes... */
    PyObject *whole;  /* ...what has come in one piece, or NULL: bytes */
    PyObject *limit;  /* a number: half of what the buffer may hold */
    PyObject *loop;
    PyObject *create_future; /* of the loop */
    PyObject *transport;     /* to be told when the buffer is full; or None */
    PyObject *waiter;        /* the Future of who waits for data; or None */
    PyObject *exception;     /* by which the connection was lost; or None */
    char eof;
    char paused; /* the transport was told */
    pyc_state *state;
} pyc_stream_source;

/* ---- source.c ---------------------------------------------------------- */

int pyc_stream_source_register(PyObject *module, pyc_state *state);

/* Whether there are more than `times` the limit: 1, 0, or -1 with an
 * exception. */
int pyc_stream_source_beyond(pyc_stream_source *self, Py_ssize_t len,
                             int times);

/* How much there is to read, as far as that can be told: somebody may have put
 * anything in the buffer's place. */
static inline Py_ssize_t
pyc_stream_source_len(const pyc_stream_source *self)
{
    return self->whole != NULL ? PyBytes_GET_SIZE(self->whole)
           : PyByteArray_Check(self->buffer)
               ? PyByteArray_GET_SIZE(self->buffer)
               : 0;
}

/* Has all of it stand in the buffer, which must be a bytearray if it does not
 * yet: 0, or -1 with an exception. */
int pyc_stream_source_settle(pyc_stream_source *self);
/* 0 if the buffer is a bytearray, else -1 with TypeError. */
int pyc_stream_source_check(const pyc_stream_source *self);

/* ---- feed.c ------------------------------------------------------------ */

PyObject *pyc_stream_source_feed(pyc_stream_source *self, PyObject *data);

/* ---- read.c: what the reader's methods give at once: bytes, or the future to
 * wait for, or None for what asyncio's own method has to see to. */

PyObject *pyc_stream_source_read(pyc_stream_source *self, PyObject *const *args,
                                 Py_ssize_t nargs);
PyObject *pyc_stream_source_readexactly(pyc_stream_source *self,
                                        PyObject *const *args,
                                        Py_ssize_t nargs);
PyObject *pyc_stream_source_readuntil(pyc_stream_source *self,
                                      PyObject *const *args, Py_ssize_t nargs);

/* ---- adopt.c ----------------------------------------------------------- */

int pyc_streams_register(PyObject *module, pyc_state *state);

/* Before protocol.connection_made(): has the streams of a StreamReaderProtocol
 * become those of pyconc.loop.streams. 0, or -1 with an exception: they are
 * asyncio's as before, and the connection can do with those. */
#define PYC_STREAMS_NOT_ADOPTED "Exception in taking over asyncio's streams"
int pyc_streams_adopt(pyc_state *state, PyObject *protocol);

/* Finds protocol.data_received; of an asyncio.StreamReaderProtocol whose reader
 * was adopted, what does the same in C. 0, or -1 with an exception. */
int pyc_callback_find_data(pyc_callback *callback, pyc_state *state,
                           PyObject *protocol);

/* protocol.data_received(data), by way of the callback: a new reference, or
 * NULL with an exception. */
static inline PyObject *
pyc_callback_tell_data(pyc_callback *callback, pyc_state *state,
                       PyObject *protocol, PyObject *data)
{
    if (PYC_UNLIKELY(callback->fn == NULL) &&
        pyc_callback_find_data(callback, state, protocol) < 0) {
        return NULL;
    }
    return pyc_callback_call(callback, data);
}

#endif
