/* SPDX-License-Identifier: MIT */
/* Who has the units of a semaphore, or reads under a lock: a word for each
 * unit, 0 while it is free, else its owner. Taking a unit, letting go of it and
 * taking it from a dead owner are one atomic operation each, so that the books
 * are right whenever a process is killed. */
#ifndef PYC_IPC_SLOTS_H
#define PYC_IPC_SLOTS_H

#include "ipc/word.h"

/* A unit that does not exist yet: a semaphore may grow. */
#define PYC_ABSENT 0x7fffffffu

typedef struct {
    _Atomic uint32_t *units;
    uint32_t count;
} pyc_slots;

/* Changes a unit that is `from` to `to`, looking from `hint` on: which, or
 * -1. */
static inline int32_t
pyc_slots_change(pyc_slots slots, uint32_t hint, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0, at = hint; i < slots.count; i++, at++) {
        if (at >= slots.count) {
            at = 0;
        }
        if (pyc_word_look(&slots.units[at]) == from &&
            pyc_word_swap(&slots.units[at], from, to)) {
            return (int32_t)at;
        }
    }
    return -1;
}

static inline int32_t
pyc_slots_take(pyc_slots slots, uint32_t hint, pyc_owner me)
{
    return pyc_slots_change(slots, hint, 0, me);
}

/* Somebody else's, or one that did not exist. A process may let go of what
 * another has taken; whose unit it was is the one thing nobody can know. */
static inline int32_t
pyc_slots_give_foreign(pyc_slots slots)
{
    for (uint32_t at = 0; at < slots.count; at++) {
        uint32_t owner = pyc_word_look(&slots.units[at]);
        if (owner != 0 && owner != PYC_ABSENT &&
            pyc_word_swap(&slots.units[at], owner, 0)) {
            return (int32_t)at;
        }
    }
    return pyc_slots_change(slots, 0, PYC_ABSENT, 0);
}

/* Lets go of a unit: which, or -1 when there is none to let go of. */
static inline int32_t
pyc_slots_give(pyc_slots slots, uint32_t hint, pyc_owner me)
{
    int32_t at = pyc_slots_change(slots, hint, me, 0);
    return PYC_LIKELY(at >= 0) ? at : pyc_slots_give_foreign(slots);
}

static inline uint32_t
pyc_slots_free(pyc_slots slots)
{
    uint32_t free = 0;
    for (uint32_t at = 0; at < slots.count; at++) {
        free += pyc_word_look(&slots.units[at]) == 0;
    }
    return free;
}

/* Whoever sleeps for a unit does so on a word of its own: PYC_SLEEPERS, and
 * below it how often somebody was woken. The value to sleep on; look for a unit
 * once more before. */
static inline uint32_t
pyc_slots_doze(_Atomic uint32_t *word)
{
    return atomic_fetch_or(word, PYC_SLEEPERS) | PYC_SLEEPERS;
}

/* After a unit came: whether to wake a sleeper. */
static inline bool
pyc_slots_call(_Atomic uint32_t *word)
{
    uint32_t now = atomic_load(word);
    while ((now & PYC_SLEEPERS) != 0) {
        if (atomic_compare_exchange_weak(word, &now,
                                         (now + 1) & ~PYC_SLEEPERS)) {
            return true;
        }
    }
    return false;
}

#endif
