/* SPDX-License-Identifier: MIT */
/* _core.ReadPipeTransport and _core.WritePipeTransport as Python sees them. */
#include "py/compat.h"
#include "net/net.h"
#include "net/pass_on.h"
#include "net/pipe.h"

/* ---- making one -------------------------------------------------------- */

static int
pipe_set_extra(pyc_pipe *self, PyObject *extra)
{
    self->extra = extra == Py_None ? PyDict_New() : Py_NewRef(extra);
    if (self->extra == NULL) {
        return -1;
    }
    PyObject *name = PyUnicode_FromString("pipe");
    int code =
        name == NULL ? -1 : PyObject_SetItem(self->extra, name, self->pipe);
    Py_XDECREF(name);
    return code;
}

/* The descriptor of a file object, or -1 with an exception. An int is none: it
 * could not be closed. */
static int
fileno_of(pyc_pipe *self)
{
    PyObject *number =
        PyObject_CallMethodNoArgs(self->pipe, self->state->str_fileno);
    if (number == NULL) {
        return -1;
    }
    int fd = PyObject_AsFileDescriptor(number);
    Py_DECREF(number);
    return fd;
}

static int
begin_soon(pyc_pipe *self, PyObject *waiter)
{
    if (pyc_loop_soon(self->loop, pyc_pipe_begin, (PyObject *)self) < 0) {
        return -1;
    }
    return waiter == Py_None
               ? 0
               : pyc_loop_soon(self->loop, pyc_wake_waiter, waiter);
}

/* Fills what tp_alloc() gave; whatever fails, the pipe stays the caller's. */
static int
pipe_fill(pyc_pipe *self, pyc_loop *loop, PyObject *context)
{
    self->state = loop->state;
    self->loop = (pyc_loop *)Py_NewRef(loop);
    self->context =
        context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
    self->wrote = loop->turn - 1;
    self->high = PYC_HIGH_WATER;
    self->low = PYC_HIGH_WATER / 4;
    self->flush.run = pyc_pipe_flush_later;
    pyc_link_init(&self->flush.link);
    return self->context == NULL ? -1 : 0;
}

static PyObject *
pipe_make(PyTypeObject *type, PyObject *args, PyObject *kwargs, int writes)
{
    static char *names[] = {"loop",  "pipe",    "protocol", "waiter",
                            "extra", "context", NULL};
    PyObject *loop_object, *pipe, *protocol, *made = NULL;
    PyObject *waiter = Py_None, *extra = Py_None, *context = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|OOO", names,
                                     &loop_object, &pipe, &protocol, &waiter,
                                     &extra, &context)) {
        return NULL;
    }
    pyc_loop *loop = pyc_loop_from(pyc_state_of_type(type), loop_object);
    if (loop == NULL || pyc_loop_check_usable(loop) < 0) {
        return NULL;
    }
    pyc_pipe *self = (pyc_pipe *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->writes = (char)writes;
    self->fd = self->fileno = -1;
    self->pipe = Py_NewRef(pipe);
    self->protocol = Py_NewRef(protocol);
    if (pipe_fill(self, loop, context) < 0 || pipe_set_extra(self, extra) < 0) {
        goto fail;
    }
    /* No protocol: better now than when it is called. */
    made = PyObject_GetAttr(protocol, self->state->str_connection_made);
    self->fileno = made == NULL ? -1 : fileno_of(self);
    Py_XDECREF(made);
    self->fd = self->fileno;
    if (self->fileno < 0 || pyc_pipe_take_fd(self) < 0) {
        goto fail;
    }
    if (begin_soon(self, waiter) < 0) {
        goto fail;
    }
    return (PyObject *)self;
fail:
    Py_CLEAR(self->pipe); /* the caller's to close */
    Py_DECREF(self);
    return NULL;
}

static PyObject *
read_pipe_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return pipe_make(type, args, kwargs, 0);
}

static PyObject *
write_pipe_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return pipe_make(type, args, kwargs, 1);
}

/* asyncio.BaseTransport's would take the arguments for its own. */
static int
pipe_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return 0;
}

/* ---- the object -------------------------------------------------------- */

static int
pipe_traverse(pyc_pipe *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->context);
    Py_VISIT(self->pipe);
    Py_VISIT(self->lost_exc);
    Py_VISIT(self->receive.fn);
    Py_VISIT(self->receive.self);
    return 0;
}

static int
pipe_clear(pyc_pipe *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->context);
    Py_CLEAR(self->pipe);
    Py_CLEAR(self->lost_exc);
    pyc_callback_clear(&self->receive);
    return 0;
}

/* The transport's __del__. */
static void
pipe_finalize(PyObject *object)
{
    pyc_pipe *self = (pyc_pipe *)object;
    PyObject *raised = pyc_take_exception();
    if (self->pipe != NULL &&
        PyErr_ResourceWarning(object, 1, "unclosed transport %R", object) < 0 &&
        PyErr_ExceptionMatches(PyExc_Warning)) {
        PyErr_WriteUnraisable(object);
    }
    PyErr_Clear();
    if (pyc_pipe_release(self) < 0) {
        PyErr_WriteUnraisable(object);
    }
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
}

static void
pipe_dealloc(pyc_pipe *self)
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
    pipe_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
pipe_repr(pyc_pipe *self)
{
    const char *state = self->closing ? " closing" : "";
    PyObject *result, *name = PyType_GetName(Py_TYPE(self));
    if (name == NULL) {
        return NULL;
    }
    if (self->pipe == NULL) {
        result = PyUnicode_FromFormat("<%U closed fd=%d>", name, self->fileno);
    }
    else if (self->loop->closed || pyc_must_pass_on(&self->loop) != NULL) {
        result = PyUnicode_FromFormat("<%U%s fd=%d open>", name, state,
                                      self->fileno);
    }
    else if (self->writes) {
        result = PyUnicode_FromFormat(
            "<%U%s fd=%d %s bufsize=%zu>", name, state, self->fileno,
            self->blocked ? "polling" : "idle", pyc_outbox_bytes(self->outbox));
    }
    else {
        result =
            PyUnicode_FromFormat("<%U%s fd=%d %s>", name, state, self->fileno,
                                 pyc_pipe_reading(self) ? "polling" : "idle");
    }
    Py_DECREF(name);
    return result;
}

static PyObject *
get_pipe(pyc_pipe *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->pipe == NULL ? Py_None : self->pipe);
}

/* As asyncio's can be, to None: somebody else has closed it. */
static int
set_pipe(pyc_pipe *self, PyObject *pipe, void *Py_UNUSED(closure))
{
    if (pipe != Py_None) {
        PyErr_SetString(PyExc_AttributeError, "_pipe can be set to None only");
        return -1;
    }
    Py_CLEAR(self->pipe);
    return 0;
}

static PyGetSetDef pipe_getset[] = {
    {"_pipe", (getter)get_pipe, (setter)set_pipe, NULL, NULL},
    {NULL},
};

/* ---- methods of both --------------------------------------------------- */

static PyObject *
pipe_close(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "close");
    if (pyc_pipe_close(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
pipe_is_closing(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closing);
}

static PyObject *
pipe_set_protocol(pyc_pipe *self, PyObject *protocol)
{
    PYC_PASS_ON_WITH(self, "set_protocol", protocol);
    pyc_callback_clear(&self->receive);
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

static PyObject *
pipe_get_protocol(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->protocol == NULL ? Py_None : self->protocol);
}

/* ---- methods of one ---------------------------------------------------- */

static PyObject *
pipe_is_reading(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!self->closing && !self->paused);
}

static PyObject *
pipe_pause_reading(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "pause_reading");
    if (!self->closing && !self->paused) {
        self->paused = 1;
        pyc_pipe_update(self);
        pyc_pipe_log(self, "debug", "%r pauses reading");
    }
    Py_RETURN_NONE;
}

static PyObject *
pipe_resume_reading(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "resume_reading");
    if (!self->closing && self->paused) {
        self->paused = 0;
        pyc_pipe_update(self);
        pyc_pipe_log(self, "debug", "%r resumes reading");
    }
    Py_RETURN_NONE;
}

static PyObject *
pipe_abort(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    PYC_PASS_ON(self, "abort");
    if (pyc_pipe_force_close(self, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
pipe_can_write_eof(pyc_pipe *self, PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

/* ---- the types --------------------------------------------------------- */

#define METHOD(name, flags, doc)                                               \
    {#name, (PyCFunction)(void (*)(void))pipe_##name, flags, doc}
#define SHARED(name, flags, doc)                                               \
    {#name, (PyCFunction)(void (*)(void))pyc_pipe_##name, flags, doc}
#define COMMON_METHODS                                                         \
    METHOD(is_closing, METH_NOARGS,                                            \
           "is_closing($self, /)\n--\n\nTrue once it closes or is closed."),   \
        METHOD(set_protocol, METH_O,                                           \
               "set_protocol($self, protocol, /)\n--\n\n"                      \
               "Gives what follows to another protocol."),                     \
        METHOD(get_protocol, METH_NOARGS,                                      \
               "get_protocol($self, /)\n--\n\nThe current protocol.")

static PyMethodDef read_pipe_methods[] = {
    COMMON_METHODS,
    METHOD(close, METH_NOARGS,
           "close($self, /)\n--\n\n"
           "Stops reading; connection_lost(None) is called soon."),
    METHOD(is_reading, METH_NOARGS,
           "is_reading($self, /)\n--\n\nTrue unless paused or closing."),
    METHOD(pause_reading, METH_NOARGS,
           "pause_reading($self, /)\n--\n\n"
           "The protocol gets no data until resume_reading()."),
    METHOD(resume_reading, METH_NOARGS,
           "resume_reading($self, /)\n--\n\nEnds pause_reading()."),
    {NULL},
};

static PyMethodDef write_pipe_methods[] = {
    COMMON_METHODS,
    METHOD(close, METH_NOARGS,
           "close($self, /)\n--\n\n"
           "Writes what is queued, then connection_lost(None) is called."),
    {"write_eof", (PyCFunction)pipe_close, METH_NOARGS,
     "write_eof($self, /)\n--\n\nThe same as close()."},
    METHOD(can_write_eof, METH_NOARGS, "can_write_eof($self, /)\n--\n\nTrue."),
    METHOD(abort, METH_NOARGS,
           "abort($self, /)\n--\n\nCloses without writing what is queued."),
    SHARED(write, METH_O,
           "write($self, data, /)\n--\n\n"
           "Writes a bytes-like object, at once or when the pipe takes it."),
    SHARED(writelines, METH_O,
           "writelines($self, list_of_data, /)\n--\n\n"
           "Writes an iterable of bytes-like objects with one system call."),
    SHARED(set_write_buffer_limits, METH_VARARGS | METH_KEYWORDS,
           "set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
           "Sets when pause_writing() and resume_writing() are called, in\n"
           "bytes: above high, and again at low or below."),
    SHARED(get_write_buffer_limits, METH_NOARGS,
           "get_write_buffer_limits($self, /)\n--\n\n"
           "The marks (low, high), in bytes."),
    SHARED(get_write_buffer_size, METH_NOARGS,
           "get_write_buffer_size($self, /)\n--\n\n"
           "How many bytes the pipe has not taken yet."),
    {NULL},
};

#define MEMBER(name, type, field)                                              \
    {name, type, offsetof(pyc_pipe, field), READONLY, NULL}

static PyMemberDef pipe_members[] = {
    MEMBER("_fileno", T_INT, fileno),
    MEMBER("_loop", T_OBJECT, loop),
    MEMBER("_protocol", T_OBJECT, protocol),
    MEMBER("_closing", T_BOOL, closing),
    MEMBER("_paused", T_BOOL, paused),
    MEMBER("_protocol_paused", T_BOOL, protocol_paused),
    MEMBER("_conn_lost", T_UINT, dropped),
    MEMBER("__dictoffset__", T_PYSSIZET, dict),
    MEMBER("__weaklistoffset__", T_PYSSIZET, weakrefs),
    {NULL},
};

#define SIGNATURE                                                              \
    "(loop, pipe, protocol, waiter=None, extra=None, context=None)\n--\n\n"
#define MAKING                                                                 \
    "Made by the loop, which calls protocol.connection_made(transport) in "    \
    "its\n"                                                                    \
    "next turn and then sets the result of waiter. The protocol is called "    \
    "in\n"                                                                     \
    "context, or in a copy of the current one. The pipe, a file object or\n"   \
    "socket, is closed with the transport. ValueError for any other kind of\n" \
    "file.\n"

PyDoc_STRVAR(read_pipe_doc,
             "ReadPipeTransport" SIGNATURE
             "The transport that reads a pipe, FIFO, terminal, other "
             "character\n"
             "device or socket: asyncio.ReadTransport.\n\n" MAKING);
PyDoc_STRVAR(write_pipe_doc,
             "WritePipeTransport" SIGNATURE
             "The transport that writes to a pipe, FIFO, terminal, other\n"
             "character device or socket: asyncio.WriteTransport.\n\n" MAKING);

#define SLOTS(kind)                                                            \
    {Py_tp_doc, (void *)kind##_doc}, {Py_tp_new, kind##_make},                 \
        {Py_tp_methods, kind##_methods}, {Py_tp_members, pipe_members},        \
        {Py_tp_getset, pipe_getset}, {Py_tp_init, pipe_init},                  \
        {Py_tp_dealloc, pipe_dealloc}, {Py_tp_finalize, pipe_finalize},        \
        {Py_tp_traverse, pipe_traverse}, {Py_tp_clear, pipe_clear},            \
    {                                                                          \
        Py_tp_repr, pipe_repr                                                  \
    }

static PyType_Slot read_pipe_slots[] = {SLOTS(read_pipe), {0, NULL}};
static PyType_Slot write_pipe_slots[] = {SLOTS(write_pipe), {0, NULL}};

static PyType_Spec read_pipe_spec = {
    .name = "pyconc._core.ReadPipeTransport",
    .basicsize = sizeof(pyc_pipe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = read_pipe_slots,
};

static PyType_Spec write_pipe_spec = {
    .name = "pyconc._core.WritePipeTransport",
    .basicsize = sizeof(pyc_pipe),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = write_pipe_slots,
};

static int
add_type(PyObject *module, PyType_Spec *spec, PyObject *base_object,
         PyTypeObject **slot)
{
    PyTypeObject *base = (PyTypeObject *)base_object;
    if (base->tp_basicsize != offsetof(pyc_pipe, dict) ||
        base->tp_dictoffset != 0 || base->tp_weaklistoffset != 0) {
        PyErr_Format(PyExc_ImportError,
                     "%R has another layout than pyconc was built for", base);
        return -1;
    }
    return pyc_add_type(module, spec, base_object, slot);
}

int
pyc_pipe_register(PyObject *module, pyc_state *state)
{
    if (add_type(module, &read_pipe_spec, state->asyncio_ReadTransport,
                 &state->read_pipe_type) < 0) {
        return -1;
    }
    return add_type(module, &write_pipe_spec, state->asyncio_WriteTransport,
                    &state->write_pipe_type);
}
