/* SPDX-License-Identifier: MIT */
/* What a function works on: buffers that are held until it is over. */
#include "native/work.h"

#if PY_BIG_ENDIAN
#    define NATIVE_ORDER ">!"
#else
#    define NATIVE_ORDER "<"
#endif

/* NULL with an exception set. */
static Py_buffer *
hold(pyc_work *self, PyObject *object, int flags, const char *what)
{
    Py_buffer *view = &self->views[self->view_count];
    if (PyObject_GetBuffer(object, view, flags) == 0) {
        self->view_count++;
        return view;
    }
    if (PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Format(PyExc_TypeError, "%s must be a buffer, not '%.100s'", what,
                     Py_TYPE(object)->tp_name);
    }
    else if (PyErr_ExceptionMatches(PyExc_BufferError) ||
             PyErr_ExceptionMatches(PyExc_ValueError)) {
        /* numpy raises the one, others the other. */
        PyObject *cause = pyc_take_exception();
        PyErr_Format(PyExc_BufferError, "%s: %S", what, cause);
        Py_XDECREF(cause);
    }
    return NULL;
}

int
pyc_work_hold_data(pyc_work *self, PyObject *data)
{
    if (Py_IsNone(data)) {
        return 0;
    }
    if (PyLong_Check(data)) {
        self->data = PyLong_AsVoidPtr(data);
        return self->data == NULL && PyErr_Occurred() ? -1 : 0;
    }
    /* Whether it is written to is between the caller and the function: much of
     * what is given to it is bytes of struct.pack(). */
    Py_buffer *view = hold(self, data, PyBUF_SIMPLE, "data");
    if (view == NULL) {
        return -1;
    }
    self->data = view->buf;
    return 0;
}

int
pyc_work_hold_whole(pyc_work *self, PyObject *input, PyObject *output)
{
    Py_buffer *view;
    if (!Py_IsNone(input)) {
        view = hold(self, input, PyBUF_CONTIG_RO, "input");
        if (view == NULL) {
            return -1;
        }
        self->in = view->buf;
        self->in_step = (size_t)view->len;
    }
    if (!Py_IsNone(output)) {
        view = hold(self, output, PyBUF_CONTIG, "output");
        if (view == NULL) {
            return -1;
        }
        self->out = view->buf;
        self->out_step = (size_t)view->len;
    }
    return 0;
}

static int
is_double(const Py_buffer *view)
{
    const char *format = view->format != NULL ? view->format : "B";
    if (*format != '\0' && strchr("@=" NATIVE_ORDER, *format) != NULL) {
        format++;
    }
    return strcmp(format, "d") == 0;
}

/* For functions of one double: both are doubles where C can take them. */
static int
check_doubles(const Py_buffer *view, const char *what)
{
    if (!is_double(view)) {
        PyErr_Format(PyExc_TypeError,
                     "%s must consist of C doubles in native order, not of "
                     "items of format '%s'",
                     what, view->format != NULL ? view->format : "B");
        return -1;
    }
    if (view->len > 0 && (uintptr_t)view->buf % _Alignof(double) != 0) {
        PyErr_Format(PyExc_BufferError, "%s is not aligned", what);
        return -1;
    }
    return 0;
}

static size_t
rows_of(const Py_buffer *view)
{
    return view->ndim > 0 ? (size_t)view->shape[0] : 1;
}

int
pyc_work_hold_rows(pyc_work *self, PyObject *input, PyObject *output)
{
    Py_buffer *in = hold(self, input, PyBUF_CONTIG_RO | PyBUF_FORMAT, "input");
    if (in == NULL) {
        return -1;
    }
    Py_buffer *out = hold(self, output, PyBUF_CONTIG | PyBUF_FORMAT, "output");
    if (out == NULL) {
        return -1;
    }
    size_t in_items = rows_of(in), out_items = rows_of(out);
    if (self->signature != PYC_BLOCK) {
        if (check_doubles(in, "input") < 0 ||
            check_doubles(out, "output") < 0) {
            return -1;
        }
        in_items = (size_t)in->len / sizeof(double);
        out_items = (size_t)out->len / sizeof(double);
    }
    if (in_items != out_items) {
        PyErr_Format(PyExc_ValueError,
                     "input has %zu items and output %zu: they must be as many",
                     in_items, out_items);
        return -1;
    }
    self->in = in->buf;
    self->out = out->buf;
    self->in_step = in_items > 0 ? (size_t)in->len / in_items : 0;
    self->out_step = in_items > 0 ? (size_t)out->len / in_items : 0;
    self->job.total = in_items;
    return 0;
}

void
pyc_work_release(pyc_work *self)
{
    PYC_BEGIN_CRITICAL_SECTION(self);
    while (self->view_count > 0) {
        PyBuffer_Release(&self->views[--self->view_count]);
    }
    Py_CLEAR(self->owner);
    PYC_END_CRITICAL_SECTION();
}
