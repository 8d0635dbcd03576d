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

/* Fills what tp_alloc() gave; whatever fails, the pipe stays the caller's. */
static int
pipe_fill(pyc_pipe *self, pyc_loop *loop, PyObject *context)
{
    pyc_transport_fill(&self->base, &pyc_pipe_kind, loop);
    self->context =
        context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
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
    if (pyc_transport_begin_soon(&self->base, waiter) < 0) {
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

/* ---- the object -------------------------------------------------------- */

static int
pipe_traverse(pyc_pipe *self, visitproc visit, void *arg)
{
    Py_VISIT(self->pipe);
    return pyc_transport_traverse(&self->base, visit, arg);
}

static int
pipe_clear(pyc_pipe *self)
{
    Py_CLEAR(self->pipe);
    pyc_transport_clear(&self->base);
    return 0;
}

static int
pipe_release(PyObject *self)
{
    return pyc_pipe_release((pyc_pipe *)self);
}

static void
pipe_finalize(PyObject *self)
{
    pyc_transport_finalize(self, ((pyc_pipe *)self)->pipe != NULL,
                           pipe_release);
}

static void
pipe_dealloc(PyObject *self)
{
    if (pyc_transport_is_dead(self)) {
        pipe_clear((pyc_pipe *)self);
        pyc_transport_free(self);
    }
}

static PyObject *
pipe_repr(pyc_pipe *self)
{
    const char *state = self->closing ? " closing" : "";
    /* First: the loop's thread lets go of the pipe, and then of the loop. */
    int elsewhere = pyc_is_passed_on((PyObject *)self, &self->loop);
    PyObject *result, *name = PyType_GetName(Py_TYPE(self));
    if (name == NULL) {
        return NULL;
    }
    if (self->pipe == NULL) {
        result = PyUnicode_FromFormat("<%U closed fd=%d>", name, self->fileno);
    }
    else if (elsewhere || self->loop->closed) {
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
    return pyc_field_get((PyObject *)self, &self->pipe);
}

/* As asyncio's can be, to None: somebody else has closed it. */
static int
set_pipe(pyc_pipe *self, PyObject *pipe, void *Py_UNUSED(closure))
{
    if (pipe != Py_None) {
        PyErr_SetString(PyExc_AttributeError, "_pipe can be set to None only");
        return -1;
    }
    PYC_FIELD_SET(self, pipe, NULL);
    return 0;
}

static PyGetSetDef pipe_getset[] = {
    PYC_TRANSPORT_GETSET,
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
pipe_set_protocol(pyc_pipe *self, PyObject *protocol)
{
    PYC_PASS_ON_WITH(self, "set_protocol", protocol);
    pyc_callback_clear(&self->receive);
    PYC_FIELD_SET(self, protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

/* ---- methods of one ---------------------------------------------------- */

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

#define PIPE_METHODS                                                           \
    PYC_IS_CLOSING(pyc_transport_is_closing),                                  \
        PYC_SET_PROTOCOL(pipe_set_protocol),                                   \
        PYC_GET_PROTOCOL(pyc_transport_get_protocol)

static PyMethodDef read_pipe_methods[] = {
    PIPE_METHODS,
    PYC_METHOD("close", pipe_close, METH_NOARGS,
               "close($self, /)\n--\n\n"
               "Stops reading; connection_lost(None) is called soon."),
    PYC_IS_READING(pyc_transport_is_reading, "True unless paused or closing."),
    PYC_PAUSE_READING(pipe_pause_reading),
    PYC_RESUME_READING(pipe_resume_reading),
    {NULL},
};

static PyMethodDef write_pipe_methods[] = {
    PIPE_METHODS,
    PYC_METHOD("close", pipe_close, METH_NOARGS,
               "close($self, /)\n--\n\n"
               "Writes what is queued, then connection_lost(None) is called."),
    PYC_METHOD("write_eof", pipe_close, METH_NOARGS,
               "write_eof($self, /)\n--\n\nThe same as close()."),
    PYC_METHOD("can_write_eof", pipe_can_write_eof, METH_NOARGS,
               "can_write_eof($self, /)\n--\n\nTrue."),
    PYC_ABORT(pipe_abort),
    PYC_WRITE(pyc_pipe_write, "Writes", "pipe"),
    PYC_METHOD(
        "writelines", pyc_pipe_writelines, METH_O,
        "writelines($self, list_of_data, /)\n--\n\n"
        "Writes an iterable of bytes-like objects with one system call."),
    PYC_SET_WRITE_BUFFER_LIMITS(pyc_transport_set_write_buffer_limits,
                                "above high"),
    PYC_GET_WRITE_BUFFER_LIMITS(pyc_transport_get_write_buffer_limits),
    PYC_GET_WRITE_BUFFER_SIZE(pyc_transport_get_write_buffer_size,
                              "How many bytes the pipe has not taken yet."),
    {NULL},
};

static PyMemberDef pipe_members[] = {
    PYC_TRANSPORT_MEMBERS,
    PYC_MEMBER("_fileno", T_INT, pyc_pipe, fileno),
    PYC_MEMBER("_conn_lost", T_UINT, pyc_pipe, dropped),
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
        {Py_tp_getset, pipe_getset}, {Py_tp_init, pyc_transport_init},         \
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

int
pyc_pipe_register(PyObject *module, pyc_state *state)
{
    if (pyc_transport_add_type(module, &read_pipe_spec,
                               state->asyncio_ReadTransport,
                               &state->read_pipe_type) < 0) {
        return -1;
    }
    return pyc_transport_add_type(module, &write_pipe_spec,
                                  state->asyncio_WriteTransport,
                                  &state->write_pipe_type);
}
