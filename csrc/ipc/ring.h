/* SPDX-License-Identifier: MIT */
/* The records of a queue: one after the other in chunks, which are linked from
 * the oldest to the newest.
 *
 * One process at a time puts records in, and one takes them out; that is the
 * caller's to see to, by a mutex at each end. What a process does at an end is
 * seen by others, all of it at once, by the one store in pyc_ring_commit_in()
 * or pyc_ring_commit_out(); a process killed before that has done nothing, and
 * pieces of the heap that it had taken for it are left behind, as their
 * numbers say. No Python here. */
#ifndef PYC_IPC_RING_H
#define PYC_IPC_RING_H

#include "ipc/heap.h"

#define PYC_CHUNK_SIZE (UINT64_C(65536) - PYC_PIECE_UNIT)
#define PYC_RECORD_MOST UINT64_C(16384) /* with its header */

/* One end of the ring. */
typedef struct {
    _Atomic uint64_t word; /* number of the next record << 1 | its place */
    struct {
        _Atomic uint64_t position; /* of the next record */
        _Atomic uint64_t weight;   /* of all records before it */
        _Atomic uint64_t chunk;
        _Atomic uint64_t first;   /* record of the chunk */
        _Atomic uint64_t dropped; /* records that were for nobody */
        uint64_t fill[2];
    } place[2]; /* the other one is what is being changed */
    uint64_t fill;
} pyc_ring_end;

/* In shared memory. */
typedef struct {
    _Alignas(64) pyc_ring_end in;
    _Alignas(64) pyc_ring_end out;
    _Alignas(64) pyc_heap heap;
} pyc_ring;

/* An end as the process that works at it has it. */
typedef struct {
    uint64_t number, position, weight, chunk, first, dropped;
    uint64_t left; /* the chunk before, to be freed; 0 is one, so it is + 1 */
} pyc_ring_cursor;

typedef struct {
    uint32_t size;   /* of all; a multiple of 8 */
    uint32_t number; /* the lowest bits */
    uint64_t weight; /* bytes of the item */
    uint32_t length; /* of what comes after the parts */
    uint16_t parts;  /* pyc_ring_part, after this header */
    uint8_t kind;
    uint8_t flags;
} pyc_record;

#define PYC_RECORD_JUMP 255 /* the kind: goes on in another chunk */

/* A piece of the heap that belongs to the record. */
typedef struct {
    uint64_t offset;
    uint64_t length;
    uint32_t generation;
    uint32_t fill;
} pyc_ring_part;

static inline uint32_t
pyc_record_size(uint32_t parts, uint32_t length)
{
    return (uint32_t)((sizeof(pyc_record) + parts * sizeof(pyc_ring_part) +
                       length + 7) &
                      ~UINT64_C(7));
}

/* Makes the first chunk. 0 or an error. */
int pyc_ring_begin(pyc_ring *self, pyc_store *store);

void pyc_ring_load(pyc_ring_end *end, pyc_ring_cursor *cursor);

/* Where the next record is to be written, of record->size bytes; its header is
 * there already. 0; -EAGAIN when there is no room for one more chunk: commit,
 * make room in the heap, and try again; or an error. */
int pyc_ring_append(pyc_ring *self, pyc_store *store, pyc_ring_cursor *cursor,
                    pyc_record *record, char **where);
void pyc_ring_commit_in(pyc_ring *self, const pyc_ring_cursor *cursor);

/* The next record, its header copied: 1; 0 when there is none; or an error.
 * It may commit what was taken before. */
int pyc_ring_next(pyc_ring *self, pyc_store *store, pyc_ring_cursor *cursor,
                  pyc_record *record, const char **where);
void pyc_ring_took(pyc_ring_cursor *cursor, const pyc_record *record);
void pyc_ring_commit_out(pyc_ring *self, pyc_store *store,
                         pyc_ring_cursor *cursor);

/* The piece of a record that is the next or was just taken, whose state is that
 * of its pieces; NULL: corrupt. */
pyc_piece *pyc_ring_piece(pyc_store *store, const pyc_ring_part *part,
                          uint64_t state);

/* How many records are in it, as of one moment, and what they weigh. */
uint64_t pyc_ring_count(pyc_ring *self);
uint64_t pyc_ring_weight(pyc_ring *self, const pyc_ring_cursor *in);
uint64_t pyc_ring_dropped(pyc_ring *self);

/* Whether a piece that is needed by a record or by the ring itself no longer
 * is. For who works at both ends. */
bool pyc_ring_is_left(pyc_ring *self, uint64_t state, uint64_t offset);

static inline uint64_t
pyc_ring_number(const pyc_ring_end *end)
{
    return atomic_load_explicit(&end->word, memory_order_acquire) >> 1;
}

#endif
