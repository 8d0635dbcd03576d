/* SPDX-License-Identifier: MIT */
/* The word of a lock: 0 when it is free, else its owner, and PYC_SLEEPERS when
 * somebody may sleep on it.
 *
 * Taking and letting go are one atomic operation each, so that a process is
 * killed either before or after it. Who is woken does not own the lock but
 * tries again, and says PYC_SLEEPERS from then on, because letting go has taken
 * it away. When the woken is killed before that, those who still sleep look
 * again after their slice. */
#ifndef PYC_IPC_WORD_H
#define PYC_IPC_WORD_H

#include "ipc/mutex.h"

#define PYC_OWNER 0x3fffffffu /* the owner's part of a word */

/* How long a thread waits before it sleeps, at the end: in all about as long as
 * another process has a lock for a statement or two. Each wait is twice as long
 * as the one before, as whoever looks at a word takes it from its owner's
 * cache.
 */
#define PYC_PAUSES 64

static inline void
pyc_pause(int times)
{
    for (int i = 0; i < times; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}

static inline bool
pyc_word_swap(_Atomic uint32_t *word, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong(word, &from, to);
}

static inline uint32_t
pyc_word_look(_Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Takes it if it is free. */
static inline bool
pyc_word_try(_Atomic uint32_t *word, pyc_owner me)
{
    return pyc_word_swap(word, 0, me);
}

/* Takes it, or says what to sleep on. `slept`: others may do so still. */
static inline bool
pyc_word_step(_Atomic uint32_t *word, pyc_owner me, bool slept, uint32_t *seen)
{
    for (;;) {
        uint32_t now = pyc_word_look(word);
        if (now == 0) {
            if (pyc_word_swap(word, 0, slept ? me | PYC_SLEEPERS : me)) {
                return true;
            }
        }
        else if ((now & PYC_SLEEPERS) != 0 ||
                 pyc_word_swap(word, now, now | PYC_SLEEPERS)) {
            *seen = now | PYC_SLEEPERS;
            return false;
        }
    }
}

/* Takes it from an owner who has died; `seen` is what the word was. */
static inline bool
pyc_word_take_over(_Atomic uint32_t *word, uint32_t seen, pyc_owner me)
{
    return pyc_word_swap(word, seen, me | PYC_SLEEPERS);
}

/* Lets go of it: what it was. PYC_SLEEPERS: wake one. */
static inline uint32_t
pyc_word_free(_Atomic uint32_t *word)
{
    return atomic_exchange(word, 0);
}

/* For who gives up after it has slept: whether to wake another, as it may have
 * been woken itself. */
static inline bool
pyc_word_leave(_Atomic uint32_t *word)
{
    for (;;) {
        uint32_t now = pyc_word_look(word);
        if (now == 0) {
            return true;
        }
        if ((now & PYC_SLEEPERS) != 0 ||
            pyc_word_swap(word, now, now | PYC_SLEEPERS)) {
            return false;
        }
    }
}

/* Has the next who lets go of it ring and wake, if somebody has it: what the
 * word is then, 0 when nobody has. */
static inline uint32_t
pyc_word_ask(_Atomic uint32_t *word)
{
    uint32_t now = pyc_word_look(word);
    while (now != 0 && (now & PYC_SLEEPERS) == 0 &&
           !atomic_compare_exchange_weak(word, &now, now | PYC_SLEEPERS)) {
    }
    return now == 0 ? 0 : now | PYC_SLEEPERS;
}

#endif
