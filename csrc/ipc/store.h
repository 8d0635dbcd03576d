/* SPDX-License-Identifier: MIT */
/* The memory of a queue: one memfd that grows by extents and never shrinks.
 * Each process maps an extent when it first meets an offset in it. No Python
 * here: errors are negative numbers of errno. */
#ifndef PYC_IPC_STORE_H
#define PYC_IPC_STORE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PYC_EXTENTS 96
/* Where in the memory something cannot be what it should. */
#define PYC_CORRUPT (-74) /* EBADMSG */

/* In shared memory: where the extents end. The last one decides. */
typedef struct {
    _Atomic uint64_t ends[PYC_EXTENTS];
    _Atomic uint32_t count;
} pyc_extents;

/* In one process. */
typedef struct {
    int fd;
    pyc_extents *extents;
    _Atomic uint32_t mapped; /* those before it are below */
    _Atomic uint64_t ends[PYC_EXTENTS];
    char *_Atomic memory[PYC_EXTENTS];
} pyc_store;

/* Maps what has been added since. 0, or an error. */
int pyc_store_map(pyc_store *self);
void pyc_store_unmap(pyc_store *self);

/* One more extent, of `size` bytes at least, a multiple of the page; *start is
 * where it begins, and it is not counted yet: see pyc_store_count(). One
 * process at a time. 0, or an error: then nothing has changed. */
int pyc_store_grow(pyc_store *self, uint64_t size, uint64_t *start,
                   uint64_t *end);
void pyc_store_count(pyc_store *self);

/* Gives memory back to the system, which reads as zero then, and gets it
 * again: 0 or an error. Rounded to whole pages, inwards and outwards. */
void pyc_store_drop(pyc_store *self, uint64_t start, uint64_t end);
int pyc_store_refill(pyc_store *self, uint64_t start, uint64_t end);

/* For who has not found it in the first `known` extents. */
void *pyc_store_at_slowly(pyc_store *self, uint32_t known, uint64_t offset,
                          uint64_t size);

/* `size` bytes at an offset; NULL when they are not within one extent. */
static inline void *
pyc_store_at(pyc_store *self, uint64_t offset, uint64_t size)
{
    uint64_t start = 0;
    uint32_t n = atomic_load_explicit(&self->mapped, memory_order_acquire);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t end =
            atomic_load_explicit(&self->ends[i], memory_order_relaxed);
        if (offset < end) {
            return size > end - offset
                       ? NULL
                       : atomic_load_explicit(&self->memory[i],
                                              memory_order_relaxed) +
                             (offset - start);
        }
        start = end;
    }
    return pyc_store_at_slowly(self, n, offset, size);
}

#endif
