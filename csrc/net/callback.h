/* SPDX-License-Identifier: MIT */
/* How transports call their protocols. */
#ifndef PYC_NET_CALLBACK_H
#define PYC_NET_CALLBACK_H

#include "loop/loop.h"

#include <errno.h>

/* A method of the protocol, looked up once: fn(self, ...), or fn(...) when
 * `self` is NULL. */
typedef struct {
    PyObject *fn;
    PyObject *self;
} pyc_callback;

/* 0, or -1 with an exception. */
static inline int
pyc_callback_find(pyc_callback *callback, PyObject *protocol, PyObject *name)
{
    PyObject *method = PyObject_GetAttr(protocol, name);
    if (method == NULL) {
        return -1;
    }
    if (PyMethod_Check(method)) {
        callback->fn = Py_NewRef(PyMethod_GET_FUNCTION(method));
        callback->self = Py_NewRef(PyMethod_GET_SELF(method));
        Py_DECREF(method);
    }
    else {
        callback->fn = method;
    }
    return 0;
}

/* callback(arg): a new reference, or NULL with an exception. */
static inline PyObject *
pyc_callback_call(const pyc_callback *callback, PyObject *arg)
{
    PyObject *fn = callback->fn, *args[3] = {NULL, callback->self, arg};
    PyObject *result;
    Py_INCREF(fn);
    if (PYC_LIKELY(args[1] != NULL)) {
        PyObject *self = Py_NewRef(args[1]);
        result = PyObject_Vectorcall(fn, args + 1,
                                     2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(self);
    }
    else {
        result = PyObject_Vectorcall(fn, args + 2,
                                     1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_DECREF(fn);
    return result;
}

/* protocol.name(arg), by way of the callback. */
static inline PyObject *
pyc_callback_tell(pyc_callback *callback, PyObject *protocol, PyObject *name,
                  PyObject *arg)
{
    if (PYC_UNLIKELY(callback->fn == NULL) &&
        pyc_callback_find(callback, protocol, name) < 0) {
        return NULL;
    }
    return pyc_callback_call(callback, arg);
}

static inline void
pyc_callback_clear(pyc_callback *callback)
{
    Py_CLEAR(callback->fn);
    Py_CLEAR(callback->self);
}

/* Around a callback of the protocol; leave with what enter gave. */
static inline int
pyc_stream_enter(PyObject *context)
{
    if (PYC_UNLIKELY(PyContext_Enter(context) < 0)) {
        PyErr_Clear(); /* a callback within a callback: it is entered */
        return 0;
    }
    return 1;
}

static inline void
pyc_stream_leave(PyObject *context, int entered)
{
    if (PYC_LIKELY(entered) && PYC_UNLIKELY(PyContext_Exit(context) < 0)) {
        PyErr_Clear();
    }
}

/* protocol.name(), or protocol.name(arg) if there is one, in the context: a new
 * reference, or NULL with an exception. */
PyObject *pyc_tell(PyObject *protocol, PyObject *context, PyObject *name,
                   PyObject *arg);

/* protocol.get_buffer(hint), into *view: 0, or -1 with an exception. */
int pyc_callback_get_buffer(pyc_callback *callback, PyObject *protocol,
                            PyObject *name, Py_ssize_t hint, Py_buffer *view);
/* protocol.buffer_updated(n): 0, or -1 with an exception. */
int pyc_callback_buffer_updated(pyc_callback *callback, PyObject *protocol,
                                PyObject *name, Py_ssize_t n);

/* A pyc_soon_fn: sets the result of the future that awaits the transport. */
void pyc_wake_waiter(pyc_loop *loop, PyObject *waiter);

/* Receives what is there, up to `size` bytes, as a bytes object; directly into
 * it when that much is expected, else by way of the loop's scratch buffer. As
 * recv(): <= 0 when *data was not made; -2 with an exception. */
static inline __attribute__((always_inline)) ssize_t
pyc_receive(pyc_loop *loop,
            ssize_t (*receive)(int fd, void *memory, size_t len), int fd,
            size_t size, int directly, PyObject **data)
{
    ssize_t n;
    if (PYC_LIKELY(!directly)) {
        char *scratch = pyc_loop_scratch(loop);
        if (scratch == NULL) {
            return -2;
        }
        n = receive(fd, scratch, size);
        if (n > 0) {
            *data = PyBytes_FromStringAndSize(scratch, n);
            return *data == NULL ? -2 : n;
        }
        return n;
    }
    *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (*data == NULL) {
        return -2;
    }
    n = receive(fd, PyBytes_AS_STRING(*data), size);
    if (n <= 0) {
        int error = errno;
        Py_CLEAR(*data);
        errno = error;
        return n;
    }
    return (size_t)n < size && _PyBytes_Resize(data, n) < 0 ? -2 : n;
}

#endif
