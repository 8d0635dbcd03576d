/* SPDX-License-Identifier: MIT */
/* The accept loop of one listening socket. */
#include "py/compat.h"
#include "net/stream.h"
#include "net/net.h"
#include "net/tls/tls.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    pyc_loop *loop;
    pyc_watcher *watcher;
    PyObject *sock;
    PyObject *factory;
    PyObject *server;
    pyc_clients *clients; /* of the server, or NULL */
    PyObject *context;
    PyObject *slow; /* what loop._accept_slowly() needs, or None */
    PyObject
        *tls; /* (sslcontext, handshake timeout, shutdown timeout) or None */
    int fd;
    unsigned backlog; /* connections in one turn at most */
    unsigned burst;   /* connections to expect in this turn */
} pyc_listener;

/* ---- accepting --------------------------------------------------------- */

static const char failed[] =
    "Error on transport creation for incoming connection";

/* The protocol of a new connection and its connection_made(). 0, or -1 with an
 * exception: there is no protocol. */
static int
begin(pyc_listener *self, pyc_stream *stream)
{
    int entered = pyc_stream_enter(stream->context);
    PyObject *protocol = PyObject_CallNoArgs(self->factory);
    pyc_stream_leave(stream->context, entered);
    if (protocol != NULL && self->tls != Py_None) {
        Py_SETREF(protocol, pyc_tls_accepted(self->loop, protocol, self->tls,
                                             stream->context));
    }
    if (protocol == NULL) {
        return -1;
    }
    int code = pyc_stream_set_protocol(stream, protocol);
    Py_DECREF(protocol);
    if (code == 0) {
        if (self->clients != NULL) {
            pyc_stream_attach(stream, self->server, self->clients);
        }
        pyc_transport_begin(&stream->base);
    }
    return code;
}

/* Makes the transport of an accepted descriptor. */
static void
connect_plain(pyc_listener *self, int fd, const pyc_address *peer)
{
    PyObject *context = PyContext_Copy(self->context);
    pyc_stream *stream = NULL;
    if (context != NULL) {
        stream = pyc_stream_accepted(self->loop, fd, peer, context);
        Py_DECREF(context);
    }
    if (stream == NULL) {
        close(fd);
    }
    if (stream == NULL || begin(self, stream) < 0) {
        pyc_loop_report(self->loop, failed, NULL, NULL);
        if (stream != NULL) {
            pyc_stream_release(stream);
        }
    }
    Py_XDECREF(stream);
}

/* A connection that needs more than a transport is made in Python, which owns
 * the descriptor from here. */
static void
connect_slowly(pyc_listener *self, int fd)
{
    PyObject *result = PyObject_CallMethod((PyObject *)self->loop,
                                           "_accept_slowly", "Oi", self, fd);
    if (result == NULL) {
        pyc_loop_report(self->loop, failed, NULL, NULL);
    }
    Py_XDECREF(result);
}

/* accept() failed for a reason other than that nobody waits. */
static void
accept_failed(pyc_listener *self, int error)
{
    PyObject *exc, *result = NULL;
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    if (error != EMFILE && error != ENFILE && error != ENOBUFS &&
        error != ENOMEM) {
        pyc_loop_report(self->loop, "Exception in accepting a connection", NULL,
                        NULL);
        return;
    }
    exc = pyc_take_exception();
    if (exc != NULL) {
        result = PyObject_CallMethod((PyObject *)self->loop, "_accept_failed",
                                     "OO", self, exc);
        Py_DECREF(exc);
    }
    if (result == NULL) {
        pyc_loop_report(self->loop, "Exception in accepting a connection", NULL,
                        NULL);
    }
    Py_XDECREF(result);
}

/* 1 when a connection came, 0 when there is none or none may come. */
static int
accept_one(pyc_listener *self)
{
    pyc_address peer = {.len = sizeof(peer.u)};
    int fd =
        accept4(self->fd, &peer.u.any, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR &&
            errno != ECONNABORTED) {
            accept_failed(self, errno);
        }
        return 0;
    }
    if (self->slow != Py_None) {
        connect_slowly(self, fd);
    }
    else {
        connect_plain(self, fd, &peer);
    }
    return 1;
}

/* As many as came in the last turns are tried, not one more: what is left is
 * told again, and most turns have one. */
static void
listener_ready(pyc_watcher *watcher, int events)
{
    pyc_listener *self = watcher->owner;
    unsigned count = 0;
    Py_INCREF(self);
    while (count < self->burst && self->watcher != NULL && accept_one(self)) {
        count++;
    }
    if (count == self->burst) {
        count *= 2;
    }
    self->burst = count == 0 ? 1 : count;
    if (self->burst > self->backlog) {
        self->burst = self->backlog;
    }
    if (self->watcher != NULL && self->watcher->events == 0 &&
        pyc_watcher_set(self->watcher, UV_READABLE) < 0) {
        pyc_loop_report(self->loop, "Exception in accepting a connection", NULL,
                        NULL);
    }
    Py_DECREF(self);
}

/* ---- the object -------------------------------------------------------- */

static void
unwatch(pyc_listener *self)
{
    if (self->watcher != NULL) {
        pyc_watcher *watcher = self->watcher;
        self->watcher = NULL;
        pyc_watcher_close(watcher);
    }
}

static int
watch(pyc_listener *self)
{
    if (self->watcher == NULL) {
        self->watcher =
            pyc_watcher_open(self->loop, self->fd, listener_ready, self);
        if (self->watcher == NULL) {
            return -1;
        }
        self->watcher->keep = Py_NewRef(self);
    }
    return pyc_watcher_set(self->watcher, UV_READABLE);
}

static int
take_server(pyc_listener *self, PyObject *server)
{
    if (server == Py_None || self->slow != Py_None) {
        self->server = Py_NewRef(server);
        return 0;
    }
    PyObject *clients = PyObject_GetAttrString(server, "_clients");
    if (clients == NULL) {
        return -1;
    }
    if (!Py_IS_TYPE(clients, self->loop->state->clients_type)) {
        PyErr_Format(PyExc_TypeError, "%R is not a server of pyconc", server);
        Py_DECREF(clients);
        return -1;
    }
    self->server = Py_NewRef(server);
    self->clients = (pyc_clients *)clients;
    return 0;
}

/* Accepted sockets take the option over from the listening one. */
static void
set_nodelay(int fd)
{
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static PyObject *
listener_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *loop, *sock, *factory, *server, *slow, *tls, *context;
    int backlog;
    if (!PyArg_ParseTuple(args, "OOOOiOOO:Listener", &loop, &sock, &factory,
                          &server, &backlog, &slow, &tls, &context)) {
        return NULL;
    }
    pyc_listener *self = (pyc_listener *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->loop = pyc_loop_from(pyc_state_of_type(type), loop);
    if (self->loop == NULL) {
        goto fail;
    }
    Py_INCREF(self->loop);
    self->sock = Py_NewRef(sock);
    self->factory = Py_NewRef(factory);
    self->context = Py_NewRef(context);
    self->slow = Py_NewRef(slow);
    self->tls = Py_NewRef(tls);
    self->backlog = backlog > 0 ? (unsigned)backlog : 1;
    self->burst = 1;
    self->fd = PyObject_AsFileDescriptor(sock);
    if (self->fd < 0 || take_server(self, server) < 0) {
        goto fail;
    }
    if (!PyContext_CheckExact(context)) {
        PyErr_Format(PyExc_TypeError, "context must be a Context, not %R",
                     context);
        goto fail;
    }
    set_nodelay(self->fd);
    if (watch(self) < 0) {
        goto fail;
    }
    return (PyObject *)self;
fail:
    Py_DECREF(self);
    return NULL;
}

static int
listener_traverse(pyc_listener *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->factory);
    Py_VISIT(self->server);
    Py_VISIT(self->clients);
    Py_VISIT(self->context);
    Py_VISIT(self->slow);
    Py_VISIT(self->tls);
    return 0;
}

static int
listener_clear(pyc_listener *self)
{
    unwatch(self);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->server);
    Py_CLEAR(self->clients);
    Py_CLEAR(self->context);
    Py_CLEAR(self->slow);
    Py_CLEAR(self->tls);
    return 0;
}

static PyObject *
listener_pause(pyc_listener *self, PyObject *Py_UNUSED(ignored))
{
    unwatch(self);
    Py_RETURN_NONE;
}

/* Clients whose connection is there already are served, not reset: a loop that
 * had much to do may not have polled since they came. */
static PyObject *
listener_close(pyc_listener *self, PyObject *Py_UNUSED(ignored))
{
    unsigned left = self->loop->thread == 0 ? 0 : self->backlog;
    while (left > 0 && self->watcher != NULL && accept_one(self)) {
        left--;
    }
    unwatch(self);
    Py_RETURN_NONE;
}

static PyObject *
listener_resume(pyc_listener *self, PyObject *Py_UNUSED(ignored))
{
    if (watch(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef listener_methods[] = {
    {"pause", (PyCFunction)listener_pause, METH_NOARGS,
     "pause($self, /)\n--\n\nAccepts nothing until resume()."},
    {"close", (PyCFunction)listener_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "Accepts what has connected so far, and nothing any more."},
    {"resume", (PyCFunction)listener_resume, METH_NOARGS,
     "resume($self, /)\n--\n\nAccepts again."},
    {NULL},
};

static PyMemberDef listener_members[] = {
    {"sock", T_OBJECT, offsetof(pyc_listener, sock), READONLY, NULL},
    {"factory", T_OBJECT, offsetof(pyc_listener, factory), READONLY, NULL},
    {"server", T_OBJECT, offsetof(pyc_listener, server), READONLY, NULL},
    {"context", T_OBJECT, offsetof(pyc_listener, context), READONLY, NULL},
    {"slow", T_OBJECT, offsetof(pyc_listener, slow), READONLY, NULL},
    {NULL},
};

PyDoc_STRVAR(
    listener_doc,
    "Listener(loop, sock, factory, server, backlog, slow, tls, context, "
    "/)\n--\n\n"
    "Accepts the connections of a listening socket, up to backlog in one "
    "turn,\n"
    "each with a protocol of factory() and a copy of context. Unless slow is\n"
    "None, loop._accept_slowly(listener, fd) makes them. Unless tls is None, "
    "they\n"
    "have TLS: (sslcontext, handshake timeout, shutdown timeout).\n");

static PyType_Slot listener_slots[] = {
    {Py_tp_doc, (void *)listener_doc}, {Py_tp_new, listener_new},
    {Py_tp_dealloc, pyc_dealloc},      {Py_tp_traverse, listener_traverse},
    {Py_tp_clear, listener_clear},     {Py_tp_methods, listener_methods},
    {Py_tp_members, listener_members}, {0, NULL},
};

static PyType_Spec listener_spec = {
    .name = "pyconc._core.Listener",
    .basicsize = sizeof(pyc_listener),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = listener_slots,
};

int
pyc_listener_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &listener_spec, NULL, &state->listener_type);
}
