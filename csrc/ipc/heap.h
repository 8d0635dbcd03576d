/* SPDX-License-Identifier: MIT */
/* Pieces of a queue's memory: chunks of its ring, and large buffers.
 *
 * The pieces of an extent lie one after the other, from its beginning to its
 * end, each with its size. One process at a time takes pieces (that is the
 * caller's to see to), which splits and joins them such that they can be walked
 * after each single store; any process frees one, by one store, at any time. A
 * piece says what it is needed for, so that what a killed process left behind
 * is found: see pyc_heap_reclaim(). */
#ifndef PYC_IPC_HEAP_H
#define PYC_IPC_HEAP_H

#include "ipc/store.h"

#include <stdbool.h>

typedef struct {
    _Atomic uint64_t size; /* with this header; a multiple of PYC_PIECE_UNIT */
    _Atomic uint64_t state;
    _Atomic uint64_t holders; /* a bit for each process, when PYC_HELD */
    _Atomic uint32_t generation;
    _Atomic uint32_t hole; /* its memory was given back */
    _Atomic uint32_t used; /* of a large one, seconds: when it was taken last */
    char fill[28];
} pyc_piece;

#define PYC_PIECE_UNIT ((uint64_t)sizeof(pyc_piece))

/* What a state says, and of whom or what. */
enum {
    PYC_FREE,
    PYC_WRITING, /* an owner's, who fills it */
    PYC_CARRIED, /* by the record of that number */
    PYC_CHUNK,   /* of the ring; its first record has that number */
    PYC_HELD,    /* by processes that have received it */
    PYC_LENT,    /* to another queue: by its record of that number */
};
#define PYC_STATE(what, number) ((uint64_t)(number) << 3 | (what))
#define PYC_STATE_IS(state) ((state) & 7)
#define PYC_STATE_NUMBER(state) ((state) >> 3)

/* In shared memory. */
typedef struct {
    pyc_extents extents;
    _Atomic uint64_t rover;      /* a piece near which one may be free */
    _Atomic uint32_t generation; /* of the newest piece */
    _Atomic uint32_t freed;      /* how many, modulo 2**32 */
    /* Nothing of that size or more was free when so many had been freed. */
    _Atomic uint64_t missed;
    _Atomic uint32_t missed_at;
    _Atomic uint64_t holes; /* about how much was given back */
} pyc_heap;

/* A piece for `size` bytes; *offset is that of its header. 0; -EAGAIN when none
 * is free: reclaim or grow, and try again; or an error. */
int pyc_heap_take(pyc_heap *self, pyc_store *store, uint64_t size,
                  uint64_t state, uint64_t *offset);

void pyc_heap_free(pyc_heap *self, pyc_piece *piece);

/* Makes room for a piece of `size` bytes. */
int pyc_heap_grow(pyc_heap *self, pyc_store *store, uint64_t size);

/* Frees each piece for which `is_left(state, holders)` is true. Whether there
 * was one, or an error. */
typedef struct pyc_heap_judge {
    bool (*is_left)(struct pyc_heap_judge *, pyc_piece *, uint64_t offset);
} pyc_heap_judge;
int pyc_heap_reclaim(pyc_heap *self, pyc_store *store, pyc_heap_judge *judge);

/* Gives memory that is free, and has not been needed for a while, back to the
 * system, all but `keep` bytes. `now` in seconds, as pieces have it. */
#define PYC_HEAP_IDLE 2 /* seconds */
void pyc_heap_trim(pyc_heap *self, pyc_store *store, uint64_t keep,
                   uint32_t now);
uint32_t pyc_heap_now(void);

static inline uint64_t
pyc_heap_size(const pyc_heap *self)
{
    uint32_t count = atomic_load(&self->extents.count);
    return count == 0 || count > PYC_EXTENTS
               ? 0
               : atomic_load(&self->extents.ends[count - 1]);
}

/* The piece with that header, at least `size` bytes large beside it, or NULL:
 * there is none. */
static inline pyc_piece *
pyc_heap_piece(pyc_store *store, uint64_t offset, uint64_t size)
{
    if (offset % PYC_PIECE_UNIT != 0 || size > UINT64_MAX / 2) {
        return NULL;
    }
    pyc_piece *piece =
        (pyc_piece *)pyc_store_at(store, offset, sizeof(pyc_piece) + size);
    return piece != NULL &&
                   atomic_load(&piece->size) - sizeof(pyc_piece) >= size &&
                   atomic_load(&piece->size) >= sizeof(pyc_piece)
               ? piece
               : NULL;
}

#endif
