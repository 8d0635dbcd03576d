/* SPDX-License-Identifier: MIT */
/* A 4-ary min-heap of deadlines; equal deadlines leave in the order they
 * came. */
#ifndef PYC_BASE_HEAP_H
#define PYC_BASE_HEAP_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    double when; /* seconds */
    uint64_t order;
    void *what;
} pyc_heap_item;

typedef struct {
    pyc_heap_item *items;
    size_t len;
    size_t size;
    uint64_t next_order;
} pyc_heap;

static inline int
pyc_heap_before(const pyc_heap_item *a, const pyc_heap_item *b)
{
    return a->when < b->when || (a->when == b->when && a->order < b->order);
}

static inline void
pyc_heap_up(pyc_heap *heap, size_t at)
{
    pyc_heap_item item = heap->items[at];
    while (at > 0) {
        size_t parent = (at - 1) / 4;
        if (!pyc_heap_before(&item, &heap->items[parent])) {
            break;
        }
        heap->items[at] = heap->items[parent];
        at = parent;
    }
    heap->items[at] = item;
}

static inline void
pyc_heap_down(pyc_heap *heap, size_t at)
{
    pyc_heap_item item = heap->items[at];
    for (;;) {
        size_t first = 4 * at + 1, last = first + 4, least = first;
        if (first >= heap->len) {
            break;
        }
        if (last > heap->len) {
            last = heap->len;
        }
        for (size_t child = first + 1; child < last; child++) {
            if (pyc_heap_before(&heap->items[child], &heap->items[least])) {
                least = child;
            }
        }
        if (!pyc_heap_before(&heap->items[least], &item)) {
            break;
        }
        heap->items[at] = heap->items[least];
        at = least;
    }
    heap->items[at] = item;
}

/* 0, or -1 without memory. */
static inline int
pyc_heap_push(pyc_heap *heap, double when, void *what)
{
    if (heap->len == heap->size) {
        size_t size = heap->size == 0 ? 64 : heap->size * 2;
        pyc_heap_item *items =
            realloc(heap->items, size * sizeof(pyc_heap_item));
        if (items == NULL) {
            return -1;
        }
        heap->items = items;
        heap->size = size;
    }
    heap->items[heap->len] = (pyc_heap_item){when, heap->next_order++, what};
    pyc_heap_up(heap, heap->len++);
    return 0;
}

/* The heap must not be empty. */
static inline void *
pyc_heap_pop(pyc_heap *heap)
{
    void *what = heap->items[0].what;
    heap->items[0] = heap->items[--heap->len];
    if (heap->len > 1) {
        pyc_heap_down(heap, 0);
    }
    return what;
}

/* Restores the order after items were taken out of `items` at will. */
static inline void
pyc_heap_rebuild(pyc_heap *heap)
{
    if (heap->len < 2) {
        return;
    }
    for (size_t at = (heap->len - 2) / 4 + 1; at-- > 0;) {
        pyc_heap_down(heap, at);
    }
}

static inline void
pyc_heap_free(pyc_heap *heap)
{
    free(heap->items);
    *heap = (pyc_heap){0};
}

#endif
