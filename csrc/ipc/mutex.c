/* SPDX-License-Identifier: MIT */
#include "ipc/mutex.h"

#include "ipc/sleep.h"

#include <errno.h>

enum { SPINS = 100 };

static bool
take(pyc_mutex *mutex, uint32_t expected, uint32_t value)
{
    return atomic_compare_exchange_strong_explicit(&mutex->word, &expected,
                                                   value, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* What the owner before had logged is undone, the last of it first. */
static void
undo(pyc_mutex *mutex)
{
    uint32_t n = atomic_load_explicit(&mutex->logged, memory_order_acquire);
    for (uint32_t i = n < PYC_UNDO_MOST ? n : PYC_UNDO_MOST; i-- > 0;) {
        int32_t at = mutex->log[i].at;
        if (at > -(PYC_BLOCK_MOST / 4) && at < PYC_BLOCK_MOST / 4) {
            atomic_store_explicit((_Atomic uint32_t *)mutex + at,
                                  mutex->log[i].old, memory_order_release);
        }
    }
    pyc_mutex_commit(mutex);
}

/* With PYC_SLEEPERS set, as others may sleep, too. Whether the owner died. */
static bool
sleep_for(pyc_arena *arena, pyc_mutex *mutex, uint32_t mine)
{
    bool over = false;
    for (;;) {
        uint32_t word =
            atomic_load_explicit(&mutex->word, memory_order_relaxed);
        if (word == 0) {
            if (take(mutex, 0, mine | PYC_SLEEPERS)) {
                return false;
            }
            continue;
        }
        if (over && pyc_arena_owner_is_dead(arena, word & ~PYC_SLEEPERS)) {
            if (take(mutex, word, mine | PYC_SLEEPERS)) {
                return true;
            }
            continue;
        }
        if (!(word & PYC_SLEEPERS) && !take(mutex, word, word | PYC_SLEEPERS)) {
            continue;
        }
        over = pyc_futex_wait_shared(&mutex->word, word | PYC_SLEEPERS,
                                     pyc_clock_now() + PYC_SLICE) == -ETIMEDOUT;
    }
}

bool
pyc_mutex_lock(pyc_arena *arena, pyc_mutex *mutex)
{
    uint32_t mine = pyc_arena_me(arena);
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&mutex->word, memory_order_relaxed) == 0 &&
            take(mutex, 0, mine)) {
            return false;
        }
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
    bool died;
    Py_BEGIN_ALLOW_THREADS
    died = sleep_for(arena, mutex, mine);
    Py_END_ALLOW_THREADS
    if (died) {
        undo(mutex);
    }
    return died;
}

void
pyc_mutex_unlock(pyc_mutex *mutex)
{
    pyc_mutex_commit(mutex);
    uint32_t word =
        atomic_exchange_explicit(&mutex->word, 0, memory_order_release);
    if (word & PYC_SLEEPERS) {
        pyc_wake(&mutex->word, 1);
    }
}
