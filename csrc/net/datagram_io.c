/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/datagram.h"
#include "net/field.h"

#include <errno.h>

enum {
    /* What one event may read before other descriptors get their turn. */
    READS_PER_EVENT = 64,
    /* What a queued datagram counts besides its data. */
    HEADER_SIZE = 8,
    /* Dropped sends before the first warning, asyncio's number. */
    QUIET_DROPS = 5,
};

/* ---- calls of the protocol --------------------------------------------- */

static int
call_protocol(pyc_datagram *self, PyObject *name, PyObject *arg)
{
    /* It may replace itself. */
    PyObject *args[2] = {Py_NewRef(self->protocol), arg};
    PyObject *result = PyObject_VectorcallMethod(
        name, args, (arg == NULL ? 1 : 2) | PY_VECTORCALL_ARGUMENTS_OFFSET,
        NULL);
    Py_DECREF(args[0]);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static void
report(pyc_datagram *self, const char *message)
{
    pyc_loop_report(self->loop, message, self->protocol, (PyObject *)self);
}

/* Runs in the transport's context. Where that is entered already, by a loop
 * that runs inside a callback, the callback's is used. */
static int
enter_context(pyc_datagram *self)
{
    if (PyContext_Enter(self->context) < 0) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

static void
leave_context(pyc_datagram *self, int entered)
{
    if (entered) {
        PyContext_Exit(self->context);
    }
}

/* ---- closing ----------------------------------------------------------- */

int
pyc_datagram_update(pyc_datagram *self)
{
    if (self->watcher == NULL) {
        return 0;
    }
    return pyc_watcher_set(
        self->watcher,
        (pyc_datagram_is_reading(self) ? UV_READABLE : 0) |
            (pyc_ring_len(&self->queue) > 0 && !self->lost ? UV_WRITABLE : 0));
}

void
pyc_datagram_clear_queue(pyc_datagram *self)
{
    while (pyc_ring_len(&self->queue) > 0) {
        pyc_ring_item item = pyc_ring_pop(&self->queue);
        Py_XDECREF((PyObject *)item.run);
        Py_DECREF((PyObject *)item.what);
    }
    self->queued = 0;
}

void
pyc_datagram_close_watcher(pyc_datagram *self)
{
    pyc_watcher *watcher = self->watcher;
    self->watcher = NULL;
    if (watcher != NULL) {
        pyc_watcher_close(watcher);
    }
}

void
pyc_datagram_close_socket(pyc_datagram *self)
{
    PyObject *sock = Py_NewRef(self->sock);
    PYC_FIELD_SET(self, sock, NULL);
    pyc_datagram_close_watcher(self);
    PyObject *result = PyObject_CallMethod(sock, "close", NULL);
    Py_DECREF(sock);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(result);
}

static void
connection_lost(pyc_loop *loop, PyObject *op)
{
    pyc_datagram *self = (pyc_datagram *)op;
    if (self->sock == NULL) {
        return;
    }
    /* The watcher, too, had a reference. */
    Py_INCREF(self);
    PyObject *error = self->error == NULL ? Py_NewRef(Py_None) : self->error;
    self->error = NULL;
    int entered = enter_context(self);
    if (call_protocol(self, self->state->str_connection_lost, error) < 0) {
        report(self, "Exception in protocol.connection_lost()");
    }
    leave_context(self, entered);
    Py_DECREF(error);
    pyc_datagram_clear_queue(self);
    pyc_datagram_close_socket(self);
    pyc_peers_clear(&self->peers);
    PYC_FIELD_SET(self, protocol, NULL);
    Py_DECREF(self);
}

/* Has connection_lost() called soon, with `error` (stolen; may be NULL). */
static int
lose(pyc_datagram *self, PyObject *error)
{
    self->lost++;
    Py_XSETREF(self->error, error);
    if (pyc_loop_check_usable(self->loop) < 0 ||
        pyc_loop_soon(self->loop, connection_lost, (PyObject *)self) < 0) {
        return -1;
    }
    return pyc_datagram_update(self);
}

int
pyc_datagram_force_close(pyc_datagram *self, PyObject *error)
{
    if (self->lost) {
        Py_XDECREF(error);
        return 0;
    }
    pyc_datagram_clear_queue(self);
    self->closing = 1;
    return lose(self, error);
}

/* Takes the exception now raised, which is no OSError, and closes. 0, or -1
 * with one that ends the loop. */
static int
fatal_error(pyc_datagram *self, const char *message)
{
    if (PyErr_ExceptionMatches(PyExc_SystemExit) ||
        PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        return -1;
    }
    PyObject *error = pyc_take_exception();
    pyc_put_exception(Py_NewRef(error));
    report(self, message);
    return pyc_datagram_force_close(self, error);
}

static void
update_or_fail(pyc_datagram *self)
{
    if (pyc_datagram_update(self) < 0 &&
        fatal_error(self, "Fatal error on datagram transport") < 0) {
        report(self, "Exception in a datagram transport");
    }
}

/* Tells the protocol about an OSError; any other exception is fatal. 0, or -1
 * with an exception. */
static int
handle_error(pyc_datagram *self, const char *message)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return fatal_error(self, message);
    }
    PyObject *error = pyc_take_exception();
    int code = call_protocol(self, self->state->str_error_received, error);
    Py_DECREF(error);
    return code;
}

/* ---- flow control ------------------------------------------------------ */

void
pyc_datagram_maybe_pause(pyc_datagram *self)
{
    if (self->queued <= self->high || self->protocol_paused ||
        self->protocol == NULL) {
        return;
    }
    self->protocol_paused = 1;
    if (call_protocol(self, self->state->str_pause_writing, NULL) < 0) {
        report(self, "protocol.pause_writing() failed");
    }
}

static void
maybe_resume_protocol(pyc_datagram *self)
{
    if (!self->protocol_paused || self->queued > self->low ||
        self->protocol == NULL) {
        return;
    }
    self->protocol_paused = 0;
    if (call_protocol(self, self->state->str_resume_writing, NULL) < 0) {
        report(self, "protocol.resume_writing() failed");
    }
}

/* ---- reading ----------------------------------------------------------- */

enum { FAILED = -1, BLOCKED = 0, DONE = 1 };

static int
would_block(void)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
        PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return 1;
    }
    return 0;
}

/* Families whose addresses only the socket module knows. */
static int
receive_by_socket(pyc_datagram *self, PyObject **data, PyObject **address)
{
    PyObject *pair =
        PyObject_CallMethod(self->sock, "recvfrom", "i", (int)PYC_SCRATCH_SIZE);
    if (pair == NULL) {
        return would_block() ? BLOCKED : FAILED;
    }
    int ok = PyArg_ParseTuple(pair, "OO", data, address);
    if (ok) {
        Py_INCREF(*data);
        Py_INCREF(*address);
    }
    Py_DECREF(pair);
    return ok ? DONE : FAILED;
}

static int
receive(pyc_datagram *self, PyObject **data, PyObject **from)
{
    if (!pyc_address_known(self->family)) {
        return receive_by_socket(self, data, from);
    }
    char *buffer = pyc_loop_scratch(self->loop);
    if (buffer == NULL) {
        return FAILED;
    }
    pyc_address address;
    ssize_t n;
    do {
        address.len = sizeof(address.u);
        n = recvfrom(self->fd, buffer, PYC_SCRATCH_SIZE, 0, &address.u.any,
                     &address.len);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return BLOCKED;
        }
        PyErr_SetFromErrno(PyExc_OSError);
        return FAILED;
    }
    *data = PyBytes_FromStringAndSize(buffer, n);
    if (*data == NULL) {
        return FAILED;
    }
    *from = pyc_peers_to_object(&self->peers, &address);
    if (*from == NULL) {
        Py_CLEAR(*data);
        return FAILED;
    }
    return DONE;
}

/* Takes both references. */
static int
deliver(pyc_datagram *self, PyObject *data, PyObject *from)
{
    PyObject *args[3] = {Py_NewRef(self->protocol), data, from};
    PyObject *result =
        PyObject_VectorcallMethod(self->state->str_datagram_received, args,
                                  3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[0]);
    Py_DECREF(data);
    Py_DECREF(from);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static void
on_readable(pyc_datagram *self)
{
    for (int i = 0; i < READS_PER_EVENT && pyc_datagram_is_reading(self); i++) {
        PyObject *data, *from;
        int code = receive(self, &data, &from);
        if (code == BLOCKED) {
            return;
        }
        if (code == DONE) {
            code = deliver(self, data, from);
        }
        else {
            code = handle_error(self, "Fatal read error on datagram transport");
        }
        if (code < 0) {
            report(self, "Exception in datagram protocol");
            return;
        }
    }
}

/* ---- writing ----------------------------------------------------------- */

static int
send_by_socket(pyc_datagram *self, PyObject *data, PyObject *address)
{
    PyObject *n = PyObject_CallMethod(self->sock, "sendto", "OO", data,
                                      address == NULL ? Py_None : address);
    if (n == NULL) {
        return would_block() ? BLOCKED : FAILED;
    }
    Py_DECREF(n);
    return DONE;
}

static int
send_bytes(pyc_datagram *self, const void *bytes, size_t size,
           const pyc_address *to)
{
    ssize_t n;
    do {
        n = to == NULL ? send(self->fd, bytes, size, MSG_NOSIGNAL)
                       : sendto(self->fd, bytes, size, MSG_NOSIGNAL, &to->u.any,
                                to->len);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        return DONE;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return BLOCKED;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return FAILED;
}

/* `address` may be NULL. */
static int
send_one(pyc_datagram *self, PyObject *data, PyObject *address)
{
    pyc_address buffer, *to = NULL;
    if (!self->connected) {
        if (address == NULL || !pyc_peers_from_object(&self->peers, &buffer,
                                                      self->family, address)) {
            return send_by_socket(self, data, address);
        }
        to = &buffer;
    }
    if (PyBytes_Check(data)) {
        return send_bytes(self, PyBytes_AS_STRING(data),
                          (size_t)PyBytes_GET_SIZE(data), to);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return FAILED;
    }
    int code = send_bytes(self, view.buf, (size_t)view.len, to);
    PyBuffer_Release(&view);
    return code;
}

static const char WRITE_ERROR[] = "Fatal write error on datagram transport";

/* Sends the first of the queue. */
static int
flush_one(pyc_datagram *self)
{
    pyc_ring *queue = &self->queue;
    pyc_ring_item *head = &queue->items[queue->head & queue->mask];
    PyObject *data = Py_NewRef((PyObject *)head->what);
    PyObject *address = Py_XNewRef((PyObject *)head->run);
    int code = send_one(self, data, address);
    if (code != BLOCKED && !self->lost) {
        pyc_ring_pop(queue);
        self->queued -= PyBytes_GET_SIZE(data) + HEADER_SIZE;
        Py_DECREF(data);
        Py_XDECREF(address);
    }
    if (code == FAILED) {
        code = handle_error(self, WRITE_ERROR) < 0 ? FAILED : DONE;
    }
    Py_DECREF(data);
    Py_XDECREF(address);
    return code;
}

static void
on_writable(pyc_datagram *self)
{
    int code = DONE;
    while (code == DONE && !self->lost && pyc_ring_len(&self->queue) > 0) {
        code = flush_one(self);
    }
    if (code == FAILED) {
        report(self, "Exception in datagram protocol");
    }
    maybe_resume_protocol(self);
    if (self->closing && !self->lost && pyc_ring_len(&self->queue) == 0) {
        self->lost++;
        connection_lost(self->loop, (PyObject *)self);
    }
}

static int
enqueue(pyc_datagram *self, PyObject *data, PyObject *address)
{
    /* What waits here must not change. */
    PyObject *bytes = PyBytes_FromObject(data);
    if (bytes == NULL) {
        return -1;
    }
    if (pyc_ring_push(&self->queue, address, bytes) < 0) {
        Py_DECREF(bytes);
        PyErr_NoMemory();
        return -1;
    }
    Py_XINCREF(address);
    self->queued += PyBytes_GET_SIZE(bytes) + HEADER_SIZE;
    if (pyc_datagram_update(self) < 0) {
        return -1;
    }
    pyc_datagram_maybe_pause(self);
    return 0;
}

/* A datagram for which there is nobody any more. */
static int
drop(pyc_datagram *self)
{
    if (self->lost++ < QUIET_DROPS) {
        return 0;
    }
    PyObject *result =
        PyObject_CallMethod(self->state->asyncio_logger, "warning", "s",
                            "socket.send() raised exception.");
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
pyc_datagram_send(pyc_datagram *self, PyObject *data, PyObject *address)
{
    if (PYC_UNLIKELY(self->lost) &&
        (self->address != NULL || self->sock == NULL)) {
        return drop(self);
    }
    if (PYC_LIKELY(pyc_ring_len(&self->queue) == 0)) {
        int sent = send_one(self, data, address);
        if (PYC_LIKELY(sent == DONE)) {
            return 0;
        }
        if (sent == FAILED) {
            return handle_error(self, WRITE_ERROR);
        }
    }
    if (PYC_UNLIKELY(self->lost)) {
        return drop(self); /* nothing is flushed any more */
    }
    return enqueue(self, data, address);
}

/* ---- the loop calls ---------------------------------------------------- */

static int
wake_waiter(pyc_datagram *self)
{
    PyObject *waiter = self->waiter;
    self->waiter = NULL;
    int code = 0;
    PyObject *cancelled = PyObject_CallMethod(waiter, "cancelled", NULL);
    if (cancelled == Py_False) {
        PyObject *result =
            PyObject_CallMethod(waiter, "set_result", "O", Py_None);
        code = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    Py_DECREF(waiter);
    Py_XDECREF(cancelled);
    return cancelled == NULL ? -1 : code;
}

void
pyc_datagram_start(pyc_loop *loop, PyObject *op)
{
    pyc_datagram *self = (pyc_datagram *)op;
    int entered = enter_context(self);
    if (call_protocol(self, self->state->str_connection_made, op) < 0) {
        report(self, "Exception in protocol.connection_made()");
    }
    self->started = 1;
    update_or_fail(self);
    if (self->waiter != NULL && wake_waiter(self) < 0) {
        report(self, "Exception in a waiter of a datagram transport");
    }
    leave_context(self, entered);
}

void
pyc_datagram_ready(pyc_watcher *watcher, int events)
{
    pyc_datagram *self = watcher->owner;
    Py_INCREF(self);
    int entered = enter_context(self);
    if (events & UV_READABLE) {
        on_readable(self);
    }
    if ((events & UV_WRITABLE) && !self->lost) {
        on_writable(self);
    }
    leave_context(self, entered);
    /* An error has stopped the poll. */
    update_or_fail(self);
    Py_DECREF(self);
}

int
pyc_datagram_close(pyc_datagram *self)
{
    if (self->closing) {
        return 0;
    }
    self->closing = 1;
    return pyc_ring_len(&self->queue) > 0 ? pyc_datagram_update(self)
                                          : lose(self, NULL);
}
