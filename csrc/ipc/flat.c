/* SPDX-License-Identifier: MIT */
#include "ipc/flat.h"

#include <stdint.h>
#include <string.h>

#define DEPTH_MOST 4
#define COUNT_MOST 255

enum {
    NONE,
    FALSE,
    TRUE,
    SMALL, /* an int of a byte */
    INT,
    FLOAT,
    ASCII, /* these two with a length of two bytes */
    BYTES,
    TUPLE, /* these three with a count of a byte */
    LIST,
    DICT,
};

static bool
put(pyc_flat *self, uint8_t tag, const void *data, size_t size)
{
    if (size + 1 > PYC_FLAT_MOST - self->length) {
        return false;
    }
    char *to = self->data + self->length;
    *to = (char)tag;
    memcpy(to + 1, data, size);
    self->length += size + 1;
    return true;
}

static bool
put_text(pyc_flat *self, uint8_t tag, const void *data, size_t size)
{
    uint16_t length = (uint16_t)size;
    if (size > PYC_FLAT_MOST - 3 || self->length > PYC_FLAT_MOST - 3 - size) {
        return false;
    }
    put(self, tag, &length, sizeof(length));
    memcpy(self->data + self->length, data, size);
    self->length += size;
    return true;
}

static bool
put_int(pyc_flat *self, PyObject *object)
{
    int overflow;
    int64_t number = PyLong_AsLongLongAndOverflow(object, &overflow);
    uint8_t small = (uint8_t)number;
    if (overflow) {
        return false;
    }
    return number >= 0 && number < 256
               ? put(self, SMALL, &small, sizeof(small))
               : put(self, INT, &number, sizeof(number));
}

static bool
put_simple(pyc_flat *self, PyObject *object, int depth)
{
    if (PyLong_CheckExact(object)) {
        return put_int(self, object);
    }
    if (PyUnicode_CheckExact(object)) {
        return PyUnicode_IS_COMPACT_ASCII(object) &&
               put_text(self, ASCII, PyUnicode_DATA(object),
                        (size_t)PyUnicode_GET_LENGTH(object));
    }
    if (PyTuple_CheckExact(object)) {
        Py_ssize_t n = PyTuple_GET_SIZE(object);
        uint8_t count = (uint8_t)n;
        bool fits = depth < DEPTH_MOST && n <= COUNT_MOST &&
                    put(self, TUPLE, &count, sizeof(count));
        for (Py_ssize_t i = 0; fits && i < n; i++) {
            fits = put_simple(self, PyTuple_GET_ITEM(object, i), depth + 1);
        }
        return fits;
    }
    if (PyFloat_CheckExact(object)) {
        double real = PyFloat_AS_DOUBLE(object);
        return put(self, FLOAT, &real, sizeof(real));
    }
    if (PyBytes_CheckExact(object)) {
        return put_text(self, BYTES, PyBytes_AS_STRING(object),
                        (size_t)PyBytes_GET_SIZE(object));
    }
    return object == Py_None    ? put(self, NONE, "", 0)
           : object == Py_True  ? put(self, TRUE, "", 0)
           : object == Py_False ? put(self, FALSE, "", 0)
                                : false;
}

static bool
put_list(pyc_flat *self, PyObject *list)
{
    Py_ssize_t n = PyList_GET_SIZE(list);
    uint8_t count = (uint8_t)n;
    bool fits = n <= COUNT_MOST && put(self, LIST, &count, sizeof(count));
    for (Py_ssize_t i = 0; fits && i < n; i++) {
        fits = put_simple(self, PyList_GET_ITEM(list, i), 1);
    }
    return fits;
}

static bool
put_dict(pyc_flat *self, PyObject *dict)
{
    Py_ssize_t n = PyDict_GET_SIZE(dict), at = 0;
    uint8_t count = (uint8_t)n;
    PyObject *key, *value;
    bool fits = n <= COUNT_MOST && put(self, DICT, &count, sizeof(count));
    while (fits && PyDict_Next(dict, &at, &key, &value)) {
        fits = put_simple(self, key, 1) && put_simple(self, value, 1);
    }
    return fits;
}

bool
pyc_flat_add(pyc_flat *self, PyObject *object)
{
    bool fits;
    if (!PyList_CheckExact(object) && !PyDict_CheckExact(object)) {
        return put_simple(self, object, 0);
    }
    PYC_BEGIN_CRITICAL_SECTION(object);
    fits = PyList_CheckExact(object) ? put_list(self, object)
                                     : put_dict(self, object);
    PYC_END_CRITICAL_SECTION();
    return fits;
}

void
pyc_flat_begin(pyc_flat *self, int count)
{
    uint8_t n = (uint8_t)count;
    put(self, TUPLE, &n, sizeof(n));
}

typedef struct {
    const char *at, *end;
} reader;

static PyObject *
corrupt(void)
{
    PyErr_SetString(PyExc_ValueError, "no flat object");
    return NULL;
}

static bool
get(reader *self, void *to, size_t size)
{
    if ((size_t)(self->end - self->at) < size) {
        return false;
    }
    memcpy(to, self->at, size);
    self->at += size;
    return true;
}

static PyObject *
get_text(reader *self, uint8_t tag)
{
    uint16_t length;
    if (!get(self, &length, sizeof(length)) ||
        self->end - self->at < (ptrdiff_t)length) {
        return corrupt();
    }
    const char *text = self->at;
    self->at += length;
    return tag == BYTES ? PyBytes_FromStringAndSize(text, length)
                        : PyUnicode_DecodeASCII(text, length, NULL);
}

static PyObject *get_object(reader *self, int depth);

static PyObject *
get_items(reader *self, uint8_t tag, int depth)
{
    uint8_t count;
    if (depth > DEPTH_MOST || !get(self, &count, sizeof(count))) {
        return corrupt();
    }
    PyObject *items = tag == TUPLE ? PyTuple_New(count) : PyList_New(count);
    for (int i = 0; items != NULL && i < count; i++) {
        PyObject *item = get_object(self, depth + 1);
        if (item == NULL) {
            Py_CLEAR(items);
        }
        else if (tag == TUPLE) {
            PyTuple_SET_ITEM(items, i, item);
        }
        else {
            PyList_SET_ITEM(items, i, item);
        }
    }
    return items;
}

static PyObject *
get_dict(reader *self, int depth)
{
    uint8_t count;
    if (depth > DEPTH_MOST || !get(self, &count, sizeof(count))) {
        return corrupt();
    }
    PyObject *dict = PyDict_New();
    for (int i = 0; dict != NULL && i < count; i++) {
        PyObject *key = get_object(self, depth + 1);
        PyObject *value = key == NULL ? NULL : get_object(self, depth + 1);
        if (value == NULL || PyDict_SetItem(dict, key, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *
get_number(reader *self, uint8_t tag)
{
    uint8_t small;
    int64_t number;
    double real;
    switch (tag) {
    case SMALL:
        return get(self, &small, sizeof(small)) ? PyLong_FromLong(small)
                                                : corrupt();
    case INT:
        return get(self, &number, sizeof(number)) ? PyLong_FromLongLong(number)
                                                  : corrupt();
    default:
        return get(self, &real, sizeof(real)) ? PyFloat_FromDouble(real)
                                              : corrupt();
    }
}

static PyObject *
get_object(reader *self, int depth)
{
    uint8_t tag;
    if (!get(self, &tag, sizeof(tag))) {
        return corrupt();
    }
    switch (tag) {
    case NONE:
        return Py_NewRef(Py_None);
    case FALSE:
        return Py_NewRef(Py_False);
    case TRUE:
        return Py_NewRef(Py_True);
    case SMALL:
    case INT:
    case FLOAT:
        return get_number(self, tag);
    case ASCII:
    case BYTES:
        return get_text(self, tag);
    case TUPLE:
    case LIST:
        return get_items(self, tag, depth);
    case DICT:
        return get_dict(self, depth);
    default:
        return corrupt();
    }
}

PyObject *
pyc_flat_read(const char *data, size_t length)
{
    reader self = {data, data + length};
    PyObject *object = get_object(&self, 0);
    if (object != NULL && self.at != self.end) {
        Py_DECREF(object);
        return corrupt();
    }
    return object;
}
