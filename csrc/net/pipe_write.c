/* SPDX-License-Identifier: MIT */
/* From the program to the pipe: at once when nothing is queued, and what
 * follows in the same turn together, before the loop polls again. */
#include "py/compat.h"
#include "net/pass_on.h"
#include "net/pipe.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- sending ----------------------------------------------------------- */

/* What went, or -1 with an exception. */
static ssize_t
send_some(pyc_pipe *self, struct iovec *iov, unsigned len)
{
    ssize_t n;
    pyc_pipe_guard(self);
    if (self->is_socket) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = len};
        n = sendmsg(self->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    else if (len == 1) {
        n = write(self->fd, iov->iov_base, iov->iov_len);
    }
    else {
        n = writev(self->fd, iov, (int)len);
    }
    if (PYC_UNLIKELY(n < 0)) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
            return 0;
        }
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return n;
}

ssize_t
pyc_pipe_send_pieces(pyc_transport *self, struct iovec *iov, unsigned len)
{
    return send_some((pyc_pipe *)self, iov, len);
}

/* Everything is written. */
void
pyc_pipe_emptied(pyc_transport *base)
{
    pyc_pipe *self = (pyc_pipe *)base;
    if (self->closing && !self->lost && pyc_pipe_finish(self, NULL) < 0) {
        pyc_transport_report(base, "Exception in closing a transport");
    }
}

/* ---- write() ----------------------------------------------------------- */

/* 1 when nothing stands against a write, 0 when it is to be dropped, -1 with
 * an exception. */
static int
check_write(pyc_pipe *self)
{
    if (PYC_LIKELY(!self->closing)) {
        return 1;
    }
    return pyc_transport_drop_write(
        self->state, &self->dropped,
        "pipe closed by peer or os.write(pipe, data) raised exception.");
}

static inline int
may_send(const pyc_pipe *self)
{
    return self->outbox == NULL &&
           (!self->gathers || self->wrote != self->loop->turn);
}

/* Sends what of `len` bytes at `data` goes and queues the rest. */
static int
write_bytes(pyc_pipe *self, PyObject *object, const char *data, size_t len)
{
    if (may_send(self)) {
        struct iovec iov = {(char *)data, len};
        ssize_t n = send_some(self, &iov, 1);
        if (PYC_LIKELY((size_t)n == len)) {
            self->wrote = self->loop->turn;
            return 0;
        }
        if (n < 0) {
            pyc_pipe_fatal(self, self->kind->write_failed);
            return 0;
        }
        data += n;
        len -= (size_t)n;
        self->blocked = 1;
    }
    return pyc_transport_queue(&self->base, object, data, len);
}

PyObject *
pyc_pipe_write(pyc_pipe *self, PyObject *object)
{
    Py_buffer view;
    PYC_PASS_ON_WITH(self, "write", object);
    if (PYC_LIKELY(PyBytes_CheckExact(object) && !self->closing &&
                   PyBytes_GET_SIZE(object) > 0)) {
        if (write_bytes(self, object, PyBytes_AS_STRING(object),
                        (size_t)PyBytes_GET_SIZE(object)) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    if (pyc_outbox_view(object, &view) < 0) {
        return NULL;
    }
    int code = view.len > 0 ? check_write(self) : 0;
    if (code > 0) {
        code = write_bytes(self, object, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    if (code < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* As asyncio's: where each write is a message of its own, this is one. */
static PyObject *
write_joined(pyc_pipe *self, PyObject *lines)
{
    PyObject *all = pyc_outbox_join(lines);
    PyObject *result = all == NULL ? NULL : pyc_pipe_write(self, all);
    Py_XDECREF(all);
    return result;
}

PyObject *
pyc_pipe_writelines(pyc_pipe *self, PyObject *lines)
{
    pyc_loop *elsewhere = pyc_must_pass_on((PyObject *)self, &self->loop);
    if (elsewhere != NULL) {
        return pyc_pass_on_lines((PyObject *)self, elsewhere, lines);
    }
    if (!self->gathers) {
        return write_joined(self, lines);
    }
    PyObject *list = PySequence_Fast(
        lines, "writelines() takes an iterable of bytes-like objects");
    if (list == NULL) {
        return NULL;
    }
    int code = PySequence_Fast_GET_SIZE(list) > 0 ? check_write(self) : 0;
    int first = code > 0 && may_send(self);
    if (code > 0) {
        code = pyc_outbox_push_lines(&self->outbox, list);
        if (self->lost) { /* the __buffer__() of a line has ended it */
            pyc_outbox_drop(&self->outbox);
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
