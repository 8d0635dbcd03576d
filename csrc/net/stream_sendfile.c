/* SPDX-License-Identifier: MIT */
/* What loop.sendfile() needs of a transport: to wait until all that was written
 * before has gone, and then, again and again, until the socket takes more. */
#include "py/compat.h"
#include "net/stream.h"

static const char closed[] = "Connection is closed by peer";

static int
new_waiter(pyc_stream *self)
{
    PyObject *waiter =
        PyObject_CallMethod((PyObject *)self->loop, "create_future", NULL);
    PYC_FIELD_SET(self, empty_waiter, waiter);
    return waiter == NULL ? -1 : 0;
}

static PyObject *
settle(PyObject *waiter, int lost)
{
    if (!lost) {
        return PyObject_CallMethod(waiter, "set_result", "O", Py_None);
    }
    PyObject *exc = PyObject_CallFunction(PyExc_ConnectionError, "s", closed);
    if (exc == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_CallMethod(waiter, "set_exception", "O", exc);
    Py_DECREF(exc);
    return result;
}

void
pyc_stream_tell_waiter(pyc_stream *self, int lost)
{
    if (self->empty_waiter == NULL) {
        return;
    }
    PyObject *waiter = Py_NewRef(self->empty_waiter);
    PyObject *done = PyObject_CallMethod(waiter, "done", NULL);
    if (done == Py_False) { /* nor cancelled */
        Py_SETREF(done, settle(waiter, lost));
    }
    if (done == NULL) {
        pyc_loop_report(self->loop, "Exception in sendfile", NULL,
                        (PyObject *)self);
    }
    Py_XDECREF(done);
    Py_DECREF(waiter);
}

PyObject *
pyc_stream__make_empty_waiter(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (self->outbox != NULL && !self->blocked) {
        /* Whoever flushes early, such as get_write_buffer_size(), tells no
         * waiter: only what the socket does not take is waited for. */
        pyc_transport_flush(&self->base);
    }
    if (new_waiter(self) < 0) {
        return NULL;
    }
    if (self->outbox == NULL) {
        pyc_stream_tell_waiter(self, 0);
    }
    return Py_NewRef(self->empty_waiter);
}

PyObject *
pyc_stream__make_room_waiter(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closing || self->conn_lost) {
        PyErr_SetString(PyExc_ConnectionError, closed);
        return NULL;
    }
    if (new_waiter(self) < 0) {
        return NULL;
    }
    self->blocked = 1;
    pyc_stream_update(self);
    return Py_NewRef(self->empty_waiter);
}

PyObject *
pyc_stream__reset_empty_waiter(pyc_stream *self, PyObject *Py_UNUSED(ignored))
{
    PYC_FIELD_SET(self, empty_waiter, NULL);
    if (self->blocked && self->outbox == NULL) {
        self->blocked = 0;
        pyc_stream_update(self);
    }
    Py_RETURN_NONE;
}
