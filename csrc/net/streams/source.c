/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/streams/streams.h"
#include "net/stream.h"
#include "net/tls/tls.h"

/* As asyncio compares, whatever the limit is. */
static int
is_more(Py_ssize_t len, int times, PyObject *limit)
{
    PyObject *most = NULL, *factor = PyLong_FromLong(times);
    PyObject *have = PyLong_FromSsize_t(len);
    Py_INCREF(limit);
    if (factor != NULL && have != NULL) {
        most = PyNumber_Multiply(factor, limit);
    }
    int more = most == NULL ? -1 : PyObject_RichCompareBool(have, most, Py_GT);
    Py_DECREF(limit);
    Py_XDECREF(most);
    Py_XDECREF(have);
    Py_XDECREF(factor);
    return more;
}

int
pyc_stream_source_beyond(pyc_stream_source *self, Py_ssize_t len, int times)
{
    if (PYC_LIKELY(PyLong_CheckExact(self->limit))) {
        int overflow;
        long long most = PyLong_AsLongLongAndOverflow(self->limit, &overflow);
        return overflow ? overflow < 0 : (double)len > times * (double)most;
    }
    return is_more(len, times, self->limit);
}

/* Whether StreamWriter.drain() has nothing to wait for and nothing to raise, as
 * far as that can be told. */
static PyObject *
source_drained(pyc_stream_source *self, PyObject *transport)
{
    pyc_state *state = self->state;
    int drained = self->exception == Py_None;
    if (Py_IS_TYPE(transport, state->stream_type)) {
        pyc_stream *stream = (pyc_stream *)transport;
        drained &= !stream->closing && !stream->protocol_paused;
    }
    else if (Py_IS_TYPE(transport, state->tls_transport_type)) {
        pyc_tls_transport *wrapped = (pyc_tls_transport *)transport;
        pyc_stream *stream = wrapped->tls->stream;
        drained &= !wrapped->closed && stream != NULL && !stream->closing &&
                   !wrapped->tls->app_full;
    }
    else {
        drained = 0;
    }
    return PyBool_FromLong(drained);
}

/* ---- the type ---------------------------------------------------------- */

/* StreamSource(reader, buffer, limit, loop) */
static PyObject *
source_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *reader, *buffer, *limit, *loop;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError,
                        "StreamSource() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OOOO:StreamSource", &reader, &buffer, &limit,
                          &loop)) {
        return NULL;
    }
    pyc_stream_source *self = (pyc_stream_source *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->state = pyc_state_of_type(type);
    self->buffer = Py_NewRef(buffer);
    self->limit = Py_NewRef(limit);
    self->loop = Py_NewRef(loop);
    self->transport = Py_NewRef(Py_None);
    self->waiter = Py_NewRef(Py_None);
    self->exception = Py_NewRef(Py_None);
    self->create_future =
        PyObject_GetAttr(loop, self->state->str_create_future);
    self->reader = PyWeakref_NewRef(reader, NULL);
    if (self->reader == NULL || self->create_future == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

#define OBJECTS(X)                                                             \
    X(reader)                                                                  \
    X(buffer)                                                                  \
    X(limit) X(loop) X(create_future) X(transport) X(waiter) X(exception)

static int
source_traverse(pyc_stream_source *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
#define X(name) Py_VISIT(self->name);
    OBJECTS(X)
#undef X
    Py_VISIT(self->whole);
    return 0;
}

/* None, not NULL: the methods may still be called. */
static int
source_clear(pyc_stream_source *self)
{
#define X(name) Py_XSETREF(self->name, Py_NewRef(Py_None));
    OBJECTS(X)
#undef X
    Py_CLEAR(self->whole);
    return 0;
}

static void
source_dealloc(pyc_stream_source *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
#define X(name) Py_CLEAR(self->name);
    OBJECTS(X)
#undef X
    Py_CLEAR(self->whole);
    type->tp_free(self);
    Py_DECREF(type);
}

#define METHOD(name, fn, flags, text)                                          \
    {#name, (PyCFunction)(void (*)(void))fn, flags, #name text}

static PyMethodDef source_methods[] = {
    METHOD(feed, pyc_stream_source_feed, METH_O,
           "($self, data, /)\n--\n\nStreamReader.feed_data() of bytes."),
    METHOD(read, pyc_stream_source_read, METH_FASTCALL,
           "($self, n, waited, /)\n--\n\n"
           "What StreamReader.read(n) gives, now or after it `waited`."),
    METHOD(readexactly, pyc_stream_source_readexactly, METH_FASTCALL,
           "($self, n, waited, /)\n--\n\n"
           "What StreamReader.readexactly(n) gives."),
    METHOD(readuntil, pyc_stream_source_readuntil, METH_FASTCALL,
           "($self, separator, searched, /)\n--\n\n"
           "What StreamReader.readuntil(separator) gives, which does not begin "
           "in the first\n`searched` bytes; -1 when it has not waited yet."),
    METHOD(drained, source_drained, METH_O,
           "($self, transport, /)\n--\n\n"
           "Whether StreamWriter.drain() need not wait nor raise."),
    {NULL},
};

/* ---- attributes -------------------------------------------------------- */

static PyObject *
get_buffer(pyc_stream_source *self, void *Py_UNUSED(closure))
{
    return pyc_stream_source_settle(self) < 0 ? NULL : Py_NewRef(self->buffer);
}

static int
set_buffer(pyc_stream_source *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "cannot delete the buffer");
        return -1;
    }
    Py_CLEAR(self->whole);
    Py_SETREF(self->buffer, Py_NewRef(value));
    return 0;
}

static PyObject *
get_flag(pyc_stream_source *self, void *offset)
{
    return PyBool_FromLong(*((char *)self + (size_t)offset));
}

static int
set_flag(pyc_stream_source *self, PyObject *value, void *offset)
{
    int is = value == NULL ? 0 : PyObject_IsTrue(value);
    if (is >= 0) {
        *((char *)self + (size_t)offset) = (char)is;
    }
    return is < 0 ? -1 : 0;
}

static PyObject *
get_object(pyc_stream_source *self, void *offset)
{
    return Py_NewRef(*(PyObject **)((char *)self + (size_t)offset));
}

static int
set_object(pyc_stream_source *self, PyObject *value, void *offset)
{
    PyObject **place = (PyObject **)((char *)self + (size_t)offset);
    Py_SETREF(*place, Py_NewRef(value == NULL ? Py_None : value));
    return 0;
}

#define FIELD(kind, name)                                                      \
    {#name, (getter)get_##kind, (setter)set_##kind, NULL,                      \
     (void *)offsetof(pyc_stream_source, name)}

static PyGetSetDef source_getset[] = {
    {"buffer", (getter)get_buffer, (setter)set_buffer, NULL, NULL},
    FIELD(object, limit),
    FIELD(object, loop),
    FIELD(object, transport),
    FIELD(object, waiter),
    FIELD(object, exception),
    FIELD(flag, eof),
    FIELD(flag, paused),
    {NULL},
};

static PyType_Slot source_slots[] = {
    {Py_tp_doc, "StreamSource(reader, buffer, limit, loop, /)\n--\n\n"
                "What a StreamReader has of its connection."},
    {Py_tp_new, source_new},
    {Py_tp_dealloc, source_dealloc},
    {Py_tp_traverse, source_traverse},
    {Py_tp_clear, source_clear},
    {Py_tp_methods, source_methods},
    {Py_tp_getset, source_getset},
    {0, NULL},
};

static PyType_Spec source_spec = {
    .name = "pyconc._core.StreamSource",
    .basicsize = sizeof(pyc_stream_source),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = source_slots,
};

int
pyc_stream_source_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &source_spec, NULL, &state->stream_source_type);
}
