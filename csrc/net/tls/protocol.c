/* SPDX-License-Identifier: MIT */
/* _core.SSLProtocol: what the transport beneath sees. */
#include "py/compat.h"
#include "net/tls/tls.h"

/* asyncio.constants.SSL_HANDSHAKE_TIMEOUT and SSL_SHUTDOWN_TIMEOUT */
#define HANDSHAKE_TIMEOUT 60.0
#define SHUTDOWN_TIMEOUT 30.0

/* ---- the object -------------------------------------------------------- */

/* `object` in seconds, or the default for None: 0, or -1 with an exception. */
static int
timeout_from(PyObject *object, const char *name, double *seconds,
             double default_seconds)
{
    *seconds = default_seconds;
    if (object == NULL || object == Py_None) {
        return 0;
    }
    PyObject *zero = PyLong_FromLong(0);
    int less =
        zero == NULL ? -1 : PyObject_RichCompareBool(object, zero, Py_LE);
    Py_XDECREF(zero);
    *seconds = less < 0 ? -1.0 : PyFloat_AsDouble(object);
    if (*seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (less) {
        PyErr_Format(PyExc_ValueError, "%s should be a positive number, got %R",
                     name, object);
        return -1;
    }
    return 0;
}

/* ssl=True: the default context of a client. */
static PyObject *
default_context(int server_side, PyObject *server_hostname)
{
    if (server_side) {
        PyErr_SetString(PyExc_ValueError,
                        "Server side SSL needs a valid SSLContext");
        return NULL;
    }
    PyObject *ssl = PyImport_ImportModule("ssl"), *context = NULL;
    if (ssl != NULL) {
        context = PyObject_CallMethod(ssl, "create_default_context", NULL);
        Py_DECREF(ssl);
    }
    int named = context == NULL ? -1 : PyObject_IsTrue(server_hostname);
    if (named == 0 &&
        PyObject_SetAttrString(context, "check_hostname", Py_False) < 0) {
        named = -1;
    }
    if (named < 0) {
        Py_CLEAR(context);
    }
    return context;
}

typedef struct {
    pyc_loop *loop;
    PyObject *app;
    PyObject *sslcontext;
    PyObject *waiter;
    PyObject *server_hostname;
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout;
    PyObject *context;
    int server_side;
    int call_connection_made;
} options;

static int
fill(pyc_tls *self, const options *given)
{
    PyObject *name = given->server_hostname;
    self->server_side = (char)given->server_side;
    if (timeout_from(given->handshake_timeout, "ssl_handshake_timeout",
                     &self->handshake_timeout, HANDSHAKE_TIMEOUT) < 0 ||
        timeout_from(given->shutdown_timeout, "ssl_shutdown_timeout",
                     &self->shutdown_timeout, SHUTDOWN_TIMEOUT) < 0) {
        return -1;
    }
    int context = PyObject_IsTrue(given->sslcontext);
    int named = PyObject_IsTrue(name);
    if (context < 0 || named < 0) {
        return -1;
    }
    self->sslcontext = context ? Py_NewRef(given->sslcontext)
                               : default_context(self->server_side, name);
    self->context = given->context == Py_None ? PyContext_CopyCurrent()
                                              : Py_NewRef(given->context);
    if (self->sslcontext == NULL || self->context == NULL ||
        pyc_tls_set_app(self, given->app) < 0 ||
        pyc_tls_open(self, named && !self->server_side ? name : Py_None) < 0) {
        return -1;
    }
    self->waiter = given->waiter == Py_None ? NULL : Py_NewRef(given->waiter);
    self->transport = pyc_tls_transport_new(self);
    return self->transport == NULL ? -1 : 0;
}

static pyc_tls *
tls_new(PyTypeObject *type, const options *given)
{
    pyc_tls *self = (pyc_tls *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = given->loop->state;
    self->loop = (pyc_loop *)Py_NewRef(given->loop);
    self->out_high = PYC_TLS_HIGH_WRITE;
    self->out_low = PYC_TLS_HIGH_WRITE / 4;
    self->in_high = PYC_TLS_HIGH_READ;
    self->in_low = PYC_TLS_HIGH_READ / 4;
    self->wrote = self->loop->turn - 1;
    self->app_state =
        given->call_connection_made ? PYC_TLS_APP_NEW : PYC_TLS_APP_MADE;
    self->flush.run = pyc_tls_flush_later;
    pyc_link_init(&self->flush.link);
    if (fill(self, given) < 0) {
        if (self->transport != NULL) {
            self->transport->closed = 1;
        }
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static PyObject *
tls_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop",
                            "app_protocol",
                            "sslcontext",
                            "waiter",
                            "server_side",
                            "server_hostname",
                            "call_connection_made",
                            "ssl_handshake_timeout",
                            "ssl_shutdown_timeout",
                            "context",
                            NULL};
    options given = {.server_hostname = Py_None,
                     .handshake_timeout = Py_None,
                     .shutdown_timeout = Py_None,
                     .context = Py_None,
                     .waiter = Py_None,
                     .call_connection_made = 1};
    PyObject *loop;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOO|OpOpOOO:SSLProtocol", names, &loop, &given.app,
            &given.sslcontext, &given.waiter, &given.server_side,
            &given.server_hostname, &given.call_connection_made,
            &given.handshake_timeout, &given.shutdown_timeout,
            &given.context)) {
        return NULL;
    }
    given.loop = pyc_loop_from(pyc_state_of_type(type), loop);
    if (given.loop == NULL) {
        return NULL;
    }
    if (given.context != Py_None && !PyContext_CheckExact(given.context)) {
        return PyErr_Format(PyExc_TypeError,
                            "context must be a Context, not %R", given.context);
    }
    return (PyObject *)tls_new(type, &given);
}

PyObject *
pyc_tls_accepted(pyc_loop *loop, PyObject *app, PyObject *arguments,
                 PyObject *context)
{
    options given = {.loop = loop,
                     .app = app,
                     .server_hostname = Py_None,
                     .waiter = Py_None,
                     .context = context,
                     .server_side = 1,
                     .call_connection_made = 1};
    if (!PyArg_ParseTuple(arguments, "OOO", &given.sslcontext,
                          &given.handshake_timeout, &given.shutdown_timeout)) {
        return NULL;
    }
    return (PyObject *)tls_new(loop->state->tls_type, &given);
}

static int
tls_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return 0;
}

static int
tls_traverse(pyc_tls *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->app);
    Py_VISIT(self->lower);
    Py_VISIT(self->transport);
    Py_VISIT(self->context);
    Py_VISIT(self->waiter);
    Py_VISIT(self->sslcontext);
    Py_VISIT(self->ssl_object);
    Py_VISIT(self->info);
    Py_VISIT(self->inner);
    Py_VISIT(self->incoming);
    Py_VISIT(self->outgoing);
    Py_VISIT(self->handshake_timer);
    Py_VISIT(self->shutdown_timer);
    Py_VISIT(self->receive.fn);
    Py_VISIT(self->receive.self);
    Py_VISIT(self->buffer.fn);
    Py_VISIT(self->buffer.self);
    return 0;
}

static int
tls_clear(pyc_tls *self)
{
    self->phase = PYC_TLS_UNWRAPPED;
    self->stream = NULL;
    pyc_link_remove(&self->flush.link);
    Py_CLEAR(self->app);
    Py_CLEAR(self->lower);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->sslcontext);
    Py_CLEAR(self->info);
    Py_CLEAR(self->handshake_timer);
    Py_CLEAR(self->shutdown_timer);
    pyc_callback_clear(&self->receive);
    pyc_callback_clear(&self->buffer);
    return 0;
}

static void
tls_dealloc(pyc_tls *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    tls_clear(self);
    if (self->engine != NULL) {
        self->engine->detach(self);
    }
    pyc_tls_bytes_free(&self->backlog);
    Py_CLEAR(self->ssl_object);
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->outgoing);
    Py_CLEAR(self->context);
    Py_CLEAR(self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- methods ----------------------------------------------------------- */

static PyObject *
tls_connection_made(pyc_tls *self, PyObject *lower)
{
    if (pyc_tls_connected(self, lower) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
tls_connection_lost(pyc_tls *self, PyObject *exc)
{
    pyc_tls_lost(self, exc);
    Py_RETURN_NONE;
}

static PyObject *
tls_data_received(pyc_tls *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    pyc_tls_received((PyObject *)self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyObject *
tls_eof_received(pyc_tls *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(pyc_tls_lower_eof(self));
}

static PyObject *
tls_pause_writing(pyc_tls *self, PyObject *Py_UNUSED(ignored))
{
    self->full = 1;
    Py_RETURN_NONE;
}

static PyObject *
tls_resume_writing(pyc_tls *self, PyObject *Py_UNUSED(ignored))
{
    self->full = 0;
    pyc_tls_flush(self, 0);
    pyc_tls_control_reading(self);
    Py_RETURN_NONE;
}

static PyObject *
tls_check_handshake(pyc_tls *self, PyObject *Py_UNUSED(ignored))
{
    pyc_tls_handshake_timeout(self);
    Py_RETURN_NONE;
}

static PyObject *
tls_check_shutdown(pyc_tls *self, PyObject *Py_UNUSED(ignored))
{
    pyc_tls_shutdown_timeout(self);
    Py_RETURN_NONE;
}

static PyObject *
tls_engine(pyc_tls *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(self->engine->name);
}

/* ---- the type ---------------------------------------------------------- */

PyDoc_STRVAR(
    tls_doc,
    "SSLProtocol(loop, app_protocol, sslcontext, waiter=None, "
    "server_side=False,\n"
    "            server_hostname=None, call_connection_made=True,\n"
    "            ssl_handshake_timeout=None, ssl_shutdown_timeout=None,\n"
    "            context=None)\n--\n\n"
    "TLS between a transport, whose protocol it is, and app_protocol.\n"
    "\n"
    "The handshake starts with connection_made(); when it is done, it calls\n"
    "app_protocol.connection_made(transport) with a SSLTransport, unless\n"
    "call_connection_made is false, and sets the result of waiter. Timeouts "
    "are\n"
    "seconds, 60 and 30 by default. Raises ValueError for one that is not\n"
    "positive, and for a server without a context.\n\n"
    "Source: asyncio.sslproto\n");

#define METHOD(name, function, flags, doc)                                     \
    {name, (PyCFunction)function, flags, doc}

static PyMethodDef tls_methods[] = {
    METHOD("connection_made", tls_connection_made, METH_O,
           "connection_made($self, transport, /)\n--\n\n"
           "Starts the handshake over `transport`."),
    METHOD("connection_lost", tls_connection_lost, METH_O,
           "connection_lost($self, exc, /)\n--\n\n"
           "The transport beneath is gone."),
    METHOD("data_received", tls_data_received, METH_O,
           "data_received($self, data, /)\n--\n\n"
           "Takes a bytes-like object of the peer's."),
    METHOD("eof_received", tls_eof_received, METH_NOARGS,
           "eof_received($self, /)\n--\n\n"
           "The peer has closed the connection beneath."),
    METHOD("pause_writing", tls_pause_writing, METH_NOARGS,
           "pause_writing($self, /)\n--\n\n"
           "The transport beneath has enough to send."),
    METHOD("resume_writing", tls_resume_writing, METH_NOARGS,
           "resume_writing($self, /)\n--\n\nEnds pause_writing()."),
    METHOD("_check_handshake_timeout", tls_check_handshake, METH_NOARGS, NULL),
    METHOD("_check_shutdown_timeout", tls_check_shutdown, METH_NOARGS, NULL),
    {NULL},
};

#define MEMBER(name, type, field)                                              \
    {name, type, offsetof(pyc_tls, field), READONLY, NULL}

static PyMemberDef tls_members[] = {
    MEMBER("__weaklistoffset__", T_PYSSIZET, weakrefs),
    {NULL},
};

static PyGetSetDef tls_getset[] = {
    {"_engine", (getter)tls_engine, NULL, NULL, NULL},
    PYC_FIELD("_app_protocol", pyc_tls, app),
    PYC_FIELD("_app_transport", pyc_tls, transport),
    PYC_FIELD("_transport", pyc_tls, lower),
    PYC_FIELD("_loop", pyc_tls, loop),
    PYC_FIELD("_waiter", pyc_tls, waiter),
    {NULL},
};

static PyType_Slot tls_slots[] = {
    {Py_tp_doc, (void *)tls_doc},   {Py_tp_new, tls_make},
    {Py_tp_init, tls_init},         {Py_tp_dealloc, tls_dealloc},
    {Py_tp_traverse, tls_traverse}, {Py_tp_clear, tls_clear},
    {Py_tp_methods, tls_methods},   {Py_tp_members, tls_members},
    {Py_tp_getset, tls_getset},     {0, NULL},
};

static PyType_Spec tls_spec = {
    .name = "pyconc._core.SSLProtocol",
    .basicsize = sizeof(pyc_tls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = tls_slots,
};

int
pyc_tls_register(PyObject *module, pyc_state *state)
{
    PyTypeObject *base = (PyTypeObject *)state->asyncio_Protocol;
    if (base->tp_basicsize != offsetof(pyc_tls, weakrefs) ||
        base->tp_dictoffset != 0 || base->tp_weaklistoffset != 0) {
        PyErr_SetString(PyExc_ImportError,
                        "asyncio.Protocol has another layout than pyconc was "
                        "built for");
        return -1;
    }
    return pyc_add_type(module, &tls_spec, (PyObject *)base, &state->tls_type);
}
