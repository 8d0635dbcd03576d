/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/outbox.h"

#define OUTBOX_MIN 16

/* ---- the queue --------------------------------------------------------- */

/* Room for `more` of them; 0, or -1 with MemoryError. */
static int
outbox_grow(pyc_outbox **place, size_t more)
{
    pyc_outbox *old = *place;
    unsigned len = pyc_outbox_len(old);
    size_t size = OUTBOX_MIN;
    while (size < len + more) {
        size *= 2;
    }
    pyc_outbox *box = PyMem_Malloc(
        sizeof(*box) + size * (sizeof(struct iovec) + sizeof(PyObject *)));
    if (box == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *box = (pyc_outbox){.bytes = pyc_outbox_bytes(old),
                        .end = len,
                        .size = (unsigned)size,
                        .owners = (PyObject **)&box->iov[size]};
    if (old != NULL) {
        memcpy(box->iov, old->iov + old->head, len * sizeof(box->iov[0]));
        memcpy(box->owners, old->owners + old->head,
               len * sizeof(box->owners[0]));
        PyMem_Free(old);
    }
    *place = box;
    return 0;
}

int
pyc_outbox_push(pyc_outbox **place, PyObject *owner, const char *data,
                size_t len, size_t more)
{
    pyc_outbox *box = *place;
    if (box == NULL || box->end == box->size) {
        if (outbox_grow(place, more) < 0) {
            Py_DECREF(owner);
            return -1;
        }
        box = *place;
    }
    box->owners[box->end] = owner;
    box->iov[box->end++] = (struct iovec){(char *)data, len};
    box->bytes += len;
    return 0;
}

void
pyc_outbox_sent(pyc_outbox **place, size_t n)
{
    pyc_outbox *box = *place;
    box->bytes -= n;
    if (box->bytes == 0) {
        pyc_outbox_drop(place);
        return;
    }
    while (n >= box->iov[box->head].iov_len) {
        n -= box->iov[box->head].iov_len;
        Py_DECREF(box->owners[box->head++]);
    }
    box->iov[box->head].iov_base = (char *)box->iov[box->head].iov_base + n;
    box->iov[box->head].iov_len -= n;
}

void
pyc_outbox_drop(pyc_outbox **place)
{
    pyc_outbox *box = *place;
    if (box == NULL) {
        return;
    }
    *place = NULL;
    while (box->head < box->end) {
        Py_DECREF(box->owners[box->head++]);
    }
    PyMem_Free(box);
}

/* Takes back all but the first `len` of the outbox. */
static void
outbox_cut(pyc_outbox **place, unsigned len)
{
    pyc_outbox *box = *place;
    if (box == NULL) {
        return;
    }
    while (box->end - box->head > len) {
        box->bytes -= box->iov[--box->end].iov_len;
        Py_DECREF(box->owners[box->end]);
    }
    if (len == 0) {
        pyc_outbox_drop(place);
    }
}

/* ---- what goes into it ------------------------------------------------- */

PyObject *
pyc_outbox_keeper(PyObject *object, const char **data, size_t len)
{
    if (object != NULL && PyBytes_CheckExact(object)) {
        return Py_NewRef(object);
    }
    if (object != NULL && PyMemoryView_Check(object)) {
        PyObject *base = PyMemoryView_GET_BASE(object);
        if (base != NULL && PyBytes_CheckExact(base)) {
            return Py_NewRef(base);
        }
    }
    PyObject *copy = PyBytes_FromStringAndSize(*data, (Py_ssize_t)len);
    if (copy != NULL) {
        *data = PyBytes_AS_STRING(copy);
    }
    return copy;
}

int
pyc_outbox_view(PyObject *object, Py_buffer *view)
{
    if (PyBytes_Check(object) || PyByteArray_Check(object) ||
        PyMemoryView_Check(object)) {
        return PyObject_GetBuffer(object, view, PyBUF_SIMPLE);
    }
    PyObject *name = PyType_GetName(Py_TYPE(object));
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not %R", name);
        Py_DECREF(name);
    }
    return -1;
}

/* Queues one of `more` lines. */
static int
push_line(pyc_outbox **place, PyObject *line, size_t more)
{
    Py_buffer view;
    PyObject *owner = NULL;
    int code = 0;
    if (PYC_LIKELY(PyBytes_CheckExact(line))) {
        size_t len = (size_t)PyBytes_GET_SIZE(line);
        return len == 0 ? 0
                        : pyc_outbox_push(place, Py_NewRef(line),
                                          PyBytes_AS_STRING(line), len, more);
    }
    if (PyObject_GetBuffer(line, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    const char *data = view.buf;
    size_t len = (size_t)view.len;
    if (len > 0) {
        owner = pyc_outbox_keeper(line, &data, len);
        code =
            owner == NULL ? -1 : pyc_outbox_push(place, owner, data, len, more);
    }
    PyBuffer_Release(&view);
    return code;
}

int
pyc_outbox_push_lines(pyc_outbox **place, PyObject *list)
{
    unsigned before = pyc_outbox_len(*place);
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(list); i++) {
        PyObject *line = Py_NewRef(PySequence_Fast_GET_ITEM(list, i));
        int code = push_line(place, line,
                             (size_t)(PySequence_Fast_GET_SIZE(list) - i));
        Py_DECREF(line);
        if (code < 0) {
            outbox_cut(place, before);
            return -1;
        }
    }
    return 0;
}

PyObject *
pyc_outbox_join(PyObject *lines)
{
    PyObject *none = PyBytes_FromStringAndSize(NULL, 0);
    /* "O" would take a tuple for the arguments themselves. */
    PyObject *all =
        none == NULL ? NULL : PyObject_CallMethod(none, "join", "(O)", lines);
    Py_XDECREF(none);
    return all;
}

int
pyc_outbox_check_lines(PyObject *list)
{
    PyObject *all = pyc_outbox_join(list);
    Py_XDECREF(all);
    return all == NULL ? -1 : 0;
}

/* ---- limits ------------------------------------------------------------ */

/* A limit as asyncio compares it: any number. */
static int
limit_from(PyObject *object, Py_ssize_t *limit)
{
    if (PyFloat_Check(object)) {
        double value = PyFloat_AS_DOUBLE(object);
        *limit = value >= (double)PY_SSIZE_T_MAX ? PY_SSIZE_T_MAX
                                                 : (Py_ssize_t)value;
        return 0;
    }
    *limit = PyNumber_AsSsize_t(object, NULL);
    return *limit == -1 && PyErr_Occurred() ? -1 : 0;
}

int
pyc_limits_parse(PyObject *args, PyObject *kwargs, const char *format,
                 size_t default_high, size_t *high_limit, size_t *low_limit)
{
    static char *names[] = {"high", "low", NULL};
    PyObject *high_object = Py_None, *low_object = Py_None;
    Py_ssize_t high = (Py_ssize_t)default_high, low = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &high_object,
                                     &low_object)) {
        return -1;
    }
    if (low_object != Py_None && limit_from(low_object, &low) < 0) {
        return -1;
    }
    if (high_object != Py_None) {
        if (limit_from(high_object, &high) < 0) {
            return -1;
        }
    }
    else if (low_object != Py_None) {
        high = low > PY_SSIZE_T_MAX / 4 ? PY_SSIZE_T_MAX : 4 * low;
    }
    if (low_object == Py_None) {
        low = high / 4;
    }
    if (low < 0 || high < low) {
        PyErr_Format(PyExc_ValueError,
                     "high (%zd) must be >= low (%zd) must be >= 0", high, low);
        return -1;
    }
    *high_limit = (size_t)high;
    *low_limit = (size_t)low;
    return 0;
}
