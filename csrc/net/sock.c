/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "loop/loop.h"
#include "net/sock.h"
#include "net/sock_action.h"
#include "net/sock_poll.h"

/* ---- what is left to asyncio ------------------------------------------- */

/* asyncio's own coroutine, which works on any loop: for arguments by name or of
 * the wrong type, other classes than socket.socket, names that have to be
 * resolved, and blocking sockets in debug mode. */
static PyObject *
by_asyncio(pyc_loop *self, const char *name, PyObject *const *args,
           Py_ssize_t nargs, PyObject *kwnames)
{
    enum { MOST = 8 };
    PyObject *stack[MOST] = {(PyObject *)self};
    Py_ssize_t total =
        nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    if (total >= MOST) {
        return PyErr_Format(PyExc_TypeError, "%s() got too many arguments: %zd",
                            name, total);
    }
    PyObject *method =
        PyObject_GetAttrString(self->state->SelectorEventLoop, name);
    if (method == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < total; i++) {
        stack[i + 1] = args[i];
    }
    PyObject *coroutine =
        PyObject_Vectorcall(method, stack, (size_t)nargs + 1, kwnames);
    Py_DECREF(method);
    return coroutine;
}

/* ---- the arguments ----------------------------------------------------- */

static int
is_blocking(PyObject *sock)
{
    PyObject *timeout = PyObject_CallMethod(sock, "gettimeout", NULL);
    int blocking =
        timeout == NULL || timeout == Py_None || PyFloat_AsDouble(timeout) != 0;
    PyErr_Clear();
    Py_XDECREF(timeout);
    return blocking;
}

static int
is_plain(pyc_loop *self, PyObject *const *args, Py_ssize_t nargs,
         Py_ssize_t wanted, PyObject *kwnames)
{
    return nargs == wanted && kwnames == NULL && !self->closed &&
           Py_IS_TYPE(args[0], (PyTypeObject *)self->state->socket_type) &&
           !(self->debug && is_blocking(args[0]));
}

static int
size_from(PyObject *object, Py_ssize_t *size)
{
    if (!PyLong_CheckExact(object)) {
        return 0;
    }
    *size = PyLong_AsSsize_t(object);
    if (*size == -1 && PyErr_Occurred()) {
        PyErr_Clear();
    }
    return *size >= 0;
}

/* The socket's address family; -1 when it is closed or its addresses are not
 * for us. */
static int
family_of(PyObject *sock)
{
    int fd = PyObject_AsFileDescriptor(sock), family;
    socklen_t len = sizeof(family);
    if (fd < 0) {
        PyErr_Clear();
        return -1;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len) < 0 ||
        !pyc_address_known(family)) {
        return -1;
    }
    return family;
}

static int
literal_address(PyObject *sock, PyObject *object, pyc_address *address)
{
    int family = family_of(sock);
    return family >= 0 && pyc_address_from_object(address, family, object);
}

/* ---- the methods ------------------------------------------------------- */

#define ARGS                                                                   \
    pyc_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames

static PyObject *
sock_recv(ARGS)
{
    Py_ssize_t size;
    if (!is_plain(self, args, nargs, 2, kwnames) ||
        !size_from(args[1], &size) || size == 0) {
        return by_asyncio(self, "sock_recv", args, nargs, kwnames);
    }
    return pyc_sock_op_new(self, &pyc_sock_recv, args[0], NULL, size, NULL);
}

static PyObject *
sock_recv_into(ARGS)
{
    /* Nothing is always there. */
    if (!is_plain(self, args, nargs, 2, kwnames) ||
        PyObject_Length(args[1]) <= 0) {
        PyErr_Clear();
        return by_asyncio(self, "sock_recv_into", args, nargs, kwnames);
    }
    return pyc_sock_op_new(self, &pyc_sock_recv_into, args[0], args[1], 0,
                           NULL);
}

static PyObject *
sock_recvfrom(ARGS)
{
    Py_ssize_t size;
    if (!is_plain(self, args, nargs, 2, kwnames) ||
        !size_from(args[1], &size) || family_of(args[0]) < 0) {
        return by_asyncio(self, "sock_recvfrom", args, nargs, kwnames);
    }
    return pyc_sock_op_new(self, &pyc_sock_recvfrom, args[0], NULL, size, NULL);
}

static PyObject *
sock_recvfrom_into(ARGS)
{
    Py_ssize_t size = 0;
    if (!is_plain(self, args, nargs, nargs == 3 ? 3 : 2, kwnames) ||
        (nargs == 3 && !size_from(args[2], &size)) ||
        (size > 0 && size > PyObject_Length(args[1])) ||
        family_of(args[0]) < 0) {
        PyErr_Clear();
        return by_asyncio(self, "sock_recvfrom_into", args, nargs, kwnames);
    }
    return pyc_sock_op_new(self, &pyc_sock_recvfrom_into, args[0], args[1],
                           size, NULL);
}

static PyObject *
sock_sendall(ARGS)
{
    if (!is_plain(self, args, nargs, 2, kwnames)) {
        return by_asyncio(self, "sock_sendall", args, nargs, kwnames);
    }
    return pyc_sock_op_new(self, &pyc_sock_sendall, args[0], args[1], 0, NULL);
}

static PyObject *
sock_sendto(ARGS)
{
    pyc_address address;
    if (!is_plain(self, args, nargs, 3, kwnames) ||
        !literal_address(args[0], args[2], &address)) {
        return by_asyncio(self, "sock_sendto", args, nargs, kwnames);
    }
    return pyc_sock_op_new(self, &pyc_sock_sendto, args[0], args[1], 0,
                           &address);
}

static PyObject *
sock_connect(ARGS)
{
    pyc_address address;
    if (!is_plain(self, args, nargs, 2, kwnames) ||
        !literal_address(args[0], args[1], &address)) {
        return by_asyncio(self, "sock_connect", args, nargs, kwnames);
    }
    return pyc_sock_op_new(self, &pyc_sock_connect, args[0], NULL, 0, &address);
}

static PyObject *
sock_accept(ARGS)
{
    if (!is_plain(self, args, nargs, 1, kwnames) || family_of(args[0]) < 0) {
        return by_asyncio(self, "sock_accept", args, nargs, kwnames);
    }
    return pyc_sock_op_new(self, &pyc_sock_accept, args[0], NULL, 0, NULL);
}

#define METHOD(name, doc)                                                      \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL | METH_KEYWORDS,  \
     doc}

/* The docstrings name what is asyncio's; sockets are non-blocking, else
 * ValueError in debug mode. */
static PyMethodDef sock_methods[] = {
    METHOD(sock_recv,
           "sock_recv($self, /, sock, n)\n--\n\n"
           "Receive up to n bytes from a connected socket: bytes, empty at\n"
           "the end.\n\nSource: asyncio.loop.sock_recv"),
    METHOD(sock_recv_into,
           "sock_recv_into($self, /, sock, buf)\n--\n\n"
           "Receive into a writable buffer: the number of bytes.\n\n"
           "Source: asyncio.loop.sock_recv_into"),
    METHOD(sock_recvfrom,
           "sock_recvfrom($self, /, sock, bufsize)\n--\n\n"
           "Receive a datagram of up to bufsize bytes: (bytes, address).\n\n"
           "Source: asyncio.loop.sock_recvfrom"),
    METHOD(sock_recvfrom_into,
           "sock_recvfrom_into($self, /, sock, buf, nbytes=0)\n--\n\n"
           "Receive a datagram of up to nbytes bytes (0: as many as fit)\n"
           "into a writable buffer: (number of bytes, address).\n\n"
           "Source: asyncio.loop.sock_recvfrom_into"),
    METHOD(sock_sendall,
           "sock_sendall($self, /, sock, data)\n--\n\n"
           "Send all of data, a bytes-like object, to a connected socket.\n"
           "After an error it is not known how much was sent.\n\n"
           "Source: asyncio.loop.sock_sendall"),
    METHOD(sock_sendto, "sock_sendto($self, /, sock, data, address)\n--\n\n"
                        "Send a datagram to address: the number of bytes.\n\n"
                        "Source: asyncio.loop.sock_sendto"),
    METHOD(sock_connect,
           "sock_connect($self, /, sock, address)\n--\n\n"
           "Connect to address; a host name is resolved first.\n\n"
           "Source: asyncio.loop.sock_connect"),
    METHOD(sock_accept,
           "sock_accept($self, /, sock)\n--\n\n"
           "Accept a connection: (non-blocking socket, address).\n\n"
           "Source: asyncio.loop.sock_accept"),
    {NULL},
};

int
pyc_sock_register(PyObject *module, pyc_state *state)
{
    if (pyc_sock_op_register(module, state) < 0 ||
        pyc_sock_poll_register(module, state) < 0) {
        return -1;
    }
    /* The loop's folder cannot include this one. */
    PyTypeObject *type = state->loop_type;
    for (PyMethodDef *method = sock_methods; method->ml_name; method++) {
        PyObject *descriptor = PyDescr_NewMethod(type, method);
        if (descriptor == NULL ||
            PyDict_SetItemString(type->tp_dict, method->ml_name, descriptor) <
                0) {
            Py_XDECREF(descriptor);
            return -1;
        }
        Py_DECREF(descriptor);
    }
    PyType_Modified(type);
    return 0;
}
