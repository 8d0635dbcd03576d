/* SPDX-License-Identifier: MIT */
/* From the socket to the protocol. */
#include "py/compat.h"
#include "net/streams/streams.h"
#include "net/stream.h"

#include <errno.h>

#define TURN_LIMIT (256 * 1024) /* bytes for one connection in one turn */
#define BULK (64 * 1024)        /* a read of this size makes the next direct */

/* What a direct read asks for: the first fits below the size from which malloc
 * maps memory, so that shrinking it costs nothing. */
static const size_t bulk_sizes[] = {0, 128 * 1024 - 256, 256 * 1024 - 256};

/* ---- the end of file --------------------------------------------------- */

static void
read_end_of_file(pyc_stream *self)
{
    PyObject *result =
        pyc_stream_tell(self, self->state->str_eof_received, NULL);
    int keep = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (keep < 0) {
        pyc_stream_fatal(self,
                         "Fatal error: protocol.eof_received() call failed.");
    }
    else if (keep) {
        self->read_off = 1;
        pyc_stream_update(self);
    }
    else if (pyc_stream_close(self) < 0) {
        pyc_loop_report(self->loop, "Fatal read error on socket transport",
                        self->protocol, (PyObject *)self);
    }
}

/* recv() gave nothing: end of file, an error, or nothing there yet. */
static void
read_nothing(pyc_stream *self, ssize_t n)
{
    if (n == 0) {
        read_end_of_file(self);
    }
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        PyErr_SetFromErrno(PyExc_OSError);
        pyc_stream_fatal(self, "Fatal read error on socket transport");
    }
}

/* ---- Protocol ---------------------------------------------------------- */

static int
give(pyc_stream *self, PyObject *data)
{
    PyObject *context = Py_NewRef(self->context), *result;
    int entered = pyc_stream_enter(context);
    result = pyc_callback_tell_data(&self->receive, self->state, self->protocol,
                                    data);
    pyc_stream_leave(context, entered);
    Py_DECREF(context);
    if (PYC_UNLIKELY(result == NULL)) {
        pyc_stream_fatal(self,
                         "Fatal error: protocol.data_received() call failed.");
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

static ssize_t
receive(int fd, void *buffer, size_t len)
{
    return recv(fd, buffer, len, 0);
}

static void
read_data(pyc_stream *self)
{
    size_t left = TURN_LIMIT, size;
    ssize_t n;
    do {
        PyObject *data = NULL;
        size = self->bulk ? bulk_sizes[self->bulk] : PYC_SCRATCH_SIZE;
        n = pyc_receive(self->loop, receive, self->fd, size, self->bulk, &data);
        if (PYC_UNLIKELY(n <= 0)) {
            if (n == -2) {
                pyc_stream_fatal(self, "Fatal read error on socket transport");
            }
            else {
                read_nothing(self, n);
            }
            return;
        }
        self->bulk = n < BULK ? 0 : (size_t)n < size ? 1 : 2;
        int code = give(self, data);
        Py_DECREF(data);
        if (PYC_LIKELY((size_t)n < size) || code < 0 || (size_t)n >= left) {
            return;
        }
        left -= (size_t)n;
    } while (pyc_stream_reading(self) && !self->buffered);
}

/* ---- BufferedProtocol -------------------------------------------------- */

/* Fills one buffer; 1 when there may be more for another. */
static int
fill_buffer(pyc_stream *self, size_t *left)
{
    Py_buffer view;
    if (pyc_callback_get_buffer(&self->buffer, self->protocol,
                                self->state->str_get_buffer, -1, &view) < 0) {
        pyc_stream_fatal(self,
                         "Fatal error: protocol.get_buffer() call failed.");
        return 0;
    }
    if (PYC_UNLIKELY(!pyc_stream_reading(self))) {
        PyBuffer_Release(&view); /* get_buffer() closed or paused it */
        return 0;
    }
    ssize_t n = recv(self->fd, view.buf, (size_t)view.len, 0);
    int error = errno, full = n == view.len;
    PyBuffer_Release(&view);
    if (n <= 0) {
        errno = error;
        read_nothing(self, n);
        return 0;
    }
    if (pyc_callback_buffer_updated(&self->receive, self->protocol,
                                    self->state->str_buffer_updated, n) < 0) {
        pyc_stream_fatal(self,
                         "Fatal error: protocol.buffer_updated() call failed.");
        return 0;
    }
    *left -= (size_t)n < *left ? (size_t)n : *left;
    return full && *left > 0;
}

static void
read_buffered(pyc_stream *self)
{
    PyObject *context = Py_NewRef(self->context);
    size_t left = TURN_LIMIT;
    int entered = pyc_stream_enter(context);
    while (fill_buffer(self, &left) && pyc_stream_reading(self) &&
           self->buffered) {
    }
    pyc_stream_leave(context, entered);
    Py_DECREF(context);
}

/* ---- a filter ---------------------------------------------------------- */

/* Below the size from which malloc maps memory, if the filter makes objects of
 * it; and it may use the second half of the buffer. */
#define FILTER_SIZE (112 * 1024)

static void
read_filtered(pyc_stream *self)
{
    size_t left = TURN_LIMIT;
    ssize_t n;
    do {
        char *scratch = pyc_loop_scratch(self->loop);
        if (scratch == NULL) {
            pyc_stream_fatal(self, "Fatal read error on socket transport");
            return;
        }
        n = recv(self->fd, scratch, FILTER_SIZE, 0);
        if (n <= 0) {
            read_nothing(self, n);
            return;
        }
        PyObject *protocol = Py_NewRef(self->protocol);
        self->filter(protocol, scratch, (size_t)n);
        Py_DECREF(protocol);
        left -= (size_t)n < left ? (size_t)n : left;
    } while (n == FILTER_SIZE && left > 0 && pyc_stream_reading(self) &&
             self->filter != NULL);
}

void
pyc_stream_read(pyc_stream *self)
{
    if (PYC_UNLIKELY(self->filter != NULL)) {
        read_filtered(self);
    }
    else if (self->buffered) {
        read_buffered(self);
    }
    else {
        read_data(self);
    }
}
