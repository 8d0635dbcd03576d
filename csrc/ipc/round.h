/* SPDX-License-Identifier: MIT */
/* The rounds of a barrier. One word says which round it is, what state it is in
 * and how many have come, so that a round begins and ends in a single store:
 * who is killed before has changed nothing. The rest is changed before it, and
 * all of it under the mutex.
 *
 * How a round ended is written down for those who were in it and look later,
 * when the next rounds may have begun. */
#ifndef PYC_IPC_ROUND_H
#define PYC_IPC_ROUND_H

#include "ipc/bell.h"
#include "ipc/word.h"

enum { PYC_FILLING, PYC_ACTING, PYC_BROKEN };

#define PYC_ROUND_STATE(word) ((word) & 3)
#define PYC_ROUND_COUNT(word) ((word) >> 2 & 0xffff)
#define PYC_ROUND_NUMBER(word) ((word) >> 18)
#define PYC_ROUND(number, count, state)                                        \
    ((uint32_t)(number) << 18 | (uint32_t)(count) << 2 | (uint32_t)(state))

#define PYC_PARTIES_MOST 0xffff
#define PYC_ROUNDS_KNOWN 1024
#define PYC_PARTIES_KNOWN 900 /* whose death is noticed */

typedef struct {
    pyc_mutex mutex;
    pyc_bells bells;
    _Atomic uint32_t word;
    _Atomic uint32_t parties;
    _Atomic uint32_t actor; /* who acts for all */
    _Atomic uint32_t broken[PYC_ROUNDS_KNOWN / 32];
    _Atomic uint32_t inside[]; /* who has come, as far as known */
} pyc_rounds;

static inline uint32_t
pyc_rounds_known(pyc_rounds *self)
{
    uint32_t parties = pyc_word_look(&self->parties);
    return parties < PYC_PARTIES_KNOWN ? parties : PYC_PARTIES_KNOWN;
}

/* One more has come, who was not the last. */
static inline void
pyc_rounds_come(pyc_rounds *self, pyc_owner me)
{
    uint32_t word = pyc_word_look(&self->word);
    uint32_t count = PYC_ROUND_COUNT(word);
    if (count < pyc_rounds_known(self)) {
        atomic_store(&self->inside[count], me);
    }
    atomic_store(&self->word,
                 PYC_ROUND(PYC_ROUND_NUMBER(word), count + 1, PYC_FILLING));
}

/* One of this process's has gone again, or, when it is killed here, has not. */
static inline void
pyc_rounds_go(pyc_rounds *self, pyc_owner me)
{
    uint32_t word = pyc_word_look(&self->word);
    uint32_t count = PYC_ROUND_COUNT(word) - 1;
    uint32_t known = pyc_rounds_known(self);
    for (uint32_t at = 0; at < known && count < known; at++) {
        if (pyc_word_look(&self->inside[at]) == me) {
            pyc_mutex_set(&self->mutex, &self->inside[at],
                          pyc_word_look(&self->inside[count]));
            break;
        }
    }
    pyc_mutex_set(&self->mutex, &self->word,
                  PYC_ROUND(PYC_ROUND_NUMBER(word), count, PYC_FILLING));
}

/* The last has come, who acts for all. */
static inline void
pyc_rounds_act(pyc_rounds *self, pyc_owner me)
{
    uint32_t word = pyc_word_look(&self->word);
    atomic_store(&self->actor, me);
    atomic_store(&self->word, word | PYC_ACTING);
}

/* Ends the round, in whatever state; the next one begins in `state`. */
static inline void
pyc_rounds_end(pyc_rounds *self, bool broken, uint32_t state)
{
    uint32_t number = PYC_ROUND_NUMBER(pyc_word_look(&self->word));
    _Atomic uint32_t *bits = &self->broken[number % PYC_ROUNDS_KNOWN / 32];
    uint32_t bit = 1u << number % 32, old = pyc_word_look(bits);
    atomic_store(bits, broken ? old | bit : old & ~bit);
    atomic_store(&self->word, PYC_ROUND(number + 1, 0, state));
}

/* Whether a round that has ended was broken. */
static inline bool
pyc_rounds_was_broken(pyc_rounds *self, uint32_t number)
{
    return (pyc_word_look(&self->broken[number % PYC_ROUNDS_KNOWN / 32]) >>
                number % 32 &
            1) != 0;
}

#endif
