/* SPDX-License-Identifier: MIT */
/* _core.SSLTransport: what the application sees. */
#include "py/compat.h"
#include "net/net.h"
#include "net/pass_on.h"
#include "net/tls/tls.h"

/* ---- the object -------------------------------------------------------- */

pyc_tls_transport *
pyc_tls_transport_new(pyc_tls *tls)
{
    PyTypeObject *type = tls->state->tls_transport_type;
    pyc_tls_transport *self = (pyc_tls_transport *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->tls = (pyc_tls *)Py_NewRef(tls);
        self->loop = (pyc_loop *)Py_NewRef(tls->loop);
    }
    return self;
}

static int
transport_traverse(pyc_tls_transport *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    Py_VISIT(self->tls);
    return 0;
}

static int
transport_clear(pyc_tls_transport *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->dict);
    return 0;
}

static void
transport_finalize(PyObject *object)
{
    pyc_tls_transport *self = (pyc_tls_transport *)object;
    if (!self->closed) {
        self->closed = 1;
        pyc_transport_finalize(object, 1, NULL);
    }
}

static void
transport_dealloc(PyObject *object)
{
    pyc_tls_transport *self = (pyc_tls_transport *)object;
    if (pyc_transport_is_dead(object)) {
        transport_clear(self);
        Py_CLEAR(self->tls);
        Py_CLEAR(self->loop);
        pyc_transport_free(object);
    }
}

/* The transport beneath, or None. */
static PyObject *
get_lower(pyc_tls_transport *self)
{
    return pyc_field_get((PyObject *)self->tls, &self->tls->lower);
}

static PyObject *
transport_repr(pyc_tls_transport *self)
{
    PyObject *lower = get_lower(self);
    PyObject *result = PyUnicode_FromFormat(
        "<SSLTransport%s over %R>", self->closed ? " closing" : "", lower);
    Py_DECREF(lower);
    return result;
}

/* ---- writing ----------------------------------------------------------- */

static PyObject *
write_any(pyc_tls_transport *self, PyObject *data)
{
    Py_buffer view;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        return PyErr_Format(PyExc_TypeError,
                            "data: expecting a bytes-like instance, got %.200s",
                            Py_TYPE(data)->tp_name);
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (view.len > 0) {
        pyc_tls_write(self->tls, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyObject *
transport_write(pyc_tls_transport *self, PyObject *data)
{
    PYC_PASS_ON_WITH(self, "write", data);
    if (PYC_LIKELY(PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) > 0)) {
        pyc_tls_write(self->tls, PyBytes_AS_STRING(data),
                      (size_t)PyBytes_GET_SIZE(data));
        Py_RETURN_NONE;
    }
    return write_any(self, data);
}

/* All of them or, with an exception, none: in one record if they fit. */
static PyObject *
transport_writelines(pyc_tls_transport *self, PyObject *lines)
{
    pyc_loop *elsewhere = pyc_must_pass_on((PyObject *)self, &self->loop);
    if (elsewhere != NULL) {
        return pyc_pass_on_lines((PyObject *)self, elsewhere, lines);
    }
    PyObject *list = PySequence_Fast(
        lines, "writelines() takes an iterable of bytes-like objects");
    pyc_tls_bytes all = {NULL};
    Py_buffer view;
    if (list == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list); i++) {
        PyObject *line = Py_NewRef(PySequence_Fast_GET_ITEM(list, i));
        int code = PyObject_GetBuffer(line, &view, PyBUF_SIMPLE);
        if (code == 0) {
            code = pyc_tls_bytes_append(&all, view.buf, (size_t)view.len);
            PyBuffer_Release(&view);
        }
        Py_DECREF(line);
        if (code < 0) {
            goto fail;
        }
    }
    if (all.len > 0) {
        pyc_tls_write(self->tls, all.data, all.len);
    }
    pyc_tls_bytes_free(&all);
    Py_DECREF(list);
    Py_RETURN_NONE;
fail:
    pyc_tls_bytes_free(&all);
    Py_DECREF(list);
    return NULL;
}

/* By this name a test of CPython's has something left to send at the end. */
static PyObject *
transport_append_backlog(pyc_tls_transport *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int code =
        pyc_tls_bytes_append(&self->tls->backlog, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (code < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
transport_write_eof(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(PyExc_NotImplementedError,
                    "TLS connections cannot be closed in one direction");
    return NULL;
}

static PyObject *
transport_can_write_eof(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

/* ---- limits ------------------------------------------------------------ */

static PyObject *
transport_set_write_buffer_limits(pyc_tls_transport *self, PyObject *args,
                                  PyObject *kwargs)
{
    pyc_tls *tls = self->tls;
    if (pyc_limits_parse(args, kwargs, "|OO:set_write_buffer_limits",
                         PYC_TLS_HIGH_WRITE, &tls->out_high,
                         &tls->out_low) < 0) {
        return NULL;
    }
    if (!pyc_is_passed_on((PyObject *)self, &self->loop)) {
        pyc_tls_control_writing(tls);
    }
    Py_RETURN_NONE;
}

static PyObject *
transport_get_write_buffer_limits(pyc_tls_transport *self,
                                  PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->tls->out_low,
                         (Py_ssize_t)self->tls->out_high);
}

static PyObject *
transport_set_read_buffer_limits(pyc_tls_transport *self, PyObject *args,
                                 PyObject *kwargs)
{
    pyc_tls *tls = self->tls;
    if (pyc_limits_parse(args, kwargs, "|OO:set_read_buffer_limits",
                         PYC_TLS_HIGH_READ, &tls->in_high, &tls->in_low) < 0) {
        return NULL;
    }
    if (!pyc_is_passed_on((PyObject *)self, &self->loop)) {
        pyc_tls_control_reading(tls);
    }
    Py_RETURN_NONE;
}

static PyObject *
transport_get_read_buffer_limits(pyc_tls_transport *self,
                                 PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->tls->in_low,
                         (Py_ssize_t)self->tls->in_high);
}

/* What only waits for the end of the turn is not counted: it goes first. */
static PyObject *
transport_get_write_buffer_size(pyc_tls_transport *self,
                                PyObject *Py_UNUSED(ignored))
{
    if (pyc_check_runs_here((PyObject *)self, &self->loop,
                            "get_write_buffer_size()") < 0) {
        return NULL;
    }
    if (!self->tls->full) {
        pyc_tls_flush(self->tls, 0);
    }
    return PyLong_FromSize_t(self->tls->backlog.len);
}

static PyObject *
transport_get_read_buffer_size(pyc_tls_transport *self,
                               PyObject *Py_UNUSED(ignored))
{
    if (pyc_check_runs_here((PyObject *)self, &self->loop,
                            "get_read_buffer_size()") < 0) {
        return NULL;
    }
    return PyLong_FromSize_t(self->tls->engine->waiting(self->tls));
}

/* ---- reading ----------------------------------------------------------- */

static PyObject *
transport_is_reading(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!self->tls->app_paused);
}

static PyObject *
transport_pause_reading(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "pause_reading");
    self->tls->app_paused = 1;
    Py_RETURN_NONE;
}

static PyObject *
transport_resume_reading(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "resume_reading");
    if (self->tls->app_paused) {
        self->tls->app_paused = 0;
        pyc_tls_resume(self->tls);
    }
    Py_RETURN_NONE;
}

/* ---- the end ----------------------------------------------------------- */

static PyObject *
transport_close(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "close");
    if (!self->closed) {
        self->closed = 1;
        if (self->tls->lower != NULL && pyc_loop_check_usable(self->loop) < 0) {
            return NULL;
        }
        pyc_tls_start_shutdown(self->tls);
    }
    Py_RETURN_NONE;
}

static PyObject *
transport_force_close(pyc_tls_transport *self, PyObject *exc)
{
    PYC_PASS_ON_WITH(self, "_force_close", exc);
    self->closed = 1;
    if (pyc_tls_abort(self->tls, exc == Py_None ? NULL : exc) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
transport_abort(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    return transport_force_close(self, Py_None);
}

static PyObject *
transport_is_closing(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *lower = get_lower(self), *closing;
    if (self->closed || lower == Py_None) {
        closing = PyBool_FromLong(self->closed);
    }
    else if (Py_IS_TYPE(lower, self->tls->state->stream_type)) {
        closing = PyBool_FromLong(((pyc_stream *)lower)->closing);
    }
    else {
        closing = PyObject_CallMethod(lower, "is_closing", NULL);
    }
    Py_DECREF(lower);
    return closing;
}

/* ---- information ------------------------------------------------------- */

static PyObject *
transport_set_protocol(pyc_tls_transport *self, PyObject *protocol)
{
    PYC_PASS_ON_WITH(self, "set_protocol", protocol);
    if (pyc_tls_set_app(self->tls, protocol) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
transport_get_protocol(pyc_tls_transport *self, PyObject *Py_UNUSED(ignored))
{
    return pyc_field_get((PyObject *)self->tls, &self->tls->app);
}

static PyObject *
transport_get_extra_info(pyc_tls_transport *self, PyObject *args,
                         PyObject *kwargs)
{
    static char *names[] = {"name", "default", NULL};
    PyObject *name, *fallback = Py_None, *value;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names,
                                     &name, &fallback)) {
        return NULL;
    }
    PYC_BEGIN_CRITICAL_SECTION(self);
    value = pyc_tls_extra_info(self->tls, name, fallback);
    PYC_END_CRITICAL_SECTION();
    return value;
}

static PyObject *
get_protocol_paused(pyc_tls_transport *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->tls->app_full);
}

/* ---- the type ---------------------------------------------------------- */

PyDoc_STRVAR(
    transport_doc,
    "The transport of a connection with TLS: asyncio.Transport.\n"
    "\n"
    "Made by the loop: create_connection(), create_server() and their like "
    "with\n"
    "ssl, and start_tls(). Source: asyncio.sslproto\n");

static PyMethodDef transport_methods[] = {
    PYC_WRITE(transport_write, "Sends", "socket"),
    PYC_METHOD("writelines", transport_writelines, METH_O,
               "writelines($self, list_of_data, /)\n--\n\n"
               "Sends an iterable of bytes-like objects as one."),
    PYC_METHOD("write_eof", transport_write_eof, METH_NOARGS,
               "write_eof($self, /)\n--\n\nRaises NotImplementedError."),
    PYC_METHOD("can_write_eof", transport_can_write_eof, METH_NOARGS,
               "can_write_eof($self, /)\n--\n\nFalse."),
    PYC_SET_WRITE_BUFFER_LIMITS(transport_set_write_buffer_limits,
                                "at high or above"),
    PYC_GET_WRITE_BUFFER_LIMITS(transport_get_write_buffer_limits),
    PYC_GET_WRITE_BUFFER_SIZE(transport_get_write_buffer_size,
                              "How many bytes are not encrypted yet."),
    PYC_METHOD("set_read_buffer_limits", transport_set_read_buffer_limits,
               METH_VARARGS | METH_KEYWORDS,
               "set_read_buffer_limits($self, /, high=None, low=None)\n--\n\n"
               "Sets, in bytes, at how much that came while reading is paused\n"
               "nothing more is received, and at what is left of it again."),
    PYC_METHOD("get_read_buffer_limits", transport_get_read_buffer_limits,
               METH_NOARGS,
               "get_read_buffer_limits($self, /)\n--\n\n"
               "The marks (low, high), in bytes."),
    PYC_METHOD("get_read_buffer_size", transport_get_read_buffer_size,
               METH_NOARGS,
               "get_read_buffer_size($self, /)\n--\n\n"
               "How many bytes came and are not decrypted yet."),
    PYC_METHOD("get_extra_info", transport_get_extra_info,
               METH_VARARGS | METH_KEYWORDS,
               "get_extra_info($self, /, name, default=None)\n--\n\n"
               "Optional information: 'sslcontext', 'ssl_object', 'peercert',\n"
               "'cipher', 'compression', and that of the transport beneath."),
    PYC_METHOD("close", transport_close, METH_NOARGS,
               "close($self, /)\n--\n\n"
               "Sends what is queued and says so to the peer; then\n"
               "connection_lost(None) is called."),
    PYC_ABORT(transport_abort),
    PYC_IS_CLOSING(transport_is_closing),
    PYC_IS_READING(transport_is_reading, "True unless paused."),
    PYC_PAUSE_READING(transport_pause_reading),
    PYC_RESUME_READING(transport_resume_reading),
    PYC_SET_PROTOCOL(transport_set_protocol),
    PYC_GET_PROTOCOL(transport_get_protocol),
    PYC_METHOD("_force_close", transport_force_close, METH_O, NULL),
    PYC_METHOD("_test__append_write_backlog", transport_append_backlog, METH_O,
               NULL),
    {NULL},
};

static PyMemberDef transport_members[] = {
    PYC_TRANSPORT_OBJECT_MEMBERS,
    PYC_MEMBER("_ssl_protocol", T_OBJECT, pyc_tls_transport, tls),
    PYC_MEMBER("_closed", T_BOOL, pyc_tls_transport, closed),
    {NULL},
};

static PyGetSetDef transport_getset[] = {
    {"_protocol_paused", (getter)get_protocol_paused, NULL, NULL, NULL},
    PYC_TRANSPORT_OBJECT_GETSET,
    {NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_doc, (void *)transport_doc},   {Py_tp_dealloc, transport_dealloc},
    {Py_tp_finalize, transport_finalize}, {Py_tp_traverse, transport_traverse},
    {Py_tp_clear, transport_clear},       {Py_tp_repr, transport_repr},
    {Py_tp_methods, transport_methods},   {Py_tp_members, transport_members},
    {Py_tp_getset, transport_getset},     {0, NULL},
};

static PyType_Spec transport_spec = {
    .name = "pyconc._core.SSLTransport",
    .basicsize = sizeof(pyc_tls_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};

int
pyc_tls_transport_register(PyObject *module, pyc_state *state)
{
    if (pyc_transport_add_type(module, &transport_spec,
                               state->asyncio_Transport,
                               &state->tls_transport_type) < 0) {
        return -1;
    }
    return pyc_transport_allow(state->tls_transport_type, state, "FALLBACK");
}
