/* SPDX-License-Identifier: MIT */
/* multiprocessing.Array of a simple C type. */
#include "ipc/value.h"

#include "py/arguments.h"

#include <stdbool.h>
#include <string.h>

/* A slice up to this size is copied to the stack first. */
#define SMALL 8192

/* A slice of the items. */
typedef struct {
    Py_ssize_t start, step, count;
} slice;

#define SELF ((pyc_value *)self)

static bool
in_range(pyc_value *self, Py_ssize_t *index)
{
    if (*index < 0) {
        *index += self->length;
    }
    if (*index >= 0 && *index < self->length) {
        return true;
    }
    PyErr_SetString(PyExc_IndexError, "invalid index");
    return false;
}

/* Of an index that is not negative, as iteration has it, or else from the end.
 */
static PyObject *
get_item(PyObject *self, Py_ssize_t index)
{
    if (!in_range(SELF, &index)) {
        return NULL;
    }
    int how = pyc_value_take(SELF);
    if (how == PYC_NOT_TAKEN) {
        return NULL;
    }
    uint64_t bits = pyc_item_load(SELF->at + index * SELF->width, SELF->width);
    return pyc_value_give(SELF, how) < 0 ? NULL
                                         : pyc_item_object(SELF->code[0], bits);
}

static PyObject *
array_item(PyObject *self, Py_ssize_t index)
{
    if (PYC_LIKELY(SELF->at != NULL)) {
        return get_item(self, index);
    }
    PyObject *key = PyLong_FromSsize_t(index);
    PyObject *item = key == NULL ? NULL : pyc_value_ask(SELF, key, NULL);
    Py_XDECREF(key);
    return item;
}

static int
find_slice(pyc_value *self, PyObject *key, slice *found)
{
    Py_ssize_t stop;
    if (PySlice_Unpack(key, &found->start, &stop, &found->step) < 0) {
        return -1;
    }
    found->count =
        PySlice_AdjustIndices(self->length, &found->start, &stop, found->step);
    return 0;
}

/* Under the lock. */
static void
copy_items(pyc_value *self, const slice *of, char *to)
{
    Py_ssize_t width = self->width;
    const char *from = self->at + of->start * width;
    if (of->step == 1) {
        memcpy(to, from, (size_t)(of->count * width));
        return;
    }
    for (Py_ssize_t i = 0; i < of->count; i++) {
        memcpy(to + i * width, from + i * of->step * width, (size_t)width);
    }
}

/* Neighbours that are equal become one object. */
static PyObject *
list_of(char code, const char *items, Py_ssize_t width, Py_ssize_t count)
{
    PyObject *item = NULL, *list = PyList_New(count);
    uint64_t before = 0;
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        uint64_t bits = pyc_item_load(items + i * width, width);
        item = item != NULL && bits == before ? Py_NewRef(item)
                                              : pyc_item_object(code, bits);
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        before = bits;
        PyList_SET_ITEM(list, i, item);
    }
    return list;
}

static PyObject *
get_slice(PyObject *self, PyObject *key)
{
    _Alignas(8) char few[SMALL];
    char *items = few;
    PyObject *result = NULL;
    slice of;
    if (find_slice(SELF, key, &of) < 0) {
        return NULL;
    }
    if (of.count * SELF->width > SMALL) {
        items = PyMem_Malloc((size_t)(of.count * SELF->width));
        if (items == NULL) {
            return PyErr_NoMemory();
        }
    }
    int how = pyc_value_take(SELF);
    if (how != PYC_NOT_TAKEN) {
        copy_items(SELF, &of, items);
        if (pyc_value_give(SELF, how) == 0) {
            result = SELF->code[0] == 'c'
                         ? PyBytes_FromStringAndSize(items, of.count)
                         : list_of(SELF->code[0], items, SELF->width, of.count);
        }
    }
    if (items != few) {
        PyMem_Free(items);
    }
    return result;
}

static PyObject *
array_subscript(PyObject *self, PyObject *key)
{
    if (PYC_UNLIKELY(SELF->at == NULL)) {
        return pyc_value_ask(SELF, key, NULL);
    }
    if (PyIndex_Check(key)) {
        Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
        return index == -1 && PyErr_Occurred() ? NULL : get_item(self, index);
    }
    if (PySlice_Check(key) && SELF->code[0] != 'u') {
        return get_slice(self, key);
    }
    return pyc_value_ask(SELF, key, NULL);
}

static int
set_item(PyObject *self, Py_ssize_t index, uint64_t bits)
{
    if (!in_range(SELF, &index)) {
        return -1;
    }
    int how = pyc_value_take(SELF);
    if (how == PYC_NOT_TAKEN) {
        return -1;
    }
    pyc_item_store(SELF->at + index * SELF->width, SELF->width, bits);
    return pyc_value_give(SELF, how);
}

/* Numbers of the same kind and size: their bits mean the same. */
static bool
is_same_kind(char code, const char *format)
{
    static const char *const kinds[] = {"bhilq", "BHILQ", "f", "d"};
    if (format == NULL) {
        return false;
    }
    if (format[0] == '@' || format[0] == '=' ||
        format[0] == (PY_LITTLE_ENDIAN ? '<' : '>')) {
        format++;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(kinds); i++) {
        if (strchr(kinds[i], code) != NULL) {
            return format[0] != '\0' && format[1] == '\0' &&
                   strchr(kinds[i], format[0]) != NULL;
        }
    }
    return false;
}

/* A buffer with the right number of the same numbers: 1; 0 if it is not. */
static int
buffer_of(pyc_value *self, const slice *of, PyObject *value, Py_buffer *view)
{
    if (!PyObject_CheckBuffer(value) ||
        PyObject_TypeCheck(value, self->state->array_type)) {
        return 0; /* another Array's items are read under its own lock */
    }
    if (PyObject_GetBuffer(value, view, PyBUF_ND | PyBUF_FORMAT) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (view->ndim == 1 && view->itemsize == self->width &&
        view->shape[0] == of->count &&
        is_same_kind(self->code[0], view->format)) {
        return 1;
    }
    PyBuffer_Release(view);
    return 0;
}

/* The bits of a list's or tuple's items, to be freed; NULL if they are not the
 * usual ones. */
static char *
bits_of(pyc_value *self, const slice *of, PyObject *value)
{
    if ((!PyList_CheckExact(value) && !PyTuple_CheckExact(value)) ||
        PySequence_Fast_GET_SIZE(value) != of->count) {
        return NULL;
    }
    char *items = PyMem_Malloc((size_t)(of->count * self->width + 1));
    for (Py_ssize_t i = 0; items != NULL && i < of->count; i++) {
        uint64_t bits;
        if (i >= PySequence_Fast_GET_SIZE(value) ||
            !pyc_item_bits(self->code[0], PySequence_Fast_GET_ITEM(value, i),
                           &bits)) {
            PyMem_Free(items);
            return NULL;
        }
        pyc_item_store(items + i * self->width, self->width, bits);
    }
    return items;
}

static int
store_items(pyc_value *self, const slice *of, const char *items)
{
    int how = pyc_value_take(self);
    if (how == PYC_NOT_TAKEN) {
        return -1;
    }
    memmove(self->at + of->start * self->width, items,
            (size_t)(of->count * self->width));
    return pyc_value_give(self, how);
}

/* 1: done; 0: not for C. */
static int
set_slice(PyObject *self, PyObject *key, PyObject *value)
{
    slice of;
    Py_buffer view;
    int rc = 0;
    if (find_slice(SELF, key, &of) < 0) {
        return -1;
    }
    if (of.step != 1) {
        return 0;
    }
    if (buffer_of(SELF, &of, value, &view)) {
        rc = store_items(SELF, &of, view.buf) < 0 ? -1 : 1;
        PyBuffer_Release(&view);
        return rc;
    }
    char *items = NULL;
    PYC_BEGIN_CRITICAL_SECTION(value);
    items = bits_of(SELF, &of, value);
    PYC_END_CRITICAL_SECTION();
    if (items != NULL) {
        rc = store_items(SELF, &of, items) < 0 ? -1 : 1;
        PyMem_Free(items);
    }
    return rc;
}

static int
array_assign(PyObject *self, PyObject *key, PyObject *value)
{
    uint64_t bits;
    int done = 0;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "Array does not support item deletion");
        return -1;
    }
    if (SELF->at != NULL && PyIndex_Check(key) &&
        pyc_item_bits(SELF->code[0], value, &bits)) {
        Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
        return index == -1 && PyErr_Occurred() ? -1
                                               : set_item(self, index, bits);
    }
    if (SELF->at != NULL && PySlice_Check(key)) {
        done = set_slice(self, key, value);
    }
    if (done != 0) {
        return done < 0 ? -1 : 0;
    }
    PyObject *result = pyc_value_ask(SELF, key, value);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static Py_ssize_t
array_length(PyObject *self)
{
    return pyc_value_is_bound(SELF) ? SELF->length : -1;
}

static int
array_buffer(PyObject *self, Py_buffer *view, int flags)
{
    if (SELF->at == NULL) {
        return pyc_value_is_bound(SELF)
                   ? PyObject_GetBuffer(SELF->obj, view, flags)
                   : -1;
    }
    if (PyBuffer_FillInfo(view, self, SELF->at, SELF->length * SELF->width, 0,
                          flags) < 0) {
        return -1;
    }
    view->itemsize = SELF->width;
    if (flags & PyBUF_FORMAT) {
        view->format = SELF->code[0] == 'u' ? "w" : SELF->code;
    }
    if (flags & PyBUF_ND) {
        view->shape = &SELF->length;
    }
    if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES) {
        view->strides = &SELF->width;
    }
    return 0;
}

static PyMethodDef array_methods[] = {PYC_VALUE_METHODS, {NULL}};

static PyType_Slot array_slots[] = {
    PYC_VALUE_SLOTS,
    {Py_tp_methods, array_methods},
    {Py_sq_item, array_item},
    {Py_sq_length, array_length},
    {Py_mp_length, array_length},
    {Py_mp_subscript, array_subscript},
    {Py_mp_ass_subscript, array_assign},
    {Py_bf_getbuffer, array_buffer},
    {0, NULL},
};

PyType_Spec pyc_array_spec = {
    .name = "pyconc._ipc.Array",
    .basicsize = sizeof(pyc_value),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = array_slots,
};
