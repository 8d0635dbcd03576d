/* SPDX-License-Identifier: MIT */
/* What the transports of streams, pipes and TLS have in common as Python
 * objects. */
#ifndef PYC_NET_TRANSPORT_TYPE_H
#define PYC_NET_TRANSPORT_TYPE_H

#include "loop/loop.h"
#include "net/field.h"

/* The beginning of each of them. */
#define PYC_TRANSPORT_OBJECT                                                   \
    PyObject_HEAD                                                              \
    PyObject *extra; /* the slot `_extra` of asyncio.BaseTransport */          \
    PyObject *dict;                                                            \
    PyObject *weakrefs;                                                        \
    pyc_loop *loop

typedef struct {
    PYC_TRANSPORT_OBJECT;
} pyc_transport_object;

/* Adds the type to the module, if `base` is laid out as ours are: 0, or -1 with
 * an exception. */
int pyc_transport_add_type(PyObject *module, PyType_Spec *spec, PyObject *base,
                           PyTypeObject **slot);
/* Tells loop.sendfile() and start_tls() that they may use transports of the
 * type, the former by the SendfileMode of that name. 0, or -1. */
int pyc_transport_allow(PyTypeObject *type, pyc_state *state, const char *mode);

/* tp_init: asyncio.BaseTransport's would take the arguments for its own. */
int pyc_transport_init(PyObject *self, PyObject *args, PyObject *kwargs);
/* tp_finalize, which is the transport's __del__: a ResourceWarning if it is
 * `open`, and then release(self), if there is one, which returns -1 with an
 * exception when that fails. */
void pyc_transport_finalize(PyObject *self, int open,
                            int (*release)(PyObject *));
/* The first half of tp_dealloc: whether nobody has taken a reference in the
 * finalizer, so that its fields may be cleared... */
int pyc_transport_is_dead(PyObject *self);
/* ...and the second. */
void pyc_transport_free(PyObject *self);

/* Counts a write after the end; from the sixth on each is a warning in
 * asyncio's log. 0, or -1 with an exception. */
int pyc_transport_drop_write(pyc_state *state, unsigned *count,
                             const char *message);

/* Entries of the tables of methods. */
#define PYC_METHOD(name, function, flags, doc)                                 \
    {name, (PyCFunction)(void (*)(void))function, flags, doc}

#define PYC_MEMBER(name, type, struct_name, field)                             \
    {name, type, offsetof(struct_name, field), READONLY, NULL}
#define PYC_TRANSPORT_OBJECT_MEMBERS                                           \
    PYC_MEMBER("__dictoffset__", T_PYSSIZET, pyc_transport_object, dict),      \
        PYC_MEMBER("__weaklistoffset__", T_PYSSIZET, pyc_transport_object,     \
                   weakrefs)
#define PYC_TRANSPORT_OBJECT_GETSET                                            \
    PYC_FIELD("_loop", pyc_transport_object, loop)

#define PYC_WRITE(function, verb, file)                                        \
    PYC_METHOD("write", function, METH_O,                                      \
               "write($self, data, /)\n--\n\n" verb                            \
               " a bytes-like object, at once or when the " file " takes it.")
#define PYC_SET_WRITE_BUFFER_LIMITS(function, when)                            \
    PYC_METHOD("set_write_buffer_limits", function,                            \
               METH_VARARGS | METH_KEYWORDS,                                   \
               "set_write_buffer_limits($self, /, high=None, low=None)\n"      \
               "--\n\n"                                                        \
               "Sets when pause_writing() and resume_writing() are called, "   \
               "in\n"                                                          \
               "bytes: " when ", and again at low or below.")
#define PYC_GET_WRITE_BUFFER_LIMITS(function)                                  \
    PYC_METHOD("get_write_buffer_limits", function, METH_NOARGS,               \
               "get_write_buffer_limits($self, /)\n--\n\n"                     \
               "The marks (low, high), in bytes.")
#define PYC_GET_WRITE_BUFFER_SIZE(function, doc)                               \
    PYC_METHOD("get_write_buffer_size", function, METH_NOARGS,                 \
               "get_write_buffer_size($self, /)\n--\n\n" doc)
#define PYC_ABORT(function)                                                    \
    PYC_METHOD(                                                                \
        "abort", function, METH_NOARGS,                                        \
        "abort($self, /)\n--\n\nCloses without sending what is queued.")
#define PYC_IS_CLOSING(function)                                               \
    PYC_METHOD(                                                                \
        "is_closing", function, METH_NOARGS,                                   \
        "is_closing($self, /)\n--\n\nTrue once it closes or is closed.")
#define PYC_IS_READING(function, doc)                                          \
    PYC_METHOD("is_reading", function, METH_NOARGS,                            \
               "is_reading($self, /)\n--\n\n" doc)
#define PYC_PAUSE_READING(function)                                            \
    PYC_METHOD("pause_reading", function, METH_NOARGS,                         \
               "pause_reading($self, /)\n--\n\n"                               \
               "The protocol gets no data until resume_reading().")
#define PYC_RESUME_READING(function)                                           \
    PYC_METHOD("resume_reading", function, METH_NOARGS,                        \
               "resume_reading($self, /)\n--\n\nEnds pause_reading().")
#define PYC_SET_PROTOCOL(function)                                             \
    PYC_METHOD("set_protocol", function, METH_O,                               \
               "set_protocol($self, protocol, /)\n--\n\n"                      \
               "Gives what follows to another protocol.")
#define PYC_GET_PROTOCOL(function)                                             \
    PYC_METHOD("get_protocol", function, METH_NOARGS,                          \
               "get_protocol($self, /)\n--\n\nThe current protocol.")

#endif
