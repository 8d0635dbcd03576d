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

static int
stream_traverse(pyc_stream *self, visitproc visit, void *arg)
{
    Py_VISIT(self->sock);
    Py_VISIT(self->server);
    Py_VISIT(self->clients);
    Py_VISIT(self->buffer.fn);
    Py_VISIT(self->buffer.self);
    Py_VISIT(self->empty_waiter);
    return pyc_transport_traverse(&self->base, visit, arg);
}

static int
stream_clear(pyc_stream *self)
{
    Py_CLEAR(self->sock);
    Py_CLEAR(self->server);
    Py_CLEAR(self->clients);
    pyc_callback_clear(&self->buffer);
    Py_CLEAR(self->empty_waiter);
    pyc_transport_clear(&self->base);
    return 0;
}

static int
stream_release(PyObject *self)
{
    return pyc_stream_release((pyc_stream *)self);
}

static void
stream_finalize(PyObject *self)
{
    if (!((pyc_stream *)self)->closed) {
        pyc_transport_finalize(self, 1, stream_release);
    }
}

static void
stream_dealloc(PyObject *self)
{
    if (pyc_transport_is_dead(self)) {
        stream_clear((pyc_stream *)self);
#ifdef Py_GIL_DISABLED
        Py_XDECREF(((pyc_stream *)self)->client_ref);
#endif
        pyc_transport_free(self);
    }
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

static PyMethodDef stream_methods[] = {
    PYC_WRITE(pyc_stream_write, "Sends", "socket"),
    PYC_METHOD("writelines", pyc_stream_writelines, METH_O,
               "writelines($self, list_of_data, /)\n--\n\n"
               "Sends an iterable of bytes-like objects with one system call."),
    PYC_METHOD("write_eof", pyc_stream_write_eof, METH_NOARGS,
               "write_eof($self, /)\n--\n\n"
               "Closes the writing end once all is sent; data still comes in."),
    PYC_METHOD("can_write_eof", pyc_stream_can_write_eof, METH_NOARGS,
               "can_write_eof($self, /)\n--\n\nTrue."),
    PYC_SET_WRITE_BUFFER_LIMITS(pyc_transport_set_write_buffer_limits,
                                "above high"),
    PYC_GET_WRITE_BUFFER_LIMITS(pyc_transport_get_write_buffer_limits),
    PYC_GET_WRITE_BUFFER_SIZE(pyc_transport_get_write_buffer_size,
                              "How many bytes the socket has not taken yet."),
    PYC_METHOD("get_extra_info", pyc_stream_get_extra_info,
               METH_VARARGS | METH_KEYWORDS,
               "get_extra_info($self, /, name, default=None)\n--\n\n"
               "Optional information: 'socket', 'sockname', 'peername'."),
    PYC_METHOD("close", stream_close, METH_NOARGS,
               "close($self, /)\n--\n\n"
               "Sends what is queued, then connection_lost(None) is called."),
    PYC_ABORT(stream_abort),
    PYC_IS_CLOSING(pyc_transport_is_closing),
    PYC_IS_READING(pyc_transport_is_reading, "True unless paused or closing."),
    PYC_PAUSE_READING(stream_pause_reading),
    PYC_RESUME_READING(stream_resume_reading),
    PYC_SET_PROTOCOL(stream_set_protocol),
    PYC_GET_PROTOCOL(pyc_transport_get_protocol),
    PYC_METHOD("_force_close", stream_force_close, METH_O, NULL),
    PYC_METHOD("_fatal_error", stream_fatal_error, METH_VARARGS, NULL),
    PYC_METHOD("_make_empty_waiter", pyc_stream__make_empty_waiter, METH_NOARGS,
               NULL),
    PYC_METHOD("_make_room_waiter", pyc_stream__make_room_waiter, METH_NOARGS,
               NULL),
    PYC_METHOD("_reset_empty_waiter", pyc_stream__reset_empty_waiter,
               METH_NOARGS, NULL),
    {NULL},
};

static PyMemberDef stream_members[] = {
    PYC_TRANSPORT_MEMBERS,
    PYC_MEMBER("_sock_fd", T_INT, pyc_stream, fd),
    PYC_MEMBER("_conn_lost", T_UINT, pyc_stream, conn_lost),
    PYC_MEMBER("_eof", T_BOOL, pyc_stream, eof),
    {NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)stream_doc},   {Py_tp_new, stream_make},
    {Py_tp_init, pyc_transport_init},  {Py_tp_dealloc, stream_dealloc},
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
    if (pyc_transport_add_type(module, &stream_spec, state->asyncio_Transport,
                               &state->stream_type) < 0) {
        return -1;
    }
    return pyc_transport_allow(state->stream_type, state, "TRY_NATIVE");
}
