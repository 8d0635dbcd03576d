/* SPDX-License-Identifier: MIT */
/* The items of a queue: a ring, of which a stack uses one end and a heap the
 * beginning. Owns its items. Nothing here calls Python but the
 * comparisons of a heap. */
#ifndef PYC_SYNC_QUEUE_STORE_H
#define PYC_SYNC_QUEUE_STORE_H

#include "py/compat.h"

typedef struct {
    PyObject **items; /* a power of two of them, or NULL */
    Py_ssize_t size;
    Py_ssize_t head;
    Py_ssize_t count;
} pyc_store;

static inline PyObject **
pyc_store_at(pyc_store *self, Py_ssize_t place)
{
    return &self->items[(self->head + place) & (self->size - 1)];
}

/* Makes room for one more: 0, or -1 without memory (and no exception). */
int pyc_store_grow(pyc_store *self);

/* Takes a new reference. 0, or -1 without memory (and no exception). */
static inline int
pyc_store_push(pyc_store *self, PyObject *item)
{
    if (PYC_UNLIKELY(self->count == self->size) && pyc_store_grow(self) < 0) {
        return -1;
    }
    *pyc_store_at(self, self->count++) = Py_NewRef(item);
    return 0;
}

/* These give the reference away; the store must not be empty. */
static inline PyObject *
pyc_store_pop_first(pyc_store *self)
{
    PyObject *item = *pyc_store_at(self, 0);
    self->head = (self->head + 1) & (self->size - 1);
    self->count--;
    return item;
}

static inline PyObject *
pyc_store_pop_last(pyc_store *self)
{
    return *pyc_store_at(self, --self->count);
}

/* As a heap, as heapq would, in two steps. The first compares and changes
 * nothing: -1 with an exception when a comparison raises. Others must keep away
 * until the second, which does not call Python. */

/* Where the item goes. */
Py_ssize_t pyc_store_heap_place(pyc_store *self, PyObject *item);

/* Takes a new reference. 0, or -1 without memory (and no exception). */
int pyc_store_heap_insert(pyc_store *self, PyObject *item, Py_ssize_t place);

/* The places that move up when the first item goes: as many as a heap in memory
 * can be deep. */
typedef struct {
    Py_ssize_t places[64];
    int length;
} pyc_heap_way;

int pyc_store_heap_way(pyc_store *self, pyc_heap_way *way);
PyObject *pyc_store_heap_remove(pyc_store *self, const pyc_heap_way *way);

/* Frees the memory of an empty store. */
void pyc_store_free(pyc_store *self);

#endif
