/* SPDX-License-Identifier: MIT */
/* What a batch reads and writes, while the GIL is still there. */
#include "hash/batch.h"

/* Hashing nothing takes as long as hashing this many bytes. */
#define ITEM_WORK ((size_t)128)

/* One buffer into *span; `index` is -1 when `what` is a single object. */
static int
hold_buffer(pyc_batch *self, PyObject *object, pyc_span *span, Py_buffer *view,
            const char *what, Py_ssize_t index)
{
    if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE) == 0) {
        self->view_count++;
        span->data = view->buf;
        span->size = (size_t)view->len;
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
        return -1;
    }
    const char *type = Py_TYPE(object)->tp_name;
    if (index < 0) {
        PyErr_Format(PyExc_TypeError,
                     "%s: a bytes-like object is required, not '%.100s'", what,
                     type);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "%s[%zd]: a bytes-like object is required, not '%.100s'",
                     what, index, type);
    }
    return -1;
}

/* The spans of a tuple's buffers. Bytes objects need no view: whoever holds
 * the tuple holds their memory. NULL with an exception set. */
static pyc_span *
hold_buffers(pyc_batch *self, PyObject *tuple, const char *what)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    pyc_span *spans = PyMem_New(pyc_span, count);
    Py_buffer *views = NULL;
    if (spans == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        if (PyBytes_CheckExact(item)) {
            spans[i].data = PyBytes_AS_STRING(item);
            spans[i].size = (size_t)PyBytes_GET_SIZE(item);
            continue;
        }
        if (views == NULL) {
            size_t most = self->view_count + (size_t)(count - i);
            views = PyMem_Realloc(self->views, most * sizeof(*views));
            if (views == NULL) {
                PyErr_NoMemory();
                goto fail;
            }
            self->views = views;
        }
        if (hold_buffer(self, item, &spans[i], &views[self->view_count], what,
                        i) < 0) {
            goto fail;
        }
    }
    return spans;

fail:
    PyMem_Free(spans);
    return NULL;
}

/* One item in the place of many would be taken apart into its bytes. */
int
pyc_expect_many(PyObject *items, const char *what)
{
    if (PyUnicode_Check(items) || PyBytes_Check(items) ||
        PyByteArray_Check(items) || PyMemoryView_Check(items)) {
        PyErr_Format(PyExc_TypeError,
                     "%s: expected an iterable of them, such as a list, not a "
                     "single %.100s",
                     what, Py_TYPE(items)->tp_name);
        return -1;
    }
    return 0;
}

int
pyc_batch_hold_inputs(pyc_batch *self, PyObject *buffers, const char *what)
{
    if (pyc_expect_many(buffers, what) < 0) {
        return -1;
    }
    self->owners = PySequence_Tuple(buffers);
    if (self->owners == NULL) {
        return -1;
    }
    self->inputs = hold_buffers(self, self->owners, what);
    if (self->inputs == NULL) {
        return -1;
    }
    self->job.total = (size_t)PyTuple_GET_SIZE(self->owners);
    for (size_t i = 0; i < self->job.total; i++) {
        self->work += ITEM_WORK + self->inputs[i].size;
    }
    return 0;
}

int
pyc_batch_hold_salts(pyc_batch *self, PyObject *salt)
{
    if (!PyList_Check(salt) && !PyTuple_Check(salt)) {
        self->salts = PyTuple_Pack(1, salt);
    }
    else {
        self->salts = PySequence_Tuple(salt);
    }
    if (self->salts == NULL) {
        return -1;
    }
    self->salt_count = (size_t)PyTuple_GET_SIZE(self->salts);
    if (PyList_Check(salt) || PyTuple_Check(salt)) {
        if (self->salt_count != self->job.total) {
            PyErr_Format(PyExc_ValueError,
                         "salt has %zu items for %zu passwords",
                         self->salt_count, self->job.total);
            return -1;
        }
    }
    self->salt_spans = hold_buffers(self, self->salts, "salt");
    return self->salt_spans == NULL ? -1 : 0;
}

int
pyc_batch_make_results(pyc_batch *self, size_t size)
{
    Py_ssize_t total = (Py_ssize_t)self->job.total;
    self->results = PyList_New(total);
    for (Py_ssize_t i = 0; self->results != NULL && i < total; i++) {
        PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (result == NULL) {
            return -1;
        }
        PyList_SET_ITEM(self->results, i, result);
    }
    return self->results == NULL ? -1 : 0;
}
