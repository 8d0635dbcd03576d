/* SPDX-License-Identifier: MIT */
/* From the program to the socket: at once when nothing is queued, and what
 * follows in the same turn together, before the loop polls again. */
#include "py/compat.h"
#include "net/pass_on.h"
#include "net/stream.h"

#include <errno.h>

/* ---- sending ----------------------------------------------------------- */

/* Judges the result of a send: what went, or -1 with an exception. */
static ssize_t
sent(ssize_t n)
{
    if (PYC_UNLIKELY(n < 0)) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
            return 0;
        }
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return n;
}

ssize_t
pyc_stream_send_pieces(pyc_transport *self, struct iovec *iov, unsigned len)
{
    if (len == 1) {
        return sent(send(self->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL));
    }
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = len};
    return sent(sendmsg(self->fd, &message, MSG_NOSIGNAL));
}

/* Everything is sent: what was waiting for that. */
void
pyc_stream_emptied(pyc_transport *base)
{
    pyc_stream *self = (pyc_stream *)base;
    pyc_stream_tell_waiter(self, 0);
    if (self->closing) {
        if (!self->conn_lost && pyc_stream_finish(self) < 0) {
            pyc_transport_report(base, "Exception in closing a transport");
        }
    }
    else if (self->eof && shutdown(self->fd, SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        pyc_stream_fatal(self, self->kind->write_failed);
    }
}

/* ---- write() ----------------------------------------------------------- */

/* 1 when nothing stands against a write, 0 when it is to be dropped, -1 with
 * an exception. */
static int
check_write(pyc_stream *self, const char *eof, const char *sendfile)
{
    if (PYC_UNLIKELY(self->eof || self->empty_waiter != NULL)) {
        PyErr_SetString(PyExc_RuntimeError, self->eof ? eof : sendfile);
        return -1;
    }
    if (PYC_LIKELY(!self->conn_lost)) {
        return 1;
    }
    return pyc_transport_drop_write(self->state, &self->conn_lost,
                                    "socket.send() raised exception.");
}

/* Sends what of `len` bytes goes at once: how many, or -1 when the connection
 * has failed. */
static inline ssize_t
send_bytes(pyc_stream *self, const char *data, size_t len)
{
    ssize_t n = sent(send(self->fd, data, len, MSG_NOSIGNAL));
    if (PYC_LIKELY((size_t)n == len)) {
        self->wrote = self->loop->turn;
        return n;
    }
    if (n < 0) {
        pyc_stream_fatal(self, self->kind->write_failed);
        return -1;
    }
    self->blocked = 1;
    return n;
}

/* Sends what of `len` bytes at `data` goes and queues the rest. */
static int
write_bytes(pyc_stream *self, PyObject *object, const char *data, size_t len)
{
    if (pyc_stream_may_send(self)) {
        ssize_t n = send_bytes(self, data, len);
        if (PYC_LIKELY((size_t)n == len) || n < 0) {
            return 0;
        }
        data += n;
        len -= (size_t)n;
    }
    return pyc_transport_queue(&self->base, object, data, len);
}

int
pyc_stream_send(pyc_stream *self, const char *data, size_t len)
{
    if (self->conn_lost) {
        return 0;
    }
    if (self->outbox == NULL) {
        ssize_t n = send_bytes(self, data, len);
        if (PYC_LIKELY((size_t)n == len) || n < 0) {
            return 0;
        }
        data += n;
        len -= (size_t)n;
    }
    return pyc_transport_queue(&self->base, NULL, data, len);
}

static PyObject *
write_any(pyc_stream *self, PyObject *object)
{
    Py_buffer view;
    if (pyc_outbox_view(object, &view) < 0) {
        return NULL;
    }
    int code = check_write(self, "Cannot call write() after write_eof()",
                           "unable to write; sendfile is in progress");
    if (code > 0 && view.len > 0) {
        code = write_bytes(self, object, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    if (code < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
pyc_stream_write(pyc_stream *self, PyObject *object)
{
    PYC_PASS_ON_WITH(self, "write", object);
    if (PYC_LIKELY(PyBytes_CheckExact(object) && !self->eof &&
                   !self->conn_lost && self->empty_waiter == NULL &&
                   PyBytes_GET_SIZE(object) > 0)) {
        if (write_bytes(self, object, PyBytes_AS_STRING(object),
                        (size_t)PyBytes_GET_SIZE(object)) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    return write_any(self, object);
}

/* ---- writelines() ------------------------------------------------------ */

PyObject *
pyc_stream_writelines(pyc_stream *self, PyObject *lines)
{
    pyc_loop *elsewhere = pyc_must_pass_on((PyObject *)self, &self->loop);
    if (elsewhere != NULL) {
        return pyc_pass_on_lines((PyObject *)self, elsewhere, lines);
    }
    PyObject *list = PySequence_Fast(
        lines, "writelines() takes an iterable of bytes-like objects");
    if (list == NULL) {
        return NULL;
    }
    /* Not before: what makes the lines may have ended it. */
    int code = check_write(self, "Cannot call writelines() after write_eof()",
                           "unable to writelines; sendfile is in progress");
    if (code < 0) {
        Py_DECREF(list);
        return NULL;
    }
    int first = code > 0 && pyc_stream_may_send(self);
    if (code > 0) {
        code = pyc_outbox_push_lines(&self->outbox, list);
        if (self->conn_lost) { /* the __buffer__() of a line has ended it */
            pyc_transport_drop_outbox(&self->base);
        }
    }
    else {
        code = pyc_outbox_check_lines(list);
    }
    Py_DECREF(list);
    if (code < 0) {
        return NULL;
    }
    pyc_transport_send_lines(&self->base, first);
    Py_RETURN_NONE;
}

PyObject *
pyc_stream_write_eof(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "write_eof");
    if (self->closing || self->eof) {
        Py_RETURN_NONE;
    }
    self->eof = 1;
    if (self->outbox != NULL && !self->blocked &&
        pyc_transport_flush(&self->base) < 0) {
        Py_RETURN_NONE;
    }
    if (self->outbox == NULL && shutdown(self->fd, SHUT_WR) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyObject *
pyc_stream_can_write_eof(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}
