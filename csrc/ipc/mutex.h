/* SPDX-License-Identifier: MIT */
/* A mutex in shared memory for a few lines of C, which undoes what its owner
 * had begun when that process was killed in the middle.
 *
 * The lines between lock and unlock call no Python and change shared fields of
 * 32 bits only by pyc_mutex_set(), or else in an order in which each single
 * store leaves a sound state (and a last one decides). */
#ifndef PYC_IPC_MUTEX_H
#define PYC_IPC_MUTEX_H

#include "ipc/arena.h"

#define PYC_UNDO_MOST 12

typedef struct {
    _Atomic uint32_t word;   /* 0, or the owner; PYC_SLEEPERS */
    _Atomic uint32_t logged; /* entries of the log that count */
    struct {
        int32_t at; /* in words, from the mutex */
        uint32_t old;
    } log[PYC_UNDO_MOST];
} pyc_mutex;

#define PYC_SLEEPERS 0x80000000u /* in a lock's word: somebody sleeps */

/* Takes it, without the GIL when it has to sleep; a signal's handler runs
 * later. Whether its owner died with it: what that process had logged is
 * undone then. */
bool pyc_mutex_lock(pyc_arena *arena, pyc_mutex *mutex);
void pyc_mutex_unlock(pyc_mutex *mutex);

/* Changes a field near the mutex, so that it is changed back unless
 * pyc_mutex_unlock is reached. */
static inline void
pyc_mutex_set(pyc_mutex *mutex, _Atomic uint32_t *field, uint32_t value)
{
    uint32_t n = atomic_load_explicit(&mutex->logged, memory_order_relaxed);
    mutex->log[n].at = (int32_t)(field - (_Atomic uint32_t *)mutex);
    mutex->log[n].old = atomic_load_explicit(field, memory_order_relaxed);
    atomic_store_explicit(&mutex->logged, n + 1, memory_order_release);
    /* After the log: a release. */
    atomic_store_explicit(field, value, memory_order_release);
}

/* All that was set since the lock is there to stay, though the mutex is not
 * given back yet. */
static inline void
pyc_mutex_commit(pyc_mutex *mutex)
{
    atomic_store_explicit(&mutex->logged, 0, memory_order_release);
}

#endif
