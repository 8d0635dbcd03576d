/* SPDX-License-Identifier: MIT */
/* What a batch reads and writes, while the GIL is still there. */
#include "hash/batch.h"

#if PY_BIG_ENDIAN
#    define PYC_NATIVE_ORDER ">!"
#else
#    define PYC_NATIVE_ORDER "<"
#endif

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

/* Room for that many more views. 0 or -1. */
static int
make_room(pyc_batch *self, size_t more)
{
    size_t most = self->view_count + more;
    Py_buffer *views = PyMem_Realloc(self->views, most * sizeof(*views));
    if (views == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->views = views;
    return 0;
}

/* The spans of a tuple's buffers. Bytes objects need no view: whoever holds
 * the tuple holds their memory. NULL with an exception set. */
static pyc_span *
hold_buffers(pyc_batch *self, PyObject *tuple, const char *what)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    pyc_span *spans = PyMem_New(pyc_span, count);
    bool roomy = false;
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
        if (!roomy && make_room(self, (size_t)(count - i)) < 0) {
            goto fail;
        }
        roomy = true;
        if (hold_buffer(self, item, &spans[i], &self->views[self->view_count],
                        what, i) < 0) {
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

static void
add_work(pyc_batch *self)
{
    for (size_t i = 0; i < self->job.total; i++) {
        self->work += ITEM_WORK + self->inputs[i].size;
    }
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
    add_work(self);
    return 0;
}

/* The letter of the integers that `view` has, in upper case where they are
 * unsigned, or 0 with TypeError. */
static char
integer_kind(const Py_buffer *view)
{
    const char *format = view->format != NULL ? view->format : "B";
    const char *kind =
        strchr("@=" PYC_NATIVE_ORDER, *format) ? format + 1 : format;
    int is_integer = strlen(kind) == 1 && strchr("iIlLqQnN", *kind) != NULL;
    if (view->ndim == 1 && is_integer &&
        (view->itemsize == 4 || view->itemsize == 8)) {
        return *kind;
    }
    PyErr_Format(PyExc_TypeError,
                 "offsets must be one row of 32-bit or 64-bit integers in a "
                 "buffer, not %d-dimensional with format '%s'",
                 view->ndim, format);
    return 0;
}

static int64_t
offset_at(const Py_buffer *view, char kind, size_t index)
{
    const char *at = (const char *)view->buf + index * (size_t)view->itemsize;
    uint32_t small;
    int64_t large;
    if (view->itemsize == 4) {
        memcpy(&small, at, sizeof(small));
        return kind < 'a' ? (int64_t)small : (int32_t)small;
    }
    memcpy(&large, at, sizeof(large));
    return large;
}

/* The spans that the offsets cut out of `whole`. 0 or -1. */
static int
cut_parts(pyc_batch *self, const pyc_span *whole, const Py_buffer *view,
          char kind)
{
    size_t count = (size_t)(view->len / view->itemsize);
    if (count == 0) {
        PyErr_SetString(PyExc_ValueError,
                        "offsets is empty: n parts have n + 1 offsets");
        return -1;
    }
    self->job.total = count - 1;
    self->inputs = PyMem_New(pyc_span, self->job.total);
    if (self->inputs == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        int64_t offset = offset_at(view, kind, i);
        if (offset < before || (uint64_t)offset > whole->size) {
            PyErr_Format(PyExc_ValueError,
                         "offsets[%zu] is %lld: not from the one before it "
                         "(%lld) to the %zu bytes of the buffer",
                         i, (long long)offset, (long long)before, whole->size);
            return -1;
        }
        if (i > 0) {
            self->inputs[i - 1].data = (const char *)whole->data + before;
            self->inputs[i - 1].size = (size_t)(offset - before);
        }
        before = offset;
    }
    return 0;
}

int
pyc_batch_hold_parts(pyc_batch *self, PyObject *buffer, PyObject *offsets)
{
    Py_buffer view;
    pyc_span whole;
    if (make_room(self, 1) < 0 ||
        hold_buffer(self, buffer, &whole, &self->views[self->view_count],
                    "buffers", -1) < 0) {
        return -1;
    }
    if (PyObject_GetBuffer(offsets, &view, PyBUF_ND | PyBUF_FORMAT) < 0) {
        return -1;
    }
    char kind = integer_kind(&view);
    int rc = kind == 0 ? -1 : cut_parts(self, &whole, &view, kind);
    PyBuffer_Release(&view);
    if (rc == 0) {
        add_work(self);
    }
    return rc;
}

/* The tuple of an iterable that has one for each password. */
static PyObject *
one_each(pyc_batch *self, PyObject *items, const char *what)
{
    PyObject *tuple = PySequence_Tuple(items);
    if (tuple != NULL && (size_t)PyTuple_GET_SIZE(tuple) != self->job.total) {
        PyErr_Format(PyExc_ValueError, "%s has %zd items for %zu passwords",
                     what, PyTuple_GET_SIZE(tuple), self->job.total);
        Py_CLEAR(tuple);
    }
    return tuple;
}

int
pyc_batch_hold_salts(pyc_batch *self, PyObject *salt)
{
    if (PyList_Check(salt) || PyTuple_Check(salt)) {
        self->salts = one_each(self, salt, "salt");
    }
    else {
        self->salts = PyTuple_Pack(1, salt);
    }
    if (self->salts == NULL) {
        return -1;
    }
    self->salt_spans = hold_buffers(self, self->salts, "salt");
    return self->salt_spans == NULL ? -1 : 0;
}

int
pyc_batch_hold_keys(pyc_batch *self, PyObject *keys)
{
    if (pyc_expect_many(keys, "keys") < 0) {
        return -1;
    }
    self->keys = one_each(self, keys, "keys");
    if (self->keys == NULL) {
        return -1;
    }
    self->key_spans = hold_buffers(self, self->keys, "keys");
    if (self->key_spans == NULL) {
        return -1;
    }
    for (size_t i = 0; i < self->job.total; i++) {
        if (self->key_spans[i].size == 0) {
            PyErr_Format(PyExc_ValueError, "keys[%zu] is empty", i);
            return -1;
        }
    }
    self->matches = PyMem_Calloc(self->job.total + 1, 1);
    if (self->matches == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->results = Py_NewRef(Py_None);
    return 0;
}

/* All results in the caller's buffer. 0 or -1. */
static int
hold_out(pyc_batch *self, Py_ssize_t size, PyObject *out)
{
    if (make_room(self, 1) < 0) {
        return -1;
    }
    Py_buffer *view = &self->views[self->view_count];
    if (PyObject_GetBuffer(out, view, PyBUF_CONTIG) < 0) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError,
                         "out must be a writable buffer, bytes or bytearray, "
                         "not '%.100s'",
                         Py_TYPE(out)->tp_name);
        }
        return -1;
    }
    self->view_count++;
    if (view->len != size) {
        PyErr_Format(PyExc_ValueError,
                     "out has %zd bytes where %zu digests of %zu bytes make "
                     "%zd",
                     view->len, self->job.total, self->digest_size, size);
        return -1;
    }
    self->out = view->buf;
    self->results = Py_NewRef(out);
    return 0;
}

/* A bytes object for each result. 0 or -1. */
static int
make_list(pyc_batch *self, Py_ssize_t size)
{
    Py_ssize_t total = (Py_ssize_t)self->job.total;
    self->results = PyList_New(total);
    for (Py_ssize_t i = 0; self->results != NULL && i < total; i++) {
        PyObject *result = PyBytes_FromStringAndSize(NULL, size);
        if (result == NULL) {
            return -1;
        }
        PyList_SET_ITEM(self->results, i, result);
    }
    return self->results == NULL ? -1 : 0;
}

int
pyc_batch_make_results(pyc_batch *self, size_t size, PyObject *out)
{
    if (Py_IsNone(out)) {
        return make_list(self, (Py_ssize_t)size);
    }
    if (self->job.total > (size_t)PY_SSIZE_T_MAX / size) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t all = (Py_ssize_t)(self->job.total * size);
    if (out == (PyObject *)&PyBytes_Type) {
        self->results = PyBytes_FromStringAndSize(NULL, all);
        self->out = self->results == NULL
                        ? NULL
                        : (unsigned char *)PyBytes_AS_STRING(self->results);
        return self->results == NULL ? -1 : 0;
    }
    if (out != (PyObject *)&PyByteArray_Type) {
        return hold_out(self, all, out);
    }
    PyObject *made = PyByteArray_FromStringAndSize(NULL, all);
    int rc = made == NULL ? -1 : hold_out(self, all, made);
    Py_XDECREF(made);
    return rc;
}
