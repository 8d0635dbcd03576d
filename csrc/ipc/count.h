/* SPDX-License-Identifier: MIT */
/* The word of a semaphore that keeps no books of who has its units: how many
 * there are or, while there are none, PYC_SLEEPERS when somebody may sleep.
 *
 * A unit that comes wakes one sleeper and takes PYC_SLEEPERS away; the woken
 * sets it again, or wakes the next when more units have come meanwhile. */
#ifndef PYC_IPC_COUNT_H
#define PYC_IPC_COUNT_H

#include "ipc/word.h"

#define PYC_COUNT_MOST 0x7fffffffu /* SEM_VALUE_MAX of Linux */

static inline uint32_t
pyc_count_value(_Atomic uint32_t *word)
{
    return pyc_word_look(word) & PYC_COUNT_MOST;
}

/* Takes a unit. `slept`: others may sleep still; *pass_on: wake one of them. */
static inline bool
pyc_count_take(_Atomic uint32_t *word, bool slept, bool *pass_on)
{
    uint32_t now = pyc_word_look(word);
    for (;;) {
        uint32_t units = now & PYC_COUNT_MOST;
        if (units == 0) {
            return false;
        }
        uint32_t left = slept && units == 1 ? PYC_SLEEPERS : units - 1;
        if (atomic_compare_exchange_weak(word, &now, left)) {
            *pass_on = slept && units > 1;
            return true;
        }
    }
}

/* Says that somebody is going to sleep while the word is PYC_SLEEPERS. */
static inline void
pyc_count_doze(_Atomic uint32_t *word)
{
    pyc_word_swap(word, 0, PYC_SLEEPERS);
}

/* For who gives up after it has slept: whether to wake another, as it may have
 * been woken itself. */
static inline bool
pyc_count_leave(_Atomic uint32_t *word)
{
    for (;;) {
        uint32_t now = pyc_word_look(word);
        if ((now & PYC_COUNT_MOST) != 0) {
            return true;
        }
        if (now == PYC_SLEEPERS || pyc_word_swap(word, 0, PYC_SLEEPERS)) {
            return false;
        }
    }
}

/* Adds a unit unless there are `most`. *wake: somebody may sleep. */
static inline bool
pyc_count_give(_Atomic uint32_t *word, uint32_t most, bool *wake)
{
    uint32_t now = pyc_word_look(word);
    for (;;) {
        uint32_t units = now & PYC_COUNT_MOST;
        if (units >= most) {
            return false;
        }
        if (atomic_compare_exchange_weak(word, &now, units + 1)) {
            *wake = (now & PYC_SLEEPERS) != 0;
            return true;
        }
    }
}

#endif
