/* SPDX-License-Identifier: MIT */
/* The way of data into a StreamReader. */
#include "py/compat.h"
#include "net/streams/streams.h"

int
pyc_stream_source_check(const pyc_stream_source *self)
{
    if (PYC_LIKELY(PyByteArray_Check(self->buffer))) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 "StreamReader._buffer must be a bytearray, not %.200s",
                 Py_TYPE(self->buffer)->tp_name);
    return -1;
}

/* Appends bytes to the buffer: 0, or -1 with an exception. */
static int
append(pyc_stream_source *self, PyObject *data)
{
    PyObject *buffer = self->buffer;
    Py_ssize_t more = PyBytes_GET_SIZE(data);
    if (pyc_stream_source_check(self) < 0) {
        return -1;
    }
    Py_ssize_t len = PyByteArray_GET_SIZE(buffer);
    if (PyByteArray_Resize(buffer, len + more) < 0) {
        return -1;
    }
    memcpy(PyByteArray_AS_STRING(buffer) + len, PyBytes_AS_STRING(data),
           (size_t)more);
    return 0;
}

int
pyc_stream_source_settle(pyc_stream_source *self)
{
    if (self->whole != NULL) {
        if (append(self, self->whole) < 0) {
            return -1;
        }
        Py_CLEAR(self->whole);
    }
    return 0;
}

/* As a rule a message comes in one piece and is read as a whole: then it is not
 * copied. */
static int
keep(pyc_stream_source *self, PyObject *data)
{
    if (self->whole == NULL && PyByteArray_CheckExact(self->buffer) &&
        PyByteArray_GET_SIZE(self->buffer) == 0 && PyBytes_CheckExact(data)) {
        self->whole = Py_NewRef(data);
        return 0;
    }
    return pyc_stream_source_settle(self) < 0 ? -1 : append(self, data);
}

/* The waiter could not be told: None if it was cancelled, which is in order;
 * else NULL with that exception. */
static PyObject *
unless_cancelled(pyc_state *state, PyObject *waiter)
{
    PyObject *raised = pyc_take_exception();
    PyObject *is = PyObject_CallMethodNoArgs(waiter, state->str_cancelled);
    int cancelled = is == Py_True;
    Py_XDECREF(is);
    if (cancelled) {
        Py_XDECREF(raised);
        Py_RETURN_NONE;
    }
    PyErr_Clear();
    pyc_put_exception(raised);
    return NULL;
}

/* Tells who waits for data, unless it has been cancelled. */
static int
wake(pyc_stream_source *self)
{
    pyc_state *state = self->state;
    PyObject *waiter = self->waiter, *result;
    if (waiter == Py_None) {
        return 0;
    }
    self->waiter = Py_NewRef(Py_None);
    result = PyObject_CallMethodOneArg(waiter, state->str_set_result, Py_None);
    if (result == NULL) {
        result = unless_cancelled(state, waiter);
    }
    Py_DECREF(waiter);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Has the transport stop when there is twice as much as the reader wants. */
static int
control(pyc_stream_source *self, Py_ssize_t len)
{
    int beyond = pyc_stream_source_beyond(self, len, 2);
    if (PYC_LIKELY(beyond <= 0) || self->paused || self->transport == Py_None) {
        return beyond < 0 ? -1 : 0;
    }
    PyObject *transport = Py_NewRef(self->transport);
    PyObject *result =
        PyObject_CallMethodNoArgs(transport, self->state->str_pause_reading);
    Py_DECREF(transport);
    if (result != NULL) {
        self->paused = 1;
        Py_DECREF(result);
    }
    else if (PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        PyErr_Clear(); /* it cannot, and is not asked again */
        Py_SETREF(self->transport, Py_NewRef(Py_None));
    }
    else {
        return -1;
    }
    return 0;
}

PyObject *
pyc_stream_source_feed(pyc_stream_source *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        return PyErr_Format(PyExc_TypeError, "feed() takes bytes, not %.200s",
                            Py_TYPE(data)->tp_name);
    }
    PyObject *reader = self->reader == Py_None /* cleared by the collector */
                           ? NULL
                           : pyc_weakref_get(self->reader);
    if (reader == NULL || PyBytes_GET_SIZE(data) == 0) {
        Py_XDECREF(reader);
        Py_RETURN_NONE;
    }
    int code = -1;
    if (self->eof) {
        PyErr_SetString(PyExc_AssertionError, "feed_data after feed_eof");
        goto done;
    }
    if (keep(self, data) == 0 && wake(self) == 0) {
        code = control(self, pyc_stream_source_len(self));
    }
done:
    Py_DECREF(reader);
    if (code < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
