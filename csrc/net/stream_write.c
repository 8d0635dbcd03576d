/* SPDX-License-Identifier: MIT */
/* From the program to the socket: at once when nothing is queued, and what
 * follows in the same turn together, before the loop polls again. */
#include "py/compat.h"
#include "net/pass_on.h"
#include "net/stream.h"

#include <errno.h>

#define GATHER_LIMIT (64 * 1024) /* bytes queued before they are sent early */
#define IOV_LIMIT 1024           /* the kernel's UIO_MAXIOV */
#define OUTBOX_MIN 16
/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
#define LOST_WRITES 5

/* ---- the outbox -------------------------------------------------------- */

/* Room for `more` of them; 0, or -1 with MemoryError. */
static int
outbox_grow(pyc_stream *self, size_t more)
{
    pyc_outbox *old = self->outbox;
    unsigned len = old == NULL ? 0 : old->end - old->head;
    size_t size = OUTBOX_MIN;
    while (size < len + more) {
        size *= 2;
    }
    pyc_outbox *box = PyMem_Malloc(
        sizeof(*box) + size * (sizeof(struct iovec) + sizeof(PyObject *)));
    if (box == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *box = (pyc_outbox){.bytes = pyc_stream_queued(self),
                        .end = len,
                        .size = (unsigned)size,
                        .owners = (PyObject **)&box->iov[size]};
    if (old != NULL) {
        memcpy(box->iov, old->iov + old->head, len * sizeof(box->iov[0]));
        memcpy(box->owners, old->owners + old->head,
               len * sizeof(box->owners[0]));
        PyMem_Free(old);
    }
    self->outbox = box;
    return 0;
}

/* Takes `owner`, a reference, in any case; `more` of them are to come, this one
 * counted. 0, or -1 with MemoryError. */
static int
outbox_push(pyc_stream *self, PyObject *owner, const char *data, size_t len,
            size_t more)
{
    pyc_outbox *box = self->outbox;
    if (box == NULL || box->end == box->size) {
        if (outbox_grow(self, more) < 0) {
            Py_DECREF(owner);
            return -1;
        }
        box = self->outbox;
    }
    box->owners[box->end] = owner;
    box->iov[box->end++] = (struct iovec){(char *)data, len};
    box->bytes += len;
    return 0;
}

/* Forgets the first n bytes, and the outbox with the last of them. */
static void
outbox_sent(pyc_stream *self, size_t n)
{
    pyc_outbox *box = self->outbox;
    box->bytes -= n;
    if (box->bytes == 0) {
        pyc_stream_drop_outbox(self);
        return;
    }
    while (n >= box->iov[box->head].iov_len) {
        n -= box->iov[box->head].iov_len;
        Py_DECREF(box->owners[box->head++]);
    }
    box->iov[box->head].iov_base = (char *)box->iov[box->head].iov_base + n;
    box->iov[box->head].iov_len -= n;
}

void
pyc_stream_drop_outbox(pyc_stream *self)
{
    pyc_outbox *box = self->outbox;
    self->blocked = 0;
    if (box == NULL) {
        return;
    }
    self->outbox = NULL;
    while (box->head < box->end) {
        Py_DECREF(box->owners[box->head++]);
    }
    PyMem_Free(box);
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
                             .msg_iovlen = len < IOV_LIMIT ? len : IOV_LIMIT};
    return sent(sendmsg(self->fd, &message, MSG_NOSIGNAL));
}

/* Sends until the socket takes no more. 0, or -1 when the connection failed. */
static int
outbox_flush(pyc_stream *self)
{
    while (self->outbox != NULL) {
        pyc_outbox *box = self->outbox;
        int more = box->end - box->head > IOV_LIMIT;
        ssize_t n = outbox_send(self);
        if (n < 0) {
            pyc_stream_fatal(self, "Fatal write error on socket transport");
            return -1;
        }
        outbox_sent(self, (size_t)n);
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
        if (queued > GATHER_LIMIT || queued > self->high || loop->thread == 0 ||
            loop->saved != NULL) {
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
    if (self->empty_waiter != NULL) {
        PyObject *result =
            PyObject_CallMethod(self->empty_waiter, "set_result", "O", Py_None);
        if (result == NULL) {
            pyc_loop_report(self->loop, "Exception in sendfile", NULL,
                            (PyObject *)self);
        }
        Py_XDECREF(result);
    }
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
    if (self->conn_lost++ < LOST_WRITES) {
        return 0;
    }
    PyObject *result =
        PyObject_CallMethod(self->state->asyncio_logger, "warning", "s",
                            "socket.send() raised exception.");
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* An object that keeps the `len` bytes at *data as they are now, as a new
 * reference: `object` itself or the bytes behind a memoryview, else a copy,
 * to which *data then points. */
static PyObject *
keeper_of(PyObject *object, const char **data, size_t len)
{
    if (PyBytes_CheckExact(object)) {
        return Py_NewRef(object);
    }
    if (PyMemoryView_Check(object)) {
        PyObject *base = PyMemoryView_GET_BASE(object);
        if (base != NULL && PyBytes_CheckExact(base)) {
            return Py_NewRef(base);
        }
    }
    PyObject *copy = PyBytes_FromStringAndSize(*data, (Py_ssize_t)len);
    if (copy != NULL) {
        *data = PyBytes_AS_STRING(copy);
    }
    return copy;
}

/* Sends what of `len` bytes at `data` goes and queues the rest. */
static int
write_bytes(pyc_stream *self, PyObject *object, const char *data, size_t len)
{
    if (pyc_stream_may_send(self)) {
        ssize_t n = sent(send(self->fd, data, len, MSG_NOSIGNAL));
        if (PYC_LIKELY((size_t)n == len)) {
            self->wrote = self->loop->turn;
            return 0;
        }
        if (n < 0) {
            pyc_stream_fatal(self, "Fatal write error on socket transport");
            return 0;
        }
        data += n;
        len -= (size_t)n;
        self->blocked = 1;
    }
    PyObject *owner = keeper_of(object, &data, len);
    if (owner == NULL || outbox_push(self, owner, data, len, 1) < 0) {
        self->blocked = self->blocked && self->outbox != NULL;
        return -1;
    }
    if (self->blocked && self->outbox->end - self->outbox->head == 1) {
        pyc_stream_update(self);
    }
    after_push(self);
    return 0;
}

static PyObject *
write_any(pyc_stream *self, PyObject *object)
{
    Py_buffer view;
    if (!PyBytes_Check(object) && !PyByteArray_Check(object) &&
        !PyMemoryView_Check(object)) {
        PyObject *name = PyType_GetName(Py_TYPE(object));
        if (name != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "data argument must be a bytes-like object, not %R",
                         name);
            Py_DECREF(name);
        }
        return NULL;
    }
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0) {
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

/* Queues one of `more` lines. */
static int
push_line(pyc_stream *self, PyObject *line, size_t more)
{
    Py_buffer view;
    PyObject *owner = NULL;
    int code = 0;
    if (PYC_LIKELY(PyBytes_CheckExact(line))) {
        size_t len = (size_t)PyBytes_GET_SIZE(line);
        return len == 0 ? 0
                        : outbox_push(self, Py_NewRef(line),
                                      PyBytes_AS_STRING(line), len, more);
    }
    if (PyObject_GetBuffer(line, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    const char *data = view.buf;
    size_t len = (size_t)view.len;
    if (len > 0) {
        owner = keeper_of(line, &data, len);
        code = owner == NULL ? -1 : outbox_push(self, owner, data, len, more);
    }
    PyBuffer_Release(&view);
    return code;
}

/* Takes back all but the first `len` of the outbox. */
static void
outbox_cut(pyc_stream *self, unsigned len)
{
    pyc_outbox *box = self->outbox;
    if (box == NULL) {
        return;
    }
    while (box->end - box->head > len) {
        box->bytes -= box->iov[--box->end].iov_len;
        Py_DECREF(box->owners[box->end]);
    }
    if (len == 0) {
        pyc_stream_drop_outbox(self);
    }
}

/* All of them or, with an exception, none. */
static int
push_lines(pyc_stream *self, PyObject *list)
{
    unsigned before =
        self->outbox == NULL ? 0 : self->outbox->end - self->outbox->head;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list); i++) {
        PyObject *line = Py_NewRef(PySequence_Fast_GET_ITEM(list, i));
        int code =
            push_line(self, line, (size_t)(PySequence_Fast_GET_SIZE(list) - i));
        Py_DECREF(line);
        if (code < 0) {
            outbox_cut(self, before);
            return -1;
        }
    }
    return 0;
}

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
        code = push_lines(self, list);
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

/* A limit as asyncio compares it: any number. */
static int
limit_from(PyObject *object, Py_ssize_t *limit)
{
    if (PyFloat_Check(object)) {
        double value = PyFloat_AS_DOUBLE(object);
        *limit = value >= (double)PY_SSIZE_T_MAX ? PY_SSIZE_T_MAX
                                                 : (Py_ssize_t)value;
        return 0;
    }
    *limit = PyNumber_AsSsize_t(object, NULL);
    return *limit == -1 && PyErr_Occurred() ? -1 : 0;
}

PyObject *
pyc_stream_set_write_buffer_limits(pyc_stream *self, PyObject *args,
                                   PyObject *kwargs)
{
    static char *names[] = {"high", "low", NULL};
    PyObject *high_object = Py_None, *low_object = Py_None;
    Py_ssize_t high = PYC_HIGH_WATER, low;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs,
                                     "|OO:set_write_buffer_limits", names,
                                     &high_object, &low_object)) {
        return NULL;
    }
    if (low_object != Py_None && limit_from(low_object, &low) < 0) {
        return NULL;
    }
    if (high_object != Py_None) {
        if (limit_from(high_object, &high) < 0) {
            return NULL;
        }
    }
    else if (low_object != Py_None) {
        high = low > PY_SSIZE_T_MAX / 4 ? PY_SSIZE_T_MAX : 4 * low;
    }
    if (low_object == Py_None) {
        low = high / 4;
    }
    if (low < 0 || high < low) {
        return PyErr_Format(PyExc_ValueError,
                            "high (%zd) must be >= low (%zd) must be >= 0",
                            high, low);
    }
    self->high = (size_t)high;
    self->low = (size_t)low;
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
