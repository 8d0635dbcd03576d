/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/datagram.h"
#include "net/field.h"
#include "net/pass_on.h"

#include <errno.h>

enum { DEFAULT_HIGH = 64 * 1024 };

/* ---- making ------------------------------------------------------------ */

/* Whether send() without an address is what the socket wants: 1, 0, or -1 with
 * an exception. */
static int
is_connected(pyc_datagram *self)
{
    PyObject *peer = PyDict_GetItemString(self->extra, "peername");
    if (peer == NULL || peer == Py_None) {
        return 0;
    }
    /* The peer of a Unix socket pair has an empty name. */
    return self->family == AF_UNIX ? 1 : PyObject_IsTrue(peer);
}

/* The borrowed arguments of the constructor. */
typedef struct {
    PyObject *loop;
    PyObject *sock;
    PyObject *protocol;
    PyObject *address;
    PyObject *waiter;
    PyObject *extra;
    PyObject *context;
} init_args;

static PyObject *
none_is_null(PyObject *object)
{
    return object == Py_None ? NULL : Py_XNewRef(object);
}

static int
look_at_socket(pyc_datagram *self)
{
    self->fd = PyObject_AsFileDescriptor(self->sock);
    if (self->fd < 0) {
        return -1;
    }
    socklen_t len = sizeof(self->family);
    if (getsockopt(self->fd, SOL_SOCKET, SO_DOMAIN, &self->family, &len) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    int connected = is_connected(self);
    self->connected = connected > 0;
    return connected < 0 ? -1 : 0;
}

static int
fill(pyc_datagram *self, const init_args *args)
{
    self->loop = pyc_loop_from(self->state, args->loop);
    if (self->loop == NULL) {
        return -1;
    }
    Py_INCREF(self->loop);
    self->extra =
        args->extra == Py_None ? PyDict_New() : Py_NewRef(args->extra);
    self->context = args->context == Py_None ? PyContext_CopyCurrent()
                                             : Py_NewRef(args->context);
    if (self->extra == NULL || self->context == NULL) {
        return -1;
    }
    self->protocol = Py_NewRef(args->protocol);
    self->address = none_is_null(args->address);
    self->waiter = none_is_null(args->waiter);
    self->high = DEFAULT_HIGH;
    self->low = DEFAULT_HIGH / 4;
    self->sock = Py_NewRef(args->sock);
    if (look_at_socket(self) < 0) {
        return -1;
    }
    self->watcher =
        pyc_watcher_open(self->loop, self->fd, pyc_datagram_ready, self);
    return self->watcher == NULL ? -1 : 0;
}

static PyObject *
datagram_new(PyTypeObject *type, PyObject *positional, PyObject *keywords)
{
    static char *names[] = {"loop",   "sock",  "protocol", "address",
                            "waiter", "extra", "context",  NULL};
    init_args args = {.address = Py_None,
                      .waiter = Py_None,
                      .extra = Py_None,
                      .context = Py_None};
    if (!PyArg_ParseTupleAndKeywords(
            positional, keywords, "OOO|OOOO:DatagramTransport", names,
            &args.loop, &args.sock, &args.protocol, &args.address, &args.waiter,
            &args.extra, &args.context)) {
        return NULL;
    }
    if (args.extra != Py_None && !PyDict_Check(args.extra)) {
        return PyErr_Format(PyExc_TypeError, "extra must be a dict, not %R",
                            args.extra);
    }
    if (args.context != Py_None && !PyContext_CheckExact(args.context)) {
        return PyErr_Format(PyExc_TypeError,
                            "context must be a contextvars.Context, not %R",
                            args.context);
    }
    pyc_datagram *self = (pyc_datagram *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = pyc_state_of_type(type);
    if (self->state == NULL || fill(self, &args) < 0 ||
        pyc_loop_soon(self->loop, pyc_datagram_start, (PyObject *)self) < 0) {
        /* The socket stays the caller's. */
        Py_CLEAR(self->sock);
        Py_DECREF(self);
        return NULL;
    }
    self->watcher->keep = Py_NewRef(self);
    return (PyObject *)self;
}

/* asyncio.BaseTransport's would take the arguments for its own. */
static int
datagram_init(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(args),
              PyObject *Py_UNUSED(keywords))
{
    return 0;
}

/* ---- ending ------------------------------------------------------------ */

static void
datagram_finalize(PyObject *op)
{
    pyc_datagram *self = (pyc_datagram *)op;
    if (self->sock == NULL) {
        return;
    }
    PyObject *error = PyErr_Occurred() ? pyc_take_exception() : NULL;
    if (PyErr_ResourceWarning(op, 1, "unclosed transport %R", op) < 0) {
        PyErr_WriteUnraisable(op);
    }
    pyc_datagram_close_socket(self);
    if (error != NULL) {
        pyc_put_exception(error);
    }
}

static int
datagram_traverse(PyObject *op, visitproc visit, void *arg)
{
    pyc_datagram *self = (pyc_datagram *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->extra);
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->protocol);
    Py_VISIT(self->address);
    Py_VISIT(self->context);
    Py_VISIT(self->waiter);
    Py_VISIT(self->error);
    for (size_t i = self->queue.head; i != self->queue.tail; i++) {
        Py_VISIT((PyObject *)self->queue.items[i & self->queue.mask].run);
    }
    return 0;
}

static int
datagram_clear(PyObject *op)
{
    pyc_datagram *self = (pyc_datagram *)op;
    pyc_datagram_close_watcher(self);
    pyc_datagram_clear_queue(self);
    pyc_peers_clear(&self->peers);
    Py_CLEAR(self->extra);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->address);
    Py_CLEAR(self->context);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->error);
    Py_CLEAR(self->loop);
    return 0;
}

static void
datagram_dealloc(PyObject *op)
{
    if (PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    pyc_datagram *self = (pyc_datagram *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    datagram_clear(op);
    pyc_ring_free(&self->queue);
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- sending ----------------------------------------------------------- */

static int
check_address(pyc_datagram *self, PyObject *address)
{
    if (address == NULL || address == self->address) {
        return 0;
    }
    int same = PyObject_RichCompareBool(address, self->address, Py_EQ);
    if (same == 0) {
        PyErr_Format(PyExc_ValueError,
                     "Invalid address: must be None or %S, not %R",
                     self->address, address);
    }
    return same > 0 ? 0 : -1;
}

/* sendto(data, addr=None) with keywords among the arguments. */
static int
sendto_keywords(PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                PyObject *both[2])
{
    static const char *const known[2] = {"data", "addr"};
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int at = 0;
        while (at < 2 &&
               PyUnicode_CompareWithASCIIString(name, known[at]) != 0) {
            at++;
        }
        if (at == 2 || both[at] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         at == 2 ? "sendto() got an unexpected keyword "
                                   "argument %R"
                                 : "sendto() got multiple values for "
                                   "argument %R",
                         name);
            return -1;
        }
        both[at] = args[nargs + i];
    }
    return 0;
}

PyDoc_STRVAR(
    sendto_doc,
    "sendto($self, /, data, addr=None)\n--\n\n"
    "Send a datagram now, or as soon as the socket takes it.\n\n"
    "data is bytes, a bytearray or a memoryview, and may be empty; what has\n"
    "to wait is copied first unless it is bytes. addr is the destination,\n"
    "None for the one the transport was made with: any other is a ValueError\n"
    "then. An OSError goes to the protocol's error_received(). Same as\n"
    "asyncio.DatagramTransport.sendto().");

static PyObject *
datagram_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                PyObject *names)
{
    pyc_datagram *self = (pyc_datagram *)op;
    PyObject *both[2] = {NULL, NULL}; /* data, address */
    if (nargs > 2) {
        return PyErr_Format(PyExc_TypeError,
                            "sendto() takes 1 or 2 arguments (%zd given)",
                            nargs);
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        both[i] = args[i];
    }
    if (names != NULL && sendto_keywords(args, nargs, names, both) < 0) {
        return NULL;
    }
    PyObject *data = both[0], *address = both[1];
    if (data == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "sendto() missing its argument 'data'");
        return NULL;
    }
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        return PyErr_Format(
            PyExc_TypeError,
            "data argument must be a bytes-like object, not '%s'",
            Py_TYPE(data)->tp_name);
    }
    pyc_loop *elsewhere = pyc_must_pass_on((PyObject *)self, &self->loop);
    if (elsewhere != NULL) {
        return pyc_pass_on(op, elsewhere, "sendto", both,
                           1 + (both[1] != NULL));
    }
    if (address == Py_None) {
        address = NULL;
    }
    if (self->address != NULL) {
        if (check_address(self, address) < 0) {
            return NULL;
        }
        address = self->address;
    }
    if (pyc_datagram_send(self, data, address) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- the rest of the transport ----------------------------------------- */

PyDoc_STRVAR(close_doc,
             "close($self, /)\n--\n\n"
             "Stop reading, send what is queued, then close the socket and\n"
             "call the protocol's connection_lost(None). Same as\n"
             "asyncio.BaseTransport.close().");

static PyObject *
datagram_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON((pyc_datagram *)op, "close");
    if (pyc_datagram_close((pyc_datagram *)op) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(abort_doc, "abort($self, /)\n--\n\n"
                        "Close without sending what is queued. Same as\n"
                        "asyncio.DatagramTransport.abort().");

static PyObject *
datagram_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON((pyc_datagram *)op, "abort");
    if (pyc_datagram_force_close((pyc_datagram *)op, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(is_closing_doc,
             "is_closing($self, /)\n--\n\n"
             "Whether the transport is closed or about to be. Same as\n"
             "asyncio.BaseTransport.is_closing().");

static PyObject *
datagram_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((pyc_datagram *)op)->closing);
}

PyDoc_STRVAR(set_protocol_doc,
             "set_protocol($self, protocol, /)\n--\n\n"
             "Have another protocol called from now on. Same as\n"
             "asyncio.BaseTransport.set_protocol().");

static PyObject *
datagram_set_protocol(PyObject *op, PyObject *protocol)
{
    PYC_PASS_ON_WITH((pyc_datagram *)op, "set_protocol", protocol);
    PYC_FIELD_SET((pyc_datagram *)op, protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_protocol_doc,
             "get_protocol($self, /)\n--\n\n"
             "The protocol, or None once the transport is closed. Same as\n"
             "asyncio.BaseTransport.get_protocol().");

static PyObject *
datagram_get_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return pyc_field_get(op, &((pyc_datagram *)op)->protocol);
}

PyDoc_STRVAR(is_reading_doc, "is_reading($self, /)\n--\n\n"
                             "Whether datagrams are being received. Same as\n"
                             "asyncio.ReadTransport.is_reading().");

static PyObject *
datagram_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    pyc_datagram *self = (pyc_datagram *)op;
    return PyBool_FromLong(!self->closing && !self->paused);
}

static PyObject *
set_paused(PyObject *op, char paused)
{
    pyc_datagram *self = (pyc_datagram *)op;
    self->paused = paused;
    if (pyc_datagram_update(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(pause_reading_doc,
             "pause_reading($self, /)\n--\n\n"
             "Leave datagrams with the kernel until resume_reading(). Same\n"
             "as asyncio.ReadTransport.pause_reading().");

static PyObject *
datagram_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON((pyc_datagram *)op, "pause_reading");
    return set_paused(op, 1);
}

PyDoc_STRVAR(resume_reading_doc,
             "resume_reading($self, /)\n--\n\n"
             "Receive again. Same as asyncio.ReadTransport.resume_reading().");

static PyObject *
datagram_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON((pyc_datagram *)op, "resume_reading");
    return set_paused(op, 0);
}

PyDoc_STRVAR(get_size_doc,
             "get_write_buffer_size($self, /)\n--\n\n"
             "Bytes that wait to be sent, 8 more for each datagram. Same as\n"
             "asyncio.WriteTransport.get_write_buffer_size().");

static PyObject *
datagram_get_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSsize_t(((pyc_datagram *)op)->queued);
}

PyDoc_STRVAR(get_limits_doc,
             "get_write_buffer_limits($self, /)\n--\n\n"
             "The limits (low, high) in bytes. Same as\n"
             "asyncio.WriteTransport.get_write_buffer_limits().");

static PyObject *
datagram_get_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    pyc_datagram *self = (pyc_datagram *)op;
    return Py_BuildValue("(nn)", self->low, self->high);
}

PyDoc_STRVAR(
    set_limits_doc,
    "set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
    "When the protocol's pause_writing() and resume_writing() are called:\n"
    "more than high bytes wait, low or fewer do. The defaults are 64 KiB\n"
    "and a quarter of high; ValueError unless high >= low >= 0. Same as\n"
    "asyncio.WriteTransport.set_write_buffer_limits().");

static int
limit_from(PyObject *object, Py_ssize_t otherwise, Py_ssize_t *limit)
{
    *limit = object == Py_None ? otherwise : PyNumber_AsSsize_t(object, NULL);
    return *limit == -1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *
datagram_set_limits(PyObject *op, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"high", "low", NULL};
    pyc_datagram *self = (pyc_datagram *)op;
    PyObject *high = Py_None, *low = Py_None;
    Py_ssize_t least, most;
    if (!PyArg_ParseTupleAndKeywords(args, keywords,
                                     "|OO:set_write_buffer_limits", names,
                                     &high, &low) ||
        limit_from(low, DEFAULT_HIGH / 4, &least) < 0 ||
        limit_from(high, least > PY_SSIZE_T_MAX / 4 ? least : 4 * least,
                   &most) < 0) {
        return NULL;
    }
    if (low == Py_None) {
        least = most / 4;
    }
    if (most < least || least < 0) {
        return PyErr_Format(PyExc_ValueError,
                            "high (%zd) must be >= low (%zd) must be >= 0",
                            most, least);
    }
    self->high = most;
    self->low = least;
    if (!pyc_is_passed_on((PyObject *)self, &self->loop)) {
        pyc_datagram_maybe_pause(self);
    }
    Py_RETURN_NONE;
}

static PyObject *
datagram_repr(PyObject *op)
{
    pyc_datagram *self = (pyc_datagram *)op;
    const char *name = strrchr(Py_TYPE(op)->tp_name, '.');
    name = name == NULL ? Py_TYPE(op)->tp_name : name + 1;
    if (self->sock == NULL) {
        return PyUnicode_FromFormat("<%s closed fd=%d>", name, self->fd);
    }
    return PyUnicode_FromFormat(
        "<%s%s fd=%d read=%s write=<%s, bufsize=%zd>>", name,
        self->closing ? " closing" : "", self->fd,
        pyc_datagram_is_reading(self) ? "polling" : "idle",
        pyc_ring_len(&self->queue) > 0 ? "polling" : "idle", self->queued);
}

/* ---- the type ---------------------------------------------------------- */

static PyMethodDef datagram_methods[] = {
    {"sendto", (PyCFunction)(void (*)(void))datagram_sendto,
     METH_FASTCALL | METH_KEYWORDS, sendto_doc},
    {"close", datagram_close, METH_NOARGS, close_doc},
    {"abort", datagram_abort, METH_NOARGS, abort_doc},
    {"is_closing", datagram_is_closing, METH_NOARGS, is_closing_doc},
    {"set_protocol", datagram_set_protocol, METH_O, set_protocol_doc},
    {"get_protocol", datagram_get_protocol, METH_NOARGS, get_protocol_doc},
    {"is_reading", datagram_is_reading, METH_NOARGS, is_reading_doc},
    {"pause_reading", datagram_pause_reading, METH_NOARGS, pause_reading_doc},
    {"resume_reading", datagram_resume_reading, METH_NOARGS,
     resume_reading_doc},
    {"get_write_buffer_size", datagram_get_size, METH_NOARGS, get_size_doc},
    {"get_write_buffer_limits", datagram_get_limits, METH_NOARGS,
     get_limits_doc},
    {"set_write_buffer_limits",
     (PyCFunction)(void (*)(void))datagram_set_limits,
     METH_VARARGS | METH_KEYWORDS, set_limits_doc},
    {NULL},
};

static PyMemberDef datagram_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(pyc_datagram, weakrefs),
     READONLY},
    {"_sock_fd", T_INT, offsetof(pyc_datagram, fd), READONLY},
    {NULL},
};

static PyGetSetDef datagram_getset[] = {
    PYC_FIELD("_loop", pyc_datagram, loop),
    PYC_FIELD("_sock", pyc_datagram, sock),
    PYC_FIELD("_protocol", pyc_datagram, protocol),
    PYC_FIELD("_address", pyc_datagram, address),
    {NULL},
};

PyDoc_STRVAR(datagram_doc,
             "DatagramTransport(loop, sock, protocol, address=None, "
             "waiter=None, extra=None, context=None)\n--\n\n"
             "The transport of loop.create_datagram_endpoint(). sock is a\n"
             "non-blocking datagram socket, address the only destination if\n"
             "not None, waiter a future resolved after connection_made(),\n"
             "extra the dict behind get_extra_info(), context where callbacks\n"
             "run (None: a copy of the current one).");

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, (void *)datagram_doc}, {Py_tp_new, datagram_new},
    {Py_tp_init, datagram_init},       {Py_tp_finalize, datagram_finalize},
    {Py_tp_dealloc, datagram_dealloc}, {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},     {Py_tp_repr, datagram_repr},
    {Py_tp_methods, datagram_methods}, {Py_tp_members, datagram_members},
    {Py_tp_getset, datagram_getset},   {0, NULL},
};

static PyType_Spec datagram_spec = {
    .name = "pyconc._core.DatagramTransport",
    .basicsize = sizeof(pyc_datagram),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = datagram_slots,
};

int
pyc_datagram_register(PyObject *module, pyc_state *state)
{
    PyTypeObject *base = (PyTypeObject *)state->asyncio_DatagramTransport;
    if (base->tp_basicsize != offsetof(pyc_datagram, weakrefs)) {
        PyErr_Format(PyExc_ImportError,
                     "asyncio.DatagramTransport has %zd bytes, not the %zu "
                     "that pyconc was built for",
                     base->tp_basicsize, offsetof(pyc_datagram, weakrefs));
        return -1;
    }
    /* Both, as asyncio's own: it can pause reading, and has write limits. */
    PyObject *bases =
        PyTuple_Pack(2, (PyObject *)base, state->asyncio_Transport);
    if (bases == NULL) {
        return -1;
    }
    int code =
        pyc_add_type(module, &datagram_spec, bases, &state->datagram_type);
    Py_DECREF(bases);
    return code;
}
