/* SPDX-License-Identifier: MIT */
#include "ipc/heap.h"

#include <errno.h>
#include <time.h>

#define HEADER PYC_PIECE_UNIT
#define SPLIT_LEAST 4096               /* less stays with the piece */
#define LOOK_FIRST 32                  /* pieces: the lowest are the warmest */
#define TRIM_LEAST (UINT64_C(1) << 20) /* smaller pieces are not given back */
#define GROW_LEAST (UINT64_C(256) << 10)
#define GROW_MOST (UINT64_C(64) << 20) /* more than is needed */

uint32_t
pyc_heap_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint32_t)now.tv_sec;
}

/* A walk over pieces, up to an offset or so many of them. */
typedef struct {
    pyc_store *store;
    uint64_t at, until, extent_end;
    uint32_t extent, left;
    pyc_piece *piece;
} walk;

static walk
walk_from(pyc_store *store, uint64_t at, uint64_t until, uint32_t most)
{
    return (walk){.store = store, .at = at, .until = until, .left = most};
}

/* 1: walk->piece is one, in bounds; 0: the end; or an error. */
static int
step(walk *self)
{
    if (self->piece != NULL) {
        self->at += atomic_load(&self->piece->size);
    }
    if (self->at >= self->until || self->left-- == 0) {
        return 0;
    }
    pyc_piece *piece = (pyc_piece *)pyc_store_at(self->store, self->at, HEADER);
    if (piece == NULL || self->at % HEADER != 0) {
        return PYC_CORRUPT;
    }
    while (self->store->ends[self->extent] <= self->at) {
        self->extent++;
    }
    self->extent_end = self->store->ends[self->extent];
    uint64_t size = atomic_load_explicit(&piece->size, memory_order_acquire);
    if (size < HEADER || size % HEADER != 0 ||
        size > self->extent_end - self->at) {
        return PYC_CORRUPT;
    }
    self->piece = piece;
    return 1;
}

static bool
is_free(pyc_piece *piece)
{
    return atomic_load_explicit(&piece->state, memory_order_acquire) ==
           PYC_FREE;
}

/* Joins a free piece with the free ones behind it. */
static int
join(pyc_heap *self, walk *at)
{
    for (;;) {
        uint64_t size = atomic_load(&at->piece->size);
        if (size >= at->extent_end - at->at) {
            return 0;
        }
        pyc_piece *next =
            (pyc_piece *)pyc_store_at(at->store, at->at + size, HEADER);
        if (next == NULL) {
            return PYC_CORRUPT;
        }
        uint64_t more = atomic_load(&next->size);
        if (more < HEADER || more % HEADER != 0 ||
            more > at->extent_end - at->at - size) {
            return PYC_CORRUPT;
        }
        if (!is_free(next)) {
            return 0;
        }
        if (atomic_load(&next->hole)) {
            atomic_store(&at->piece->hole, 1);
        }
        uint32_t used = atomic_load(&next->used);
        if ((int32_t)(used - atomic_load(&at->piece->used)) > 0) {
            atomic_store(&at->piece->used, used);
        }
        if (atomic_load(&self->rover) == at->at + size) {
            atomic_store(&self->rover, at->at);
        }
        atomic_store_explicit(&at->piece->size, size + more,
                              memory_order_release);
    }
}

/* 1: `at` is at a free piece of that size; 0: there was none. */
static int
look(pyc_heap *self, walk *at, uint64_t need)
{
    int rc;
    while ((rc = step(at)) > 0) {
        if (!is_free(at->piece)) {
            continue;
        }
        rc = join(self, at);
        if (rc < 0) {
            return rc;
        }
        if (atomic_load(&at->piece->size) >= need) {
            return 1;
        }
    }
    return rc;
}

/* The lowest first, so that memory is used again while it is in the caches. */
static int
search(pyc_heap *self, pyc_store *store, uint64_t need, walk *at)
{
    uint64_t rover = atomic_load(&self->rover);
    uint64_t size = pyc_heap_size(self);
    *at = walk_from(store, 0, size, LOOK_FIRST);
    int rc = look(self, at, need);
    if (rc != 0) {
        return rc;
    }
    rover = atomic_load(&self->rover); /* it may have been joined */
    *at = walk_from(store, rover, size, UINT32_MAX);
    rc = look(self, at, need);
    if (rc != 0) {
        return rc;
    }
    rover = atomic_load(&self->rover);
    *at = walk_from(store, 0, rover, UINT32_MAX);
    return look(self, at, need);
}

static void
put_header(pyc_piece *piece, uint64_t size, uint32_t hole, uint32_t used)
{
    atomic_store(&piece->state, PYC_FREE);
    atomic_store(&piece->holders, 0);
    atomic_store(&piece->generation, 0);
    atomic_store(&piece->hole, hole);
    atomic_store(&piece->used, used);
    atomic_store_explicit(&piece->size, size, memory_order_release);
}

/* The first `need` bytes of a free piece, with memory behind them. */
static int
cut(pyc_heap *self, walk *at, uint64_t need)
{
    pyc_piece *piece = at->piece;
    uint64_t size = atomic_load(&piece->size);
    uint64_t used = size - need >= SPLIT_LEAST ? need : size;
    uint32_t hole = atomic_load(&piece->hole);
    if (hole) {
        uint64_t end = at->at + (used < size ? used + HEADER : used);
        int rc = pyc_store_refill(at->store, at->at, end);
        if (rc < 0) {
            return rc;
        }
    }
    if (used < size) {
        pyc_piece *rest =
            (pyc_piece *)pyc_store_at(at->store, at->at + used, HEADER);
        put_header(rest, size - used, hole, atomic_load(&piece->used));
        atomic_store_explicit(&piece->size, used, memory_order_release);
    }
    atomic_store(&piece->hole, 0);
    if (used >= TRIM_LEAST) {
        atomic_store(&piece->used, pyc_heap_now());
    }
    if (hole) {
        uint64_t holes = atomic_load(&self->holes);
        atomic_store(&self->holes, holes > used ? holes - used : 0);
    }
    return 0;
}

int
pyc_heap_take(pyc_heap *self, pyc_store *store, uint64_t size, uint64_t state,
              uint64_t *offset)
{
    if (size > UINT64_MAX / 4) {
        return -ENOMEM;
    }
    uint64_t need = HEADER + (size + HEADER - 1) / HEADER * HEADER;
    uint32_t freed = atomic_load(&self->freed);
    if (freed == atomic_load(&self->missed_at) &&
        need >= atomic_load(&self->missed)) {
        return -EAGAIN;
    }
    walk at;
    int rc = pyc_store_at(store, 0, HEADER) == NULL
                 ? -EAGAIN
                 : search(self, store, need, &at);
    if (rc == 0) {
        atomic_store(&self->missed, need);
        atomic_store(&self->missed_at, freed);
        return -EAGAIN;
    }
    rc = rc < 0 ? rc : cut(self, &at, need);
    if (rc < 0) {
        return rc;
    }
    uint32_t generation = atomic_load(&self->generation) + 1;
    atomic_store(&self->generation, generation);
    atomic_store(&at.piece->generation, generation);
    atomic_store(&at.piece->holders, 0);
    atomic_store(&self->rover, at.at);
    atomic_store_explicit(&at.piece->state, state, memory_order_release);
    *offset = at.at;
    return 0;
}

void
pyc_heap_free(pyc_heap *self, pyc_piece *piece)
{
    atomic_store_explicit(&piece->state, PYC_FREE, memory_order_release);
    atomic_fetch_add(&self->freed, 1);
}

/* More than needed, in proportion: there are only so many extents. */
static uint64_t
size_to_grow(pyc_heap *self, uint64_t need)
{
    uint64_t size = pyc_heap_size(self);
    uint64_t more = size / 2 < GROW_MOST ? size / 2 : GROW_MOST;
    if (more < size / 4) {
        more = size / 4;
    }
    more = more < GROW_LEAST && size > 0 ? GROW_LEAST : more;
    return need > more ? need : more;
}

int
pyc_heap_grow(pyc_heap *self, pyc_store *store, uint64_t size)
{
    if (size > (UINT64_C(1) << 46)) {
        return -ENOMEM;
    }
    uint64_t need = HEADER + (size + HEADER - 1) / HEADER * HEADER;
    uint64_t start, end;
    int rc = pyc_store_grow(store, size_to_grow(self, need), &start, &end);
    if (rc == -ENOMEM || rc == -ENOSPC) {
        rc = pyc_store_grow(store, need, &start, &end);
    }
    if (rc < 0) {
        return rc;
    }
    pyc_piece *piece = (pyc_piece *)pyc_store_at(store, start, HEADER);
    put_header(piece, end - start, 0, 0);
    pyc_store_count(store);
    atomic_store(&self->rover, start);
    atomic_fetch_add(&self->freed, 1);
    return 0;
}

int
pyc_heap_reclaim(pyc_heap *self, pyc_store *store, pyc_heap_judge *judge)
{
    walk at = walk_from(store, 0, pyc_heap_size(self), UINT32_MAX);
    int rc, found = 0;
    while ((rc = step(&at)) > 0) {
        if (!is_free(at.piece) && judge->is_left(judge, at.piece, at.at)) {
            pyc_heap_free(self, at.piece);
            found = 1;
        }
    }
    return rc < 0 ? rc : found;
}

/* In one extent. What is given back; the rest is holes or in use. */
static uint64_t
trim_extent(pyc_heap *self, pyc_store *store, uint64_t start, uint64_t end,
            uint32_t now)
{
    uint64_t given = 0;
    walk at = walk_from(store, start, end, UINT32_MAX);
    while (step(&at) > 0) {
        if (!is_free(at.piece) || join(self, &at) < 0) {
            continue;
        }
        uint64_t size = atomic_load(&at.piece->size);
        if (size >= TRIM_LEAST && !atomic_load(&at.piece->hole) &&
            now - atomic_load(&at.piece->used) >= PYC_HEAP_IDLE) {
            atomic_store(&at.piece->hole, 1);
            pyc_store_drop(store, at.at + HEADER, at.at + size);
            given += size;
        }
    }
    return given;
}

void
pyc_heap_trim(pyc_heap *self, pyc_store *store, uint64_t keep, uint32_t now)
{
    uint64_t size = pyc_heap_size(self);
    if (pyc_store_map(store) < 0) {
        return;
    }
    for (uint32_t i = atomic_load(&self->extents.count); i-- > 0;) {
        uint64_t start = i == 0 ? 0 : store->ends[i - 1];
        uint64_t holes = atomic_load(&self->holes);
        if (size - (holes < size ? holes : size) <= keep) {
            return;
        }
        holes += trim_extent(self, store, start, store->ends[i], now);
        atomic_store(&self->holes, holes);
    }
}
