/* SPDX-License-Identifier: MIT */
/* A connection's life: made, begun, closed, lost. */
#include "py/compat.h"
#include "net/stream.h"
#include "net/net.h"
#include "net/tls/tls.h"

#include <netinet/tcp.h>
#include <unistd.h>

static void stream_ready(pyc_watcher *watcher, int events);
static const pyc_transport_kind stream_kind;

/* ---- the protocol ------------------------------------------------------ */

int
pyc_stream_set_protocol(pyc_stream *self, PyObject *protocol)
{
    int buffered =
        PyObject_IsInstance(protocol, self->state->asyncio_BufferedProtocol);
    if (buffered < 0) {
        return -1;
    }
    self->buffered = (char)buffered;
    self->filter =
        Py_IS_TYPE(protocol, self->state->tls_type) ? pyc_tls_received : NULL;
    pyc_callback_clear(&self->receive);
    pyc_callback_clear(&self->buffer);
    PYC_FIELD_SET(self, protocol, Py_NewRef(protocol));
    return 0;
}

PyObject *
pyc_stream_tell(pyc_stream *self, PyObject *name, PyObject *arg)
{
    return pyc_tell(self->protocol, self->context, name, arg);
}

void
pyc_stream_fatal(pyc_stream *self, const char *message)
{
    if (self->loop == NULL) { /* a nested run has ended the connection */
        PyErr_WriteUnraisable((PyObject *)self);
        return;
    }
    PyObject *exc = pyc_take_exception();
    int quits = PyErr_GivenExceptionMatches(exc, PyExc_SystemExit) ||
                PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt);
    if (quits || !PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        pyc_put_exception(Py_NewRef(exc));
        pyc_loop_report(self->loop, message, self->protocol, (PyObject *)self);
    }
    if (!quits && pyc_stream_force_close(self, exc) < 0) {
        pyc_loop_report(self->loop, message, self->protocol, (PyObject *)self);
    }
    Py_DECREF(exc);
}

/* ---- watching ---------------------------------------------------------- */

void
pyc_stream_update(pyc_stream *self)
{
    int events = 0;
    if (pyc_stream_reading(self)) {
        events |= UV_READABLE;
    }
    if (self->blocked) {
        events |= UV_WRITABLE;
    }
    if (pyc_transport_watch(&self->base, events) < 0) {
        pyc_stream_fatal(self, "Fatal error: the socket cannot be watched");
        return;
    }
    pyc_transport_hold(&self->base);
}

static void
stream_ready(pyc_watcher *watcher, int events)
{
    pyc_stream *self = watcher->owner;
    Py_INCREF(self);
    if (events & UV_READABLE) { /* asked for only while it reads */
        pyc_stream_read(self);
    }
    if ((events & UV_WRITABLE) && self->blocked) {
        pyc_transport_write_ready(&self->base);
    }
    if (PYC_UNLIKELY(self->watcher != NULL && self->watcher->events == 0)) {
        pyc_stream_update(self); /* an error has ended the poll */
    }
    Py_DECREF(self);
}

/* ---- for the base ------------------------------------------------------ */

static void
stream_update(pyc_transport *self)
{
    pyc_stream_update((pyc_stream *)self);
}

static void
stream_fatal(pyc_transport *self, const char *message)
{
    pyc_stream_fatal((pyc_stream *)self, message);
}

static const pyc_transport_kind stream_kind = {
    .send = pyc_stream_send_pieces,
    .emptied = pyc_stream_emptied,
    .fatal = stream_fatal,
    .update = stream_update,
    .ready = stream_ready,
    .write_failed = "Fatal write error on socket transport",
};

/* ---- the end ----------------------------------------------------------- */

static int
close_descriptor(pyc_stream *self, PyObject *sock)
{
    if (sock == NULL) {
        close(self->fd);
        return 0;
    }
    PyObject *result = PyObject_CallMethod(sock, "close", NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
stream_detach(pyc_stream *self)
{
    PyObject *server = Py_XNewRef(self->server), *result;
    int code = 0;
    PYC_FIELD_SET(self, server, NULL);
    if (self->clients != NULL) {
        code = pyc_clients_discard(self);
    }
    else if (server != NULL) {
        result = PyObject_CallMethod(server, "_detach",
                                     PYC_SERVER_CLIENT_FORMAT, self);
        code = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    Py_XDECREF(server);
    return code;
}

int
pyc_stream_release(pyc_stream *self)
{
    PyObject *raised = NULL;
    pyc_transport_unwatch(&self->base);
    pyc_link_remove(&self->flush.link);
    self->closing = 1;
    self->conn_lost += self->conn_lost == 0;
    if (!self->closed) {
        pyc_stream_keep_names(self);
    }
    int closed;
    PyObject *sock;
    /* Others may be making self->sock, from here on one that is closed. */
    PYC_BEGIN_CRITICAL_SECTION(self);
    closed = self->closed;
    self->closed = 1;
    sock = self->sock;
    PYC_END_CRITICAL_SECTION();
    if (!closed && close_descriptor(self, sock) < 0) {
        raised = pyc_take_exception();
    }
    int code = stream_detach(self);
    if (raised != NULL) {
        PyErr_Clear();
        pyc_put_exception(raised);
        code = -1;
    }
    pyc_transport_drop_outbox(&self->base);
    return code;
}

/* asyncio's _call_connection_lost(). */
static void
stream_lost(pyc_loop *loop, PyObject *arg)
{
    pyc_stream *self = (pyc_stream *)arg;
    PyObject *exc = self->lost_exc == NULL ? Py_None : self->lost_exc;
    pyc_transport_tell(&self->base, self->state->str_connection_lost, exc,
                       "Exception in callback connection_lost()");
    if (pyc_stream_release(self) < 0) {
        pyc_loop_report(loop, "Exception in closing a transport", NULL, arg);
    }
    pyc_stream_tell_waiter(self, 1);
    Py_CLEAR(self->lost_exc);
    pyc_callback_clear(&self->receive);
    pyc_callback_clear(&self->buffer);
    PYC_FIELD_SET(self, protocol, NULL);
    Py_CLEAR(self->context);
    PYC_FIELD_SET(self, loop, NULL);
}

int
pyc_stream_finish(pyc_stream *self)
{
    self->conn_lost++;
    if (pyc_loop_check_usable(self->loop) < 0) {
        return -1;
    }
    return pyc_loop_soon(self->loop, stream_lost, (PyObject *)self);
}

int
pyc_stream_force_close(pyc_stream *self, PyObject *exc)
{
    if (self->conn_lost) {
        return 0;
    }
    self->closing = 1;
    pyc_transport_drop_outbox(&self->base);
    pyc_stream_update(self);
    Py_XSETREF(self->lost_exc, Py_XNewRef(exc));
    return pyc_stream_finish(self);
}

int
pyc_stream_close(pyc_stream *self)
{
    if (self->closing) {
        return 0;
    }
    self->closing = 1;
    if (self->outbox != NULL && !self->blocked) {
        pyc_transport_flush(&self->base);
    }
    pyc_stream_update(self);
    if (self->outbox == NULL && !self->conn_lost) {
        return pyc_stream_finish(self);
    }
    return 0;
}

/* ---- the beginning ----------------------------------------------------- */

static void
peer_from(pyc_stream *self, const pyc_address *peer)
{
    if (peer->u.any.sa_family == AF_INET) {
        self->peer.in = peer->u.in;
    }
    else if (peer->u.any.sa_family == AF_INET6) {
        self->peer.in6 = peer->u.in6;
    }
}

pyc_stream *
pyc_stream_new(PyTypeObject *type, pyc_loop *loop, int fd, PyObject *context)
{
    pyc_stream *self = (pyc_stream *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    pyc_transport_fill(&self->base, &stream_kind, loop);
    self->context = Py_NewRef(context);
    self->fd = fd;
    self->gathers = 1;
    pyc_link_init(&self->client);
    return self;
}

pyc_stream *
pyc_stream_accepted(pyc_loop *loop, int fd, const pyc_address *peer,
                    PyObject *context)
{
    pyc_stream *self =
        pyc_stream_new(loop->state->stream_type, loop, fd, context);
    if (self != NULL) {
        peer_from(self, peer);
    }
    return self;
}

void
pyc_stream_attach(pyc_stream *self, PyObject *server, pyc_clients *clients)
{
    self->server = Py_NewRef(server);
    pyc_clients_add(clients, self);
}

static void
look_at_socket(pyc_stream *self)
{
    pyc_address peer = {.len = sizeof(peer.u)};
    int family = AF_UNSPEC, one = 1;
    socklen_t size = sizeof(family);
    if (getpeername(self->fd, &peer.u.any, &peer.len) == 0) {
        family = peer.u.any.sa_family;
        peer_from(self, &peer);
    }
    else {
        getsockopt(self->fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    }
    if (family == AF_INET || family == AF_INET6) {
        setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
}

static int
attach_to(pyc_stream *self, PyObject *server)
{
    PyObject *clients = PyObject_GetAttrString(server, "_clients");
    if (clients != NULL && Py_IS_TYPE(clients, self->state->clients_type)) {
        pyc_stream_attach(self, server, (pyc_clients *)clients);
        Py_DECREF(clients);
        return 0;
    }
    PyErr_Clear();
    Py_XDECREF(clients);
    PyObject *result =
        PyObject_CallMethod(server, "_attach", PYC_SERVER_CLIENT_FORMAT, self);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    self->server = Py_NewRef(server);
    return 0;
}

int
pyc_stream_open(pyc_stream *self, PyObject *sock, PyObject *protocol,
                PyObject *waiter, PyObject *server)
{
    if (pyc_stream_set_protocol(self, protocol) < 0 ||
        (server != Py_None && attach_to(self, server) < 0)) {
        return -1;
    }
    self->sock = Py_NewRef(sock);
    look_at_socket(self);
    return pyc_transport_begin_soon(&self->base, waiter);
}
