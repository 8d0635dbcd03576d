/* SPDX-License-Identifier: MIT */
/* What a transport tells about itself. */
#include "py/compat.h"
#include "net/pass_on.h"
#include "net/stream.h"

#include <unistd.h>

/* ---- the socket object ------------------------------------------------- */

/* A closed socket object, for whoever asks too late. */
static PyObject *
closed_socket(pyc_stream *self)
{
    int family = self->peer.family == AF_UNSPEC ? AF_UNIX : self->peer.family;
    PyObject *sock = PyObject_CallFunction(self->state->socket_type, "ii",
                                           family, SOCK_STREAM);
    PyObject *result =
        sock == NULL ? NULL : PyObject_CallMethod(sock, "close", NULL);
    if (result == NULL) {
        Py_CLEAR(sock);
    }
    Py_XDECREF(result);
    return sock;
}

/* Makes self->sock of the descriptor, unless what this calls ends the
 * connection: 0, or -1 with an exception. */
static int
make_sock(pyc_stream *self)
{
    PyObject *result;
    PyObject *sock = PyObject_CallFunction(self->state->socket_type, "iiii", -1,
                                           -1, -1, self->fd);
    /* The constructor is Python code, during which other threads run: by now
     * the number may be another's, or one of them has made the object. */
    if (self->closed || self->sock != NULL) {
        PyErr_Clear();
        result = sock == NULL ? Py_NewRef(Py_None)
                              : PyObject_CallMethod(sock, "detach", NULL);
        Py_XDECREF(sock);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    if (sock == NULL) {
        return -1;
    }
    self->sock = sock; /* the descriptor is its own from here */
    result = PyObject_CallMethod(sock, "setblocking", "i", 0);
    Py_XDECREF(result);
    if (result == NULL && self->closed) {
        PyErr_Clear();
        return 0;
    }
    return result == NULL ? -1 : 0;
}

PyObject *
pyc_stream_socket(pyc_stream *self)
{
    if (self->sock == NULL && !self->closed && make_sock(self) < 0) {
        return NULL;
    }
    if (self->sock == NULL) {
        PyObject *sock = closed_socket(self);
        if (sock == NULL) {
            return NULL;
        }
        if (self->sock != NULL) { /* as above */
            Py_DECREF(sock);
        }
        else {
            self->sock = sock;
        }
    }
    return self->sock;
}

/* ---- extra information ------------------------------------------------- */

static PyObject *
address_by_socket(pyc_stream *self, const char *method)
{
    PyObject *sock = pyc_stream_socket(self);
    PyObject *name =
        sock == NULL ? NULL : PyObject_CallMethod(sock, method, NULL);
    if (name == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return name;
}

static PyObject *
address_by(pyc_stream *self, const char *method,
           int (*ask)(int, struct sockaddr *, socklen_t *))
{
    pyc_address address = {.len = sizeof(address.u)};
    if (self->closed || ask(self->fd, &address.u.any, &address.len) < 0) {
        Py_RETURN_NONE;
    }
    if (pyc_address_known(address.u.any.sa_family)) {
        return pyc_address_to_object(&address);
    }
    return address_by_socket(self, method);
}

static PyObject *
make_sockname(pyc_stream *self)
{
    return address_by(self, "getsockname", getsockname);
}

static PyObject *
make_peername(pyc_stream *self)
{
    pyc_address address;
    if (self->peer.family == AF_INET) {
        address.u.in = self->peer.in;
        address.len = sizeof(self->peer.in);
    }
    else if (self->peer.family == AF_INET6) {
        address.u.in6 = self->peer.in6;
        address.len = sizeof(self->peer.in6);
    }
    else {
        return address_by(self, "getpeername", getpeername);
    }
    return pyc_address_to_object(&address);
}

static PyObject *
make_socket(pyc_stream *self)
{
    PyObject *sock = pyc_stream_socket(self);
    return sock == NULL
               ? NULL
               : PyObject_CallOneArg(self->state->TransportSocket, sock);
}

/* self->extra[name], made if it is one of ours: a new reference, or NULL,
 * without an exception when there is nothing of that name. */
static PyObject *
find_extra(pyc_stream *self, PyObject *name)
{
    PyObject *value = NULL;
    if (self->extra == NULL && (self->extra = PyDict_New()) == NULL) {
        return NULL;
    }
    value = PyObject_GetItem(self->extra, name);
    if (value != NULL || !PyErr_ExceptionMatches(PyExc_KeyError)) {
        return value;
    }
    PyErr_Clear();
    if (!PyUnicode_Check(name)) {
        return NULL;
    }
    if (PyUnicode_CompareWithASCIIString(name, "peername") == 0) {
        value = make_peername(self);
    }
    else if (PyUnicode_CompareWithASCIIString(name, "sockname") == 0) {
        value = make_sockname(self);
    }
    else if (PyUnicode_CompareWithASCIIString(name, "socket") == 0) {
        value = make_socket(self);
    }
    if (value != NULL && PyObject_SetItem(self->extra, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

void
pyc_stream_keep_names(pyc_stream *self)
{
    pyc_state *state = self->state;
    PyObject *raised = pyc_take_exception();
    PYC_BEGIN_CRITICAL_SECTION(self);
    PyObject *name = find_extra(self, state->str_sockname);
    Py_XDECREF(name);
    if (self->peer.family == AF_UNSPEC) {
        name = find_extra(self, state->str_peername);
        Py_XDECREF(name);
    }
    PYC_END_CRITICAL_SECTION();
    PyErr_Clear();
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
}

PyObject *
pyc_stream_get_extra_info(pyc_stream *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "default", NULL};
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names,
                                     &name, &fallback)) {
        return NULL;
    }
    PyObject *value;
    PYC_BEGIN_CRITICAL_SECTION(self);
    value = find_extra(self, name);
    PYC_END_CRITICAL_SECTION();
    return value == NULL && !PyErr_Occurred() ? Py_NewRef(fallback) : value;
}

static PyObject *
all_extra(pyc_stream *self)
{
    static const char *const names[] = {"peername", "sockname", "socket"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        PyObject *value = name == NULL ? NULL : find_extra(self, name);
        Py_XDECREF(name);
        if (value == NULL) {
            return NULL;
        }
        Py_DECREF(value);
    }
    return Py_NewRef(self->extra);
}

static PyObject *
get_extra(pyc_stream *self, void *Py_UNUSED(closure))
{
    PyObject *extra;
    PYC_BEGIN_CRITICAL_SECTION(self);
    extra = all_extra(self);
    PYC_END_CRITICAL_SECTION();
    return extra;
}

static PyObject *
get_sock(pyc_stream *self, void *Py_UNUSED(closure))
{
    PyObject *sock;
    PYC_BEGIN_CRITICAL_SECTION(self);
    sock = Py_XNewRef(self->closed ? Py_None : pyc_stream_socket(self));
    PYC_END_CRITICAL_SECTION();
    return sock;
}

PyGetSetDef pyc_stream_getset[] = {
    {"_extra", (getter)get_extra, NULL, NULL, NULL},
    {"_sock", (getter)get_sock, NULL, NULL, NULL},
    PYC_TRANSPORT_GETSET,
    PYC_FIELD("_server", pyc_stream, server),
    PYC_FIELD("_empty_waiter", pyc_stream, empty_waiter),
    {NULL},
};

/* ---- repr() ------------------------------------------------------------ */

PyObject *
pyc_stream_repr(pyc_stream *self)
{
    const char *state = self->closed ? " closed" : "";
    /* First: the loop's thread lets go of it at any moment. */
    int elsewhere = pyc_is_passed_on((PyObject *)self, &self->loop);
    if (!self->closed && self->closing) {
        state = " closing";
    }
    PyObject *result, *name = PyType_GetName(Py_TYPE(self));
    if (name == NULL) {
        return NULL;
    }
    if (elsewhere || self->loop == NULL || self->loop->closed) {
        result = PyUnicode_FromFormat("<%U%s fd=%d>", name, state, self->fd);
    }
    else {
        result = PyUnicode_FromFormat(
            "<%U%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state,
            self->fd, pyc_stream_reading(self) ? "polling" : "idle",
            self->blocked ? "polling" : "idle", pyc_outbox_bytes(self->outbox));
    }
    Py_DECREF(name);
    return result;
}
