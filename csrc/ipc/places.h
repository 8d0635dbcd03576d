/* SPDX-License-Identifier: MIT */
/* Who waits for a condition.
 *
 * Each who waits has a place: a word that says whose it is, and whether its
 * owner waits or has been notified. Places are taken and notified by who has
 * the condition's lock. An owner gives its place up alone when its time is
 * over, and keeps it, once notified, until it has the lock again: when it is
 * killed before, one of those who waited at that time finds the notification
 * and takes it over. */
#ifndef PYC_IPC_PLACES_H
#define PYC_IPC_PLACES_H

#include "ipc/word.h"

#define PYC_WAITS 0x40000000u
#define PYC_NOTIFIED 0x80000000u

typedef struct {
    _Atomic uint32_t word;
    _Atomic uint32_t number; /* in the order of coming; once notified, the
                                first number that came later */
} pyc_place;

#define PYC_PLACES 120

typedef struct {
    _Atomic uint32_t next;  /* number */
    _Atomic uint32_t used;  /* places that were ever taken */
    _Atomic uint32_t crowd; /* somebody waits who found no place: */
    _Atomic uint32_t calls; /* woken by every notification */
    pyc_place places[PYC_PLACES];
} pyc_places;

/* Takes a place, under the lock: which, or -1 when there is none. */
static inline int32_t
pyc_places_join(pyc_places *self, pyc_owner me)
{
    uint32_t number = pyc_word_look(&self->next);
    for (uint32_t at = 0; at < PYC_PLACES; at++) {
        pyc_place *place = &self->places[at];
        if (pyc_word_look(&place->word) != 0) {
            continue;
        }
        atomic_store_explicit(&place->number, number, memory_order_relaxed);
        if (at >= pyc_word_look(&self->used)) {
            atomic_store(&self->used, at + 1);
        }
        atomic_store(&self->next, number + 1);
        if (pyc_word_swap(&place->word, 0, me | PYC_WAITS)) {
            return (int32_t)at;
        }
    }
    atomic_store(&self->crowd, 1);
    return -1;
}

/* Gives a place up that was not notified: whether it was not. */
static inline bool
pyc_places_leave(pyc_place *place, pyc_owner me)
{
    return pyc_word_swap(&place->word, me | PYC_WAITS, 0);
}

/* Has heard of the notification, and has the lock. */
static inline void
pyc_places_done(pyc_place *place)
{
    atomic_store(&place->word, 0);
}

/* Who has waited longest, under the lock; NULL: nobody waits. */
static inline pyc_place *
pyc_places_first(pyc_places *self)
{
    pyc_place *first = NULL;
    uint32_t used = pyc_word_look(&self->used), next = pyc_word_look(&self->next);
    uint32_t longest = 0;
    for (uint32_t at = 0; at < used && at < PYC_PLACES; at++) {
        pyc_place *place = &self->places[at];
        uint32_t waits = next - pyc_word_look(&place->number);
        if ((pyc_word_look(&place->word) & PYC_WAITS) != 0 &&
            (first == NULL || waits > longest)) {
            longest = waits;
            first = place;
        }
    }
    return first;
}

/* Notifies one who waits, under the lock: false when it has just given up. */
static inline bool
pyc_places_notify(pyc_places *self, pyc_place *place)
{
    uint32_t word = pyc_word_look(&place->word);
    if ((word & PYC_WAITS) == 0) {
        return false;
    }
    atomic_store(&place->number, pyc_word_look(&self->next));
    return pyc_word_swap(&place->word, word, (word ^ PYC_WAITS) | PYC_NOTIFIED);
}

/* Whether one who came with the number `mine` waited already when a place, whose
 * word is `word`, was notified. */
static inline bool
pyc_places_may_inherit(pyc_place *place, uint32_t word, uint32_t mine)
{
    uint32_t later = pyc_word_look(&place->number);
    return (word & PYC_NOTIFIED) != 0 && later != mine &&
           later - mine < PYC_SLEEPERS;
}

/* Whether anybody may inherit it who still waits. */
static inline bool
pyc_places_has_heirs(pyc_places *self, pyc_place *place, uint32_t word)
{
    for (uint32_t at = 0; at < PYC_PLACES; at++) {
        pyc_place *heir = &self->places[at];
        if ((pyc_word_look(&heir->word) & PYC_WAITS) != 0 &&
            pyc_places_may_inherit(place, word, pyc_word_look(&heir->number))) {
            return true;
        }
    }
    return false;
}

/* A place whose owner is dead, found by one who waits and came with the number
 * `mine`: whether it has got the notification with the place. */
static inline bool
pyc_places_bury(pyc_places *self, pyc_place *place, uint32_t word,
                uint32_t mine, pyc_owner me)
{
    if (pyc_places_may_inherit(place, word, mine)) {
        return pyc_word_swap(&place->word, word, me | PYC_NOTIFIED);
    }
    if ((word & PYC_WAITS) != 0 || !pyc_places_has_heirs(self, place, word)) {
        pyc_word_swap(&place->word, word, 0);
    }
    return false;
}

#endif
