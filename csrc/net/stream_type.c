/* SPDX-License-Identifier: MIT */
/* _core.StreamTransport as Python sees it. */
#include "py/compat.h"
#include "net/stream.h"
#include "net/net.h"
#include "net/pass_on.h"

/* ---- the object -------------------------------------------------------- */

static PyObject *
stream_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop",  "sock",   "protocol", "waiter",
                            "extra", "server", "context",  NULL};
    PyObject *sock, *protocol, *waiter = Py_None, *extra = Py_None;
    PyObject *loop_object, *server = Py_None, *context = Py_None;
    pyc_stream *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|OOOO:StreamTransport",
                                     names, &loop_object, &sock, &protocol,
                                     &waiter, &extra, &server, &context)) {
        return NULL;
    }
    pyc_loop *loop = pyc_loop_from(pyc_state_of_type(type), loop_object);
    int fd = loop == NULL ? -1 : PyObject_AsFileDescriptor(sock);
    if (fd < 0 || pyc_loop_check_usable(loop) < 0) {
        return NULL;
    }
    PyObject *made =
        PyObject_GetAttr(protocol, loop->state->str_connection_made);
    if (made == NULL) {
        return NULL; /* no protocol: better now than when it is called */
    }
    Py_DECREF(made);
    context = context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
    if (context == NULL) {
        return NULL;
    }
    self = pyc_stream_new(type, loop, fd, context);
    Py_DECREF(context);
    if (self == NULL) {
        return NULL;
    }
    self->extra = extra == Py_None ? NULL : Py_NewRef(extra);
    if (pyc_stream_open(self, sock, protocol, waiter, server) < 0) {
        self->closed = self->sock == NULL; /* else the caller's to close */
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* asyncio.BaseTransport's would take the arguments for its own. */
static int
stream_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return 0;
}

static int
stream_traverse(pyc_stream *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->context);
    Py_VISIT(self->sock);
    Py_VISIT(self->server);
    Py_VISIT(self->clients);
    Py_VISIT(self->receive.fn);
    Py_VISIT(self->receive.self);
    Py_VISIT(self->buffer.fn);
    Py_VISIT(self->buffer.self);
    Py_VISIT(self->empty_waiter);
    Py_VISIT(self->lost_exc);
    return 0;
}

static int
stream_clear(pyc_stream *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->context);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->server);
    Py_CLEAR(self->clients);
    pyc_callback_clear(&self->receive);
    pyc_callback_clear(&self->buffer);
    Py_CLEAR(self->empty_waiter);
    Py_CLEAR(self->lost_exc);
    return 0;
}

/* The transport's __del__. */
static void
stream_finalize(PyObject *object)
{
    pyc_stream *self = (pyc_stream *)object;
    if (self->closed) {
        return;
    }
    PyObject *raised = pyc_take_exception();
    if (PyErr_ResourceWarning(object, 1, "unclosed transport %R", object) < 0 &&
        PyErr_ExceptionMatches(PyExc_Warning)) {
        PyErr_WriteUnraisable(object);
    }
    PyErr_Clear();
    if (pyc_stream_release(self) < 0) {
        PyErr_WriteUnraisable(object);
    }
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
}

static void
stream_dealloc(pyc_stream *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PYC_FREE_THREADED && self->weakrefs != NULL) {
        /* Or the loop could take one of ours while the finalizer runs, which
         * 3.13 would not notice. */
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    stream_clear(self);
#ifdef Py_GIL_DISABLED
    Py_XDECREF(self->client_ref);
#endif
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- methods ----------------------------------------------------------- */

static PyObject *
stream_close(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "close");
    if (pyc_stream_close(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_force_close(pyc_stream *self, PyObject *exc)
{
    PYC_PASS_ON_WITH(self, "_force_close", exc);
    if (pyc_stream_force_close(self, exc == Py_None ? NULL : exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_abort(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    return stream_force_close(self, Py_None);
}

static PyObject *
stream_fatal_error(pyc_stream *self, PyObject *args)
{
    PyObject *exc;
    const char *message = "Fatal error on transport";
    if (!PyArg_ParseTuple(args, "O|s:_fatal_error", &exc, &message)) {
        return NULL;
    }
    if (!PyExceptionInstance_Check(exc)) {
        return PyErr_Format(PyExc_TypeError, "not an exception: %R", exc);
    }
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    pyc_stream_fatal(self, message);
    Py_RETURN_NONE;
}

static PyObject *
stream_is_closing(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closing);
}

static PyObject *
stream_is_reading(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!self->closing && !self->paused);
}

static PyObject *
stream_pause_reading(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "pause_reading");
    if (!self->closing && !self->paused) {
        self->paused = 1;
        pyc_stream_update(self);
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_resume_reading(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "resume_reading");
    if (!self->closing && self->paused) {
        self->paused = 0;
        self->read_off = 0;
        pyc_stream_update(self);
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_set_protocol(pyc_stream *self, PyObject *protocol)
{
    PYC_PASS_ON_WITH(self, "set_protocol", protocol);
    if (pyc_stream_set_protocol(self, protocol) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_get_protocol(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->protocol == NULL ? Py_None : self->protocol);
}

/* ---- the type ---------------------------------------------------------- */

PyDoc_STRVAR(
    stream_doc,
    "StreamTransport(loop, sock, protocol, waiter=None, extra=None, "
    "server=None,\n"
    "                context=None)\n--\n\n"
    "The transport of a connected stream socket, TCP or Unix: "
    "asyncio.Transport.\n"
    "\n"
    "Made by the loop, which calls protocol.connection_made(transport) in its\n"
    "next turn and then sets the result of waiter. The protocol is called in\n"
    "context, or in a copy of the current one.\n");

#define METHOD(name, flags, doc)                                               \
    {#name, (PyCFunction)(void (*)(void))stream_##name, flags, doc}
#define SHARED(name, flags, doc)                                               \
    {#name, (PyCFunction)(void (*)(void))pyc_stream_##name, flags, doc}

static PyMethodDef stream_methods[] = {
    SHARED(write, METH_O,
           "write($self, data, /)\n--\n\n"
           "Sends a bytes-like object, at once or when the socket takes it."),
    SHARED(writelines, METH_O,
           "writelines($self, list_of_data, /)\n--\n\n"
           "Sends an iterable of bytes-like objects with one system call."),
    SHARED(write_eof, METH_NOARGS,
           "write_eof($self, /)\n--\n\n"
           "Closes the writing end once all is sent; data still comes in."),
    SHARED(can_write_eof, METH_NOARGS, "can_write_eof($self, /)\n--\n\nTrue."),
    SHARED(set_write_buffer_limits, METH_VARARGS | METH_KEYWORDS,
           "set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
           "Sets when pause_writing() and resume_writing() are called, in\n"
           "bytes: above high, and again at low or below."),
    SHARED(get_write_buffer_limits, METH_NOARGS,
           "get_write_buffer_limits($self, /)\n--\n\n"
           "The marks (low, high), in bytes."),
    SHARED(get_write_buffer_size, METH_NOARGS,
           "get_write_buffer_size($self, /)\n--\n\n"
           "How many bytes the socket has not taken yet."),
    SHARED(get_extra_info, METH_VARARGS | METH_KEYWORDS,
           "get_extra_info($self, /, name, default=None)\n--\n\n"
           "Optional information: 'socket', 'sockname', 'peername'."),
    METHOD(close, METH_NOARGS,
           "close($self, /)\n--\n\n"
           "Sends what is queued, then connection_lost(None) is called."),
    METHOD(abort, METH_NOARGS,
           "abort($self, /)\n--\n\nCloses without sending what is queued."),
    METHOD(is_closing, METH_NOARGS,
           "is_closing($self, /)\n--\n\nTrue once it closes or is closed."),
    METHOD(is_reading, METH_NOARGS,
           "is_reading($self, /)\n--\n\nTrue unless paused or closing."),
    METHOD(pause_reading, METH_NOARGS,
           "pause_reading($self, /)\n--\n\n"
           "The protocol gets no data until resume_reading()."),
    METHOD(resume_reading, METH_NOARGS,
           "resume_reading($self, /)\n--\n\nEnds pause_reading()."),
    METHOD(set_protocol, METH_O,
           "set_protocol($self, protocol, /)\n--\n\n"
           "Gives what follows to another protocol."),
    METHOD(get_protocol, METH_NOARGS,
           "get_protocol($self, /)\n--\n\nThe current protocol."),
    {"_force_close", (PyCFunction)stream_force_close, METH_O, NULL},
    {"_fatal_error", (PyCFunction)stream_fatal_error, METH_VARARGS, NULL},
    SHARED(_make_empty_waiter, METH_NOARGS, NULL),
    SHARED(_make_room_waiter, METH_NOARGS, NULL),
    SHARED(_reset_empty_waiter, METH_NOARGS, NULL),
    {NULL},
};

#define MEMBER(name, type, field)                                              \
    {name, type, offsetof(pyc_stream, field), READONLY, NULL}

static PyMemberDef stream_members[] = {
    MEMBER("_sock_fd", T_INT, fd),
    MEMBER("_loop", T_OBJECT, loop),
    MEMBER("_protocol", T_OBJECT, protocol),
    MEMBER("_server", T_OBJECT, server),
    MEMBER("_conn_lost", T_UINT, conn_lost),
    MEMBER("_closing", T_BOOL, closing),
    MEMBER("_paused", T_BOOL, paused),
    MEMBER("_eof", T_BOOL, eof),
    MEMBER("_protocol_paused", T_BOOL, protocol_paused),
    MEMBER("_empty_waiter", T_OBJECT, empty_waiter),
    MEMBER("__dictoffset__", T_PYSSIZET, dict),
    MEMBER("__weaklistoffset__", T_PYSSIZET, weakrefs),
    {NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)stream_doc},   {Py_tp_new, stream_make},
    {Py_tp_init, stream_init},         {Py_tp_dealloc, stream_dealloc},
    {Py_tp_finalize, stream_finalize}, {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},       {Py_tp_repr, pyc_stream_repr},
    {Py_tp_methods, stream_methods},   {Py_tp_members, stream_members},
    {Py_tp_getset, pyc_stream_getset}, {0, NULL},
};

static PyType_Spec stream_spec = {
    .name = "pyconc._core.StreamTransport",
    .basicsize = sizeof(pyc_stream),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = stream_slots,
};

int
pyc_stream_register(PyObject *module, pyc_state *state)
{
    PyTypeObject *base = (PyTypeObject *)state->asyncio_Transport;
    if (base->tp_basicsize != offsetof(pyc_stream, dict) ||
        base->tp_dictoffset != 0 || base->tp_weaklistoffset != 0) {
        PyErr_SetString(PyExc_ImportError,
                        "asyncio.Transport has another layout than pyconc "
                        "was built for");
        return -1;
    }
    if (pyc_add_type(module, &stream_spec, (PyObject *)base,
                     &state->stream_type) < 0) {
        return -1;
    }
    PyObject *mode = PyObject_GetAttrString(state->SendfileMode, "TRY_NATIVE");
    int code = mode == NULL ? -1 : 0;
    if (code == 0) {
        PyObject *type = (PyObject *)state->stream_type;
        code = PyObject_SetAttrString(type, "_sendfile_compatible", mode) |
               PyObject_SetAttrString(type, "_start_tls_compatible", Py_True);
    }
    Py_XDECREF(mode);
    return code;
}
