/* SPDX-License-Identifier: MIT */
/* From the program to the pipe: at once when nothing is queued, and what
 * follows in the same turn together, before the loop polls again. */
#include "py/compat.h"
#include "net/pass_on.h"
#include "net/pipe.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAILED "Fatal write error on pipe transport"

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

/* Sends until the pipe takes no more. 0, or -1 when it failed. */
static int
outbox_flush(pyc_pipe *self)
{
    unsigned limit = self->gathers ? PYC_IOV_LIMIT : 1;
    while (self->outbox != NULL) {
        pyc_outbox *box = self->outbox;
        unsigned before = pyc_outbox_len(box);
        unsigned len = before < limit ? before : limit;
        ssize_t n = send_some(self, box->iov + box->head, len);
        if (n < 0) {
            pyc_pipe_fatal(self, FAILED);
            return -1;
        }
        pyc_outbox_sent(&self->outbox, (size_t)n);
        if (pyc_outbox_len(self->outbox) > before - len) {
            break;
        }
    }
    self->blocked = self->outbox != NULL;
    return 0;
}

int
pyc_pipe_flush(pyc_pipe *self)
{
    int code = outbox_flush(self);
    pyc_pipe_update(self);
    return code;
}

/* ---- flow control ------------------------------------------------------ */

/* As asyncio's: in the context of whoever writes. */
static void
pause_protocol(pyc_pipe *self)
{
    if (self->protocol_paused || self->protocol == NULL ||
        pyc_outbox_bytes(self->outbox) <= self->high) {
        return;
    }
    self->protocol_paused = 1;
    PyObject *protocol = Py_NewRef(self->protocol); /* it may replace itself */
    PyObject *result =
        PyObject_CallMethodNoArgs(protocol, self->state->str_pause_writing);
    Py_DECREF(protocol);
    if (result == NULL) {
        pyc_pipe_report(self, "protocol.pause_writing() failed");
    }
    Py_XDECREF(result);
}

static void
resume_protocol(pyc_pipe *self)
{
    if (self->protocol_paused && pyc_outbox_bytes(self->outbox) <= self->low) {
        self->protocol_paused = 0;
        pyc_pipe_tell(self, self->state->str_resume_writing, NULL,
                      "protocol.resume_writing() failed");
    }
}

/* Something is queued: it goes before the next poll, or at once when it is too
 * much or nobody will poll soon. */
static void
after_push(pyc_pipe *self)
{
    pyc_loop *loop = self->loop;
    if (!self->blocked) {
        size_t queued = pyc_outbox_bytes(self->outbox);
        if (queued > PYC_GATHER_LIMIT || queued > self->high ||
            !self->gathers || loop->thread == 0 || loop->saved != NULL) {
            if (pyc_pipe_flush(self) < 0) {
                return;
            }
        }
        else {
            pyc_loop_flush_later(loop, &self->flush);
            pyc_pipe_update(self);
        }
    }
    pause_protocol(self);
}

void
pyc_pipe_write_ready(pyc_pipe *self)
{
    if (outbox_flush(self) == 0) {
        resume_protocol(self);
        if (self->outbox == NULL && self->closing && !self->lost &&
            pyc_pipe_finish(self, NULL) < 0) {
            pyc_pipe_report(self, "Exception in closing a transport");
        }
    }
    if (self->loop != NULL) {
        pyc_pipe_update(self);
    }
}

/* Runs before the poll. */
void
pyc_pipe_flush_later(pyc_flush *flush)
{
    pyc_pipe *self = pyc_container(flush, pyc_pipe, flush);
    if (self->outbox == NULL || self->blocked) {
        return; /* flushed early */
    }
    Py_INCREF(self);
    pyc_pipe_write_ready(self);
    Py_DECREF(self);
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
    if (self->dropped++ < PYC_LOST_WRITES) {
        return 0;
    }
    PyObject *result = PyObject_CallMethod(
        self->state->asyncio_logger, "warning", "s",
        "pipe closed by peer or os.write(pipe, data) raised exception.");
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
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
            pyc_pipe_fatal(self, FAILED);
            return 0;
        }
        data += n;
        len -= (size_t)n;
        self->blocked = 1;
    }
    PyObject *owner = pyc_outbox_keeper(object, &data, len);
    if (owner == NULL ||
        pyc_outbox_push(&self->outbox, owner, data, len, 1) < 0) {
        self->blocked = self->blocked && self->outbox != NULL;
        return -1;
    }
    if (self->blocked && pyc_outbox_len(self->outbox) == 1) {
        pyc_pipe_update(self);
    }
    after_push(self);
    return 0;
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

PyObject *
pyc_pipe_writelines(pyc_pipe *self, PyObject *lines)
{
    pyc_loop *elsewhere = pyc_must_pass_on(&self->loop);
    if (elsewhere != NULL) {
        return pyc_pass_on_lines((PyObject *)self, elsewhere, lines);
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
    Py_DECREF(list);
    if (code < 0) {
        return NULL;
    }
    if (self->outbox != NULL && first) {
        self->wrote = self->loop->turn;
        pyc_pipe_flush(self);
    }
    if (self->outbox != NULL) {
        after_push(self);
    }
    Py_RETURN_NONE;
}

/* ---- limits ------------------------------------------------------------ */

PyObject *
pyc_pipe_set_write_buffer_limits(pyc_pipe *self, PyObject *args,
                                 PyObject *kwargs)
{
    if (pyc_outbox_limits(args, kwargs, &self->high, &self->low) < 0) {
        return NULL;
    }
    if (pyc_must_pass_on(&self->loop) == NULL && self->outbox != NULL) {
        after_push(self);
    }
    Py_RETURN_NONE;
}

PyObject *
pyc_pipe_get_write_buffer_limits(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->low, (Py_ssize_t)self->high);
}

/* What only waits for the end of the turn is not counted: it goes first. */
PyObject *
pyc_pipe_get_write_buffer_size(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    if (pyc_must_pass_on(&self->loop) != NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_write_buffer_size() called by another thread than "
                        "the one that runs the loop");
        return NULL;
    }
    if (self->outbox != NULL && !self->blocked) {
        pyc_pipe_flush(self);
    }
    return PyLong_FromSize_t(pyc_outbox_bytes(self->outbox));
}
