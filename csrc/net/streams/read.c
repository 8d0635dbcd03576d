/* SPDX-License-Identifier: MIT */
/* The way of data out of a StreamReader. */
#include "py/compat.h"
#include "net/streams/streams.h"

/* Whether this is no case for asyncio's methods. Whoever has waited for data
 * gets it even when the connection was lost after that. */
static int
is_usual(const pyc_stream_source *self, int waited)
{
    return (waited || self->exception == Py_None) &&
           PyByteArray_CheckExact(self->buffer);
}

/* Has the transport go on, which was told to stop. */
static int
resume(pyc_stream_source *self)
{
    PyObject *transport = Py_NewRef(self->transport);
    self->paused = 0;
    PyObject *result =
        PyObject_CallMethodNoArgs(transport, self->state->str_resume_reading);
    Py_DECREF(transport);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* A future that is done when something has come. */
static PyObject *
wait_for_data(pyc_stream_source *self)
{
    PyObject *exc = self->exception;
    if (exc != Py_None) { /* nothing comes any more */
        int made = PyExceptionInstance_Check(exc);
        PyErr_SetObject(made ? (PyObject *)Py_TYPE(exc) : exc,
                        made ? exc : NULL);
        return NULL;
    }
    if (self->waiter != Py_None) {
        Py_RETURN_NONE;
    }
    if (self->paused && resume(self) < 0) {
        return NULL;
    }
    PyObject *create_future = Py_NewRef(self->create_future);
    PyObject *waiter = PyObject_CallNoArgs(create_future);
    Py_DECREF(create_future);
    if (waiter != NULL) {
        Py_SETREF(self->waiter, Py_NewRef(waiter));
    }
    return waiter;
}

/* The first n bytes of the buffer, which loses them. */
static PyObject *
cut(PyObject *buffer, Py_ssize_t n)
{
    Py_ssize_t len = PyByteArray_GET_SIZE(buffer);
    PyObject *data =
        PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), n);
    int code = data == NULL ? -1
               : n < len    ? PySequence_DelSlice(buffer, 0, n)
                            : PyByteArray_Resize(buffer, 0);
    if (code < 0) {
        Py_CLEAR(data);
    }
    return data;
}

/* The first n bytes, or as many as there are. */
static PyObject *
take(pyc_stream_source *self, Py_ssize_t n)
{
    PyObject *data;
    if (self->whole != NULL && PyBytes_GET_SIZE(self->whole) <= n) {
        data = self->whole;
        self->whole = NULL;
    }
    else {
        /* To compare with the limit may have called Python. */
        if (pyc_stream_source_settle(self) < 0 ||
            pyc_stream_source_check(self) < 0) {
            return NULL;
        }
        Py_ssize_t len = PyByteArray_GET_SIZE(self->buffer);
        data = cut(self->buffer, n < len ? n : len);
    }
    if (PYC_UNLIKELY(self->paused) && data != NULL) {
        int beyond =
            pyc_stream_source_beyond(self, pyc_stream_source_len(self), 1);
        if (beyond < 0 || (beyond == 0 && resume(self) < 0)) {
            Py_CLEAR(data);
        }
    }
    return data;
}

/* ---- read(), readexactly() --------------------------------------------- */

/* The arguments n > 0 and waited: 1; 0 when this is asyncio's case; -1 with an
 * exception. */
static int
parse(pyc_stream_source *self, PyObject *const *args, Py_ssize_t nargs,
      Py_ssize_t *n)
{
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "2 arguments expected, got %zd", nargs);
        return -1;
    }
    if (!PyLong_CheckExact(args[0])) {
        return 0;
    }
    *n = PyLong_AsSsize_t(args[0]);
    if (*n == -1) {
        PyErr_Clear(); /* OverflowError */
    }
    return *n > 0 && is_usual(self, args[1] == Py_True);
}

PyObject *
pyc_stream_source_read(pyc_stream_source *self, PyObject *const *args,
                       Py_ssize_t nargs)
{
    Py_ssize_t n;
    int usual = parse(self, args, nargs, &n);
    if (usual <= 0) {
        return usual < 0 ? NULL : Py_NewRef(Py_None);
    }
    return pyc_stream_source_len(self) == 0 && !self->eof ? wait_for_data(self)
                                                          : take(self, n);
}

PyObject *
pyc_stream_source_readexactly(pyc_stream_source *self, PyObject *const *args,
                              Py_ssize_t nargs)
{
    Py_ssize_t n;
    int usual = parse(self, args, nargs, &n);
    if (usual > 0) {
        if (pyc_stream_source_len(self) >= n) {
            return take(self, n);
        }
        if (!self->eof) {
            return wait_for_data(self);
        }
    }
    return usual < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- readuntil(), readline() ------------------------------------------- */

/* Where the separator's `more` bytes end; -1 without them. */
static Py_ssize_t
find(const pyc_stream_source *self, const char *separator, Py_ssize_t more,
     Py_ssize_t searched)
{
    const char *start = self->whole != NULL
                            ? PyBytes_AS_STRING(self->whole)
                            : PyByteArray_AS_STRING(self->buffer);
    Py_ssize_t len = pyc_stream_source_len(self);
    if (searched >= len) {
        return -1;
    }
    const char *found = memmem(start + searched, (size_t)(len - searched),
                               separator, (size_t)more);
    return found == NULL ? -1 : found - start + more;
}

static PyObject *
until(pyc_stream_source *self, PyObject *separator, Py_ssize_t searched)
{
    Py_ssize_t more = PyBytes_GET_SIZE(separator);
    Py_ssize_t end = find(self, PyBytes_AS_STRING(separator), more, searched);
    Py_ssize_t before =
        end < 0 ? pyc_stream_source_len(self) + 1 - more : end - more;
    int beyond = pyc_stream_source_beyond(self, before, 1);
    if (beyond < 0) {
        return NULL;
    }
    if (end >= 0 && !beyond) {
        return take(self, end);
    }
    return beyond || self->eof ? Py_NewRef(Py_None) : wait_for_data(self);
}

PyObject *
pyc_stream_source_readuntil(pyc_stream_source *self, PyObject *const *args,
                            Py_ssize_t nargs)
{
    if (nargs != 2) {
        return PyErr_Format(PyExc_TypeError, "2 arguments expected, got %zd",
                            nargs);
    }
    Py_ssize_t searched = PyLong_AsSsize_t(args[1]);
    if (searched == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (!PyBytes_CheckExact(args[0]) || PyBytes_GET_SIZE(args[0]) == 0 ||
        !is_usual(self, searched >= 0)) {
        Py_RETURN_NONE;
    }
    return until(self, args[0], searched < 0 ? 0 : searched);
}
