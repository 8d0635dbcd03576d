/* SPDX-License-Identifier: MIT */
/* A growing ring of two-word items, first in, first out; one thread. */
#ifndef PYC_BASE_RING_H
#define PYC_BASE_RING_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    void *run; /* who knows what to do with `what` */
    void *what;
} pyc_ring_item;

typedef struct {
    pyc_ring_item *items; /* a power of two of them, or NULL */
    size_t mask;
    size_t head; /* next to take; both only grow and wrap */
    size_t tail; /* next free */
} pyc_ring;

static inline size_t
pyc_ring_len(const pyc_ring *ring)
{
    return ring->tail - ring->head;
}

/* Doubles the ring; 0, or -1 without memory. */
static inline int
pyc_ring_grow(pyc_ring *ring)
{
    size_t old = ring->items == NULL ? 0 : ring->mask + 1;
    size_t size = old == 0 ? 64 : old * 2;
    pyc_ring_item *items = malloc(size * sizeof(*items));
    if (items == NULL) {
        return -1;
    }
    size_t len = pyc_ring_len(ring);
    for (size_t i = 0; i < len; i++) {
        size_t at = ring->head + i;
        items[at & (size - 1)] = ring->items[at & ring->mask];
    }
    free(ring->items);
    ring->items = items;
    ring->mask = size - 1;
    return 0;
}

/* 0, or -1 without memory. */
static inline int
pyc_ring_push(pyc_ring *ring, void *run, void *what)
{
    if (__builtin_expect(ring->items == NULL || pyc_ring_len(ring) > ring->mask,
                         0)) {
        if (pyc_ring_grow(ring) < 0) {
            return -1;
        }
    }
    ring->items[ring->tail++ & ring->mask] = (pyc_ring_item){run, what};
    return 0;
}

/* The ring must not be empty. Another thread may look at `head` meanwhile. */
static inline pyc_ring_item
pyc_ring_pop(pyc_ring *ring)
{
    size_t head = ring->head;
    __atomic_store_n(&ring->head, head + 1, __ATOMIC_RELAXED);
    return ring->items[head & ring->mask];
}

static inline void
pyc_ring_free(pyc_ring *ring)
{
    free(ring->items);
    *ring = (pyc_ring){0};
}

#endif
