/* SPDX-License-Identifier: MIT */
/* The word of an event: whether it is set, how often it was, and whether
 * somebody may sleep. Who waits goes on when it was set since he came, even if
 * it has been cleared meanwhile. */
#ifndef PYC_IPC_FLAG_H
#define PYC_IPC_FLAG_H

#include "ipc/word.h"

#define PYC_SET 1u
#define PYC_TIMES 0x7ffffffeu

static inline bool
pyc_flag_is_set(_Atomic uint32_t *word)
{
    return (atomic_load(word) & PYC_SET) != 0;
}

/* Sets it: whether somebody may sleep. */
static inline bool
pyc_flag_set(_Atomic uint32_t *word)
{
    uint32_t now = pyc_word_look(word);
    for (;;) {
        uint32_t times = ((now & PYC_TIMES) + 2) & PYC_TIMES;
        if ((now & PYC_SET) != 0) {
            return false;
        }
        if (atomic_compare_exchange_weak(word, &now, times | PYC_SET)) {
            return (now & PYC_SLEEPERS) != 0;
        }
    }
}

static inline void
pyc_flag_clear(_Atomic uint32_t *word)
{
    atomic_fetch_and(word, ~PYC_SET);
}

/* Whether it was set since it was `before`. */
static inline bool
pyc_flag_was_set(uint32_t now, uint32_t before)
{
    return (now & PYC_SET) != 0 || ((now ^ before) & PYC_TIMES) != 0;
}

/* Says that somebody is going to sleep, unless it was set since: what to sleep
 * on then. */
static inline bool
pyc_flag_doze(_Atomic uint32_t *word, uint32_t before, uint32_t *expected)
{
    uint32_t now = atomic_load(word);
    while (!pyc_flag_was_set(now, before)) {
        *expected = now | PYC_SLEEPERS;
        if ((now & PYC_SLEEPERS) != 0 ||
            atomic_compare_exchange_weak(word, &now, *expected)) {
            return true;
        }
    }
    return false;
}

#endif
