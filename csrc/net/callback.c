/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/callback.h"

PyObject *
pyc_tell(PyObject *protocol, PyObject *context, PyObject *name, PyObject *arg)
{
    PyObject *args[2] = {Py_NewRef(protocol), arg};
    Py_INCREF(context);
    int entered = pyc_stream_enter(context);
    PyObject *result =
        PyObject_VectorcallMethod(name, args, arg == NULL ? 1 : 2, NULL);
    pyc_stream_leave(context, entered);
    Py_DECREF(args[0]);
    Py_DECREF(context);
    return result;
}

void
pyc_wake_waiter(pyc_loop *loop, PyObject *waiter)
{
    PyObject *result = PyObject_CallMethod(waiter, "cancelled", NULL);
    if (result == Py_False) {
        Py_DECREF(result);
        result = PyObject_CallMethod(waiter, "set_result", "O", Py_None);
    }
    if (result == NULL) {
        pyc_loop_report(loop, "Exception in callback set_result()", NULL, NULL);
    }
    Py_XDECREF(result);
}

int
pyc_callback_get_buffer(pyc_callback *callback, PyObject *protocol,
                        PyObject *name, Py_ssize_t hint, Py_buffer *view)
{
    PyObject *number = PyLong_FromSsize_t(hint), *buffer = NULL;
    Py_ssize_t len = -1;
    if (number != NULL) {
        buffer = pyc_callback_tell(callback, protocol, name, number);
        Py_DECREF(number);
    }
    if (buffer != NULL) {
        len = PyObject_Size(buffer);
    }
    if (len == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_buffer() returned an empty buffer");
    }
    if (len > 0 && PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) < 0) {
        len = -1;
    }
    Py_XDECREF(buffer);
    return len > 0 ? 0 : -1;
}

int
pyc_callback_buffer_updated(pyc_callback *callback, PyObject *protocol,
                            PyObject *name, Py_ssize_t n)
{
    PyObject *count = PyLong_FromSsize_t(n), *result = NULL;
    if (count != NULL) {
        result = pyc_callback_tell(callback, protocol, name, count);
        Py_DECREF(count);
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
