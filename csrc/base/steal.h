/* SPDX-License-Identifier: MIT */
/* A number of chunks shared out among workers. Each takes chunks from the
 * front of its own share, and when that is empty the back half of the largest
 * other one: neighbours stay together, and nobody is idle while work is left.
 */
#ifndef PYC_BASE_STEAL_H
#define PYC_BASE_STEAL_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define PYC_MOST_CHUNKS ((size_t)UINT32_MAX)

/* On a cache line of its own. */
typedef struct {
    /* First and end of the chunks nobody took, in one word: both change at
     * once. Chunks are never put back, so no value comes twice unless nothing
     * happened in between. */
    _Alignas(64) _Atomic uint64_t left;
    _Atomic size_t done; /* items, for who counts them */
    bool used;           /* a worker is on it; guarded by the owner's lock */
} pyc_share;

typedef struct {
    pyc_share *shares;
    size_t count;
    _Atomic uint32_t thieves; /* hold chunks that are in no share */
} pyc_shares;

static inline uint64_t
pyc_share_pack(size_t first, size_t end)
{
    return (uint64_t)first << 32 | (uint64_t)end;
}

static inline size_t
pyc_share_first(uint64_t left)
{
    return (size_t)(left >> 32);
}

static inline size_t
pyc_share_end(uint64_t left)
{
    return (size_t)(uint32_t)left;
}

static inline size_t
pyc_share_size(uint64_t left)
{
    return pyc_share_end(left) - pyc_share_first(left);
}

/* 0, or -1 without memory. At most PYC_MOST_CHUNKS. */
static inline int
pyc_shares_init(pyc_shares *self, size_t chunks, size_t count)
{
    self->shares = aligned_alloc(64, count * sizeof(pyc_share));
    if (self->shares == NULL) {
        return -1;
    }
    self->count = count;
    atomic_init(&self->thieves, 0);
    for (size_t i = 0; i < count; i++) {
        pyc_share *share = &self->shares[i];
        size_t each = chunks / count, more = chunks % count;
        size_t first = i * each + (i < more ? i : more);
        atomic_init(&share->left,
                    pyc_share_pack(first, first + each + (i < more)));
        atomic_init(&share->done, 0);
        share->used = false;
    }
    return 0;
}

static inline void
pyc_shares_free(pyc_shares *self)
{
    free(self->shares);
    self->shares = NULL;
}

/* Takes half of what the largest share has, into share number `mine`. False
 * when all are empty. */
static inline bool
pyc_shares_steal(pyc_shares *self, size_t mine)
{
    for (;;) {
        pyc_share *victim = NULL;
        uint64_t most = 0;
        for (size_t i = 0; i < self->count; i++) {
            uint64_t left = atomic_load(&self->shares[i].left);
            if (pyc_share_size(left) > pyc_share_size(most)) {
                most = left;
                victim = &self->shares[i];
            }
        }
        if (victim == NULL) {
            return false;
        }
        size_t end = pyc_share_end(most);
        size_t cut = end - (pyc_share_size(most) + 1) / 2;
        if (atomic_compare_exchange_strong(
                &victim->left, &most,
                pyc_share_pack(pyc_share_first(most), cut))) {
            atomic_store(&self->shares[mine].left, pyc_share_pack(cut, end));
            return true;
        }
    }
}

/* Takes the next chunk for the worker on share number `mine`; false when there
 * is none left for anybody. */
static inline bool
pyc_shares_take(pyc_shares *self, size_t mine, size_t *chunk)
{
    _Atomic uint64_t *own = &self->shares[mine].left;
    for (;;) {
        uint64_t left = atomic_load(own);
        while (pyc_share_size(left) > 0) {
            *chunk = pyc_share_first(left);
            if (atomic_compare_exchange_weak(
                    own, &left,
                    pyc_share_pack(*chunk + 1, pyc_share_end(left)))) {
                return true;
            }
        }
        atomic_fetch_add(&self->thieves, 1);
        bool stolen = pyc_shares_steal(self, mine);
        bool alone = atomic_fetch_sub(&self->thieves, 1) == 1;
        if (!stolen && alone) {
            return false;
        }
        if (!stolen) {
            sched_yield(); /* what the other one has just taken may be shared */
        }
    }
}

/* Drops what is left of share number `mine`. */
static inline void
pyc_shares_drop(pyc_shares *self, size_t mine)
{
    atomic_store(&self->shares[mine].left, 0);
}

#endif
