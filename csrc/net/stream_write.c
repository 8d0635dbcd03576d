/* SPDX-License-Identifier: MIT */
/* From the program to the socket: at once when nothing is queued, and what
 * follows in the same turn together, before the loop polls again. */
#include "py/compat.h"
#include "net/pass_on.h"
#include "net/stream.h"

#include <errno.h>

void
pyc_stream_drop_outbox(pyc_stream *self)
{
    self->blocked = 0;
    pyc_outbox_drop(&self->outbox);
}

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

static ssize_t
outbox_send(pyc_stream *self)
{
    pyc_outbox *box = self->outbox;
    struct iovec *iov = box->iov + box->head;
    unsigned len = box->end - box->head;
    if (len == 1) {
        return sent(send(self->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL));
    }
    struct msghdr message = {.msg_iov = iov,
                             .msg_iovlen =
                                 len < PYC_IOV_LIMIT ? len : PYC_IOV_LIMIT};
    return sent(sendmsg(self->fd, &message, MSG_NOSIGNAL));
}

/* Sends until the socket takes no more. 0, or -1 when the connection failed. */
static int
outbox_flush(pyc_stream *self)
{
    while (self->outbox != NULL) {
        pyc_outbox *box = self->outbox;
        int more = box->end - box->head > PYC_IOV_LIMIT;
        ssize_t n = outbox_send(self);
        if (n < 0) {
            pyc_stream_fatal(self, "Fatal write error on socket transport");
            return -1;
        }
        pyc_outbox_sent(&self->outbox, (size_t)n);
        if (!more || n == 0) {
            break;
        }
    }
    self->blocked = self->outbox != NULL;
    return 0;
}

int
pyc_stream_flush(pyc_stream *self)
{
    int code = outbox_flush(self);
    pyc_stream_update(self);
    return code;
}

/* ---- flow control ------------------------------------------------------ */

/* As asyncio's: in the context of whoever writes. */
static void
pause_protocol(pyc_stream *self)
{
    if (self->protocol_paused || pyc_stream_queued(self) <= self->high ||
        self->protocol == NULL) {
        return;
    }
    self->protocol_paused = 1;
    PyObject *protocol = Py_NewRef(self->protocol); /* it may replace itself */
    PyObject *result =
        PyObject_CallMethodNoArgs(protocol, self->state->str_pause_writing);
    Py_DECREF(protocol);
    if (result == NULL) {
        pyc_loop_report(self->loop, "protocol.pause_writing() failed",
                        self->protocol, (PyObject *)self);
    }
    Py_XDECREF(result);
}

static void
resume_protocol(pyc_stream *self)
{
    if (!self->protocol_paused || pyc_stream_queued(self) > self->low) {
        return;
    }
    self->protocol_paused = 0;
    PyObject *result =
        pyc_stream_tell(self, self->state->str_resume_writing, NULL);
    if (result == NULL) {
        pyc_loop_report(self->loop, "protocol.resume_writing() failed",
                        self->protocol, (PyObject *)self);
    }
    Py_XDECREF(result);
}

/* Something is queued: it goes before the next poll, or at once when it is too
 * much or nobody will poll soon. */
static void
after_push(pyc_stream *self)
{
    pyc_loop *loop = self->loop;
    if (!self->blocked) {
        size_t queued = pyc_stream_queued(self);
        if (queued > PYC_GATHER_LIMIT || queued > self->high ||
            loop->thread == 0 || loop->saved != NULL) {
            if (pyc_stream_flush(self) < 0) {
                return;
            }
        }
        else {
            pyc_loop_flush_later(loop, &self->flush);
            pyc_stream_update(self);
        }
    }
    pause_protocol(self);
}

/* Everything is sent: what was waiting for that. */
static void
outbox_emptied(pyc_stream *self)
{
    pyc_stream_tell_waiter(self, 0);
    if (self->closing) {
        if (!self->conn_lost && pyc_stream_finish(self) < 0) {
            pyc_loop_report(self->loop, "Exception in closing a transport",
                            NULL, (PyObject *)self);
        }
    }
    else if (self->eof && shutdown(self->fd, SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        pyc_stream_fatal(self, "Fatal write error on socket transport");
    }
}

void
pyc_stream_write_ready(pyc_stream *self)
{
    if (outbox_flush(self) == 0) {
        resume_protocol(self);
        if (self->outbox == NULL) {
            outbox_emptied(self);
        }
    }
    pyc_stream_update(self);
}

/* Runs before the poll. */
void
pyc_stream_flush_later(pyc_flush *flush)
{
    pyc_stream *self = pyc_container(flush, pyc_stream, flush);
    if (self->outbox == NULL || self->blocked) {
        return; /* flushed early */
    }
    Py_INCREF(self);
    pyc_stream_write_ready(self);
    Py_DECREF(self);
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
    if (self->conn_lost++ < PYC_LOST_WRITES) {
        return 0;
    }
    PyObject *result =
        PyObject_CallMethod(self->state->asyncio_logger, "warning", "s",
                            "socket.send() raised exception.");
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Queues `len` bytes at `data`, of which no more go at once. */
static int
queue_bytes(pyc_stream *self, PyObject *object, const char *data, size_t len)
{
    PyObject *owner = pyc_outbox_keeper(object, &data, len);
    if (owner == NULL ||
        pyc_outbox_push(&self->outbox, owner, data, len, 1) < 0) {
        self->blocked = self->blocked && self->outbox != NULL;
        return -1;
    }
    if (self->blocked && self->outbox->end - self->outbox->head == 1) {
        pyc_stream_update(self);
    }
    after_push(self);
    return 0;
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
        pyc_stream_fatal(self, "Fatal write error on socket transport");
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
    return queue_bytes(self, object, data, len);
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
    return queue_bytes(self, NULL, data, len);
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
    pyc_loop *elsewhere = pyc_must_pass_on(&self->loop);
    if (elsewhere != NULL) {
        return pyc_pass_on_lines((PyObject *)self, elsewhere, lines);
    }
    int code = check_write(self, "Cannot call writelines() after write_eof()",
                           "unable to writelines; sendfile is in progress");
    if (code < 0) {
        return NULL;
    }
    PyObject *list = PySequence_Fast(
        lines, "writelines() takes an iterable of bytes-like objects");
    if (list == NULL) {
        return NULL;
    }
    int first = code > 0 && pyc_stream_may_send(self);
    if (code > 0) {
        code = pyc_outbox_push_lines(&self->outbox, list);
        if (self->conn_lost) { /* the __buffer__() of a line has ended it */
            pyc_stream_drop_outbox(self);
        }
    }
    Py_DECREF(list);
    if (code < 0) {
        return NULL;
    }
    if (self->outbox != NULL && first) {
        self->wrote = self->loop->turn;
        pyc_stream_flush(self);
    }
    if (self->outbox != NULL) {
        after_push(self);
    }
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
    if (self->outbox != NULL && !self->blocked && pyc_stream_flush(self) < 0) {
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

/* ---- limits ------------------------------------------------------------ */

PyObject *
pyc_stream_set_write_buffer_limits(pyc_stream *self, PyObject *args,
                                   PyObject *kwargs)
{
    if (pyc_outbox_limits(args, kwargs, &self->high, &self->low) < 0) {
        return NULL;
    }
    if (self->outbox != NULL) {
        after_push(self);
    }
    Py_RETURN_NONE;
}

PyObject *
pyc_stream_get_write_buffer_limits(pyc_stream *self,
                                   PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->low, (Py_ssize_t)self->high);
}

/* What only waits for the end of the turn is not counted: it goes first. */
PyObject *
pyc_stream_get_write_buffer_size(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    if (pyc_must_pass_on(&self->loop) != NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_write_buffer_size() called by another thread than "
                        "the one that runs the loop");
        return NULL;
    }
    if (self->outbox != NULL && !self->blocked) {
        pyc_stream_flush(self);
    }
    return PyLong_FromSize_t(pyc_stream_queued(self));
}
