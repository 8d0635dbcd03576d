/* SPDX-License-Identifier: MIT */
#include "sync/queue/store.h"

int
pyc_store_grow(pyc_store *self)
{
    Py_ssize_t size = self->size == 0 ? 8 : self->size * 2;
    PyObject **items = PyMem_RawMalloc((size_t)size * sizeof(*items));
    if (items == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->count; i++) {
        items[i] = *pyc_store_at(self, i);
    }
    PyMem_RawFree(self->items);
    self->items = items;
    self->size = size;
    self->head = 0;
    return 0;
}

/* 1 or 0 for numbers that C can compare, else -1. */
static int
less_number(PyObject *one, PyObject *other)
{
    if (PyLong_CheckExact(one) && PyLong_CheckExact(other)) {
        int large = 0, too_large = 0;
        long left = PyLong_AsLongAndOverflow(one, &large);
        long right = PyLong_AsLongAndOverflow(other, &too_large);
        return large || too_large ? -1 : left < right;
    }
    if (PyFloat_CheckExact(one) && PyFloat_CheckExact(other)) {
        return PyFloat_AS_DOUBLE(one) < PyFloat_AS_DOUBLE(other);
    }
    return -1;
}

/* The same for items: numbers, and tuples that begin with numbers. */
static int
less_plainly(PyObject *one, PyObject *other)
{
    if (!PyTuple_CheckExact(one) || !PyTuple_CheckExact(other)) {
        return less_number(one, other);
    }
    if (PyTuple_GET_SIZE(one) == 0 || PyTuple_GET_SIZE(other) == 0) {
        return -1;
    }
    one = PyTuple_GET_ITEM(one, 0);
    other = PyTuple_GET_ITEM(other, 0);
    int rc = less_number(one, other);
    /* Equal ones leave it to what follows them. */
    return rc != 0 || less_number(other, one) == 1 ? rc : -1;
}

static int
less(PyObject *one, PyObject *other)
{
    int plain = less_plainly(one, other);
    if (plain >= 0) {
        return plain;
    }
    Py_INCREF(one);
    Py_INCREF(other);
    int rc = PyObject_RichCompareBool(one, other, Py_LT);
    Py_DECREF(one);
    Py_DECREF(other);
    return rc;
}

Py_ssize_t
pyc_store_heap_place(pyc_store *self, PyObject *item)
{
    Py_ssize_t place = self->count;
    while (place > 0) {
        Py_ssize_t parent = (place - 1) >> 1;
        int rc = less(item, *pyc_store_at(self, parent));
        if (rc < 0) {
            return -1;
        }
        if (rc == 0) {
            break;
        }
        place = parent;
    }
    return place;
}

int
pyc_store_heap_insert(pyc_store *self, PyObject *item, Py_ssize_t place)
{
    if (pyc_store_push(self, item) < 0) {
        return -1;
    }
    for (Py_ssize_t at = self->count - 1; at != place;) {
        Py_ssize_t parent = (at - 1) >> 1;
        *pyc_store_at(self, at) = *pyc_store_at(self, parent);
        at = parent;
    }
    *pyc_store_at(self, place) = item;
    return 0;
}

/* The way of the smaller children down to a leaf: its length, or -1. */
static int
way_down(pyc_store *self, Py_ssize_t count, Py_ssize_t *way)
{
    int length = 0;
    for (Py_ssize_t child = 1; child < count; child = 2 * child + 1) {
        if (child + 1 < count) {
            int rc = less(*pyc_store_at(self, child),
                          *pyc_store_at(self, child + 1));
            if (rc < 0) {
                return -1;
            }
            child += !rc;
        }
        way[length++] = child;
    }
    return length;
}

int
pyc_store_heap_way(pyc_store *self, pyc_heap_way *way)
{
    Py_ssize_t count = self->count - 1;
    PyObject *last = *pyc_store_at(self, count);
    way->length = way_down(self, count, way->places);
    for (; way->length > 0; way->length--) {
        int rc = less(last, *pyc_store_at(self, way->places[way->length - 1]));
        if (rc < 0) {
            return -1;
        }
        if (rc == 0) {
            break;
        }
    }
    return way->length < 0 ? -1 : 0;
}

PyObject *
pyc_store_heap_remove(pyc_store *self, const pyc_heap_way *way)
{
    PyObject *first = *pyc_store_at(self, 0);
    PyObject *last = pyc_store_pop_last(self);
    Py_ssize_t place = 0;
    for (int i = 0; i < way->length; i++) {
        *pyc_store_at(self, place) = *pyc_store_at(self, way->places[i]);
        place = way->places[i];
    }
    if (self->count > 0) {
        *pyc_store_at(self, place) = last;
    }
    return first;
}

void
pyc_store_free(pyc_store *self)
{
    PyMem_RawFree(self->items);
    *self = (pyc_store){0};
}
