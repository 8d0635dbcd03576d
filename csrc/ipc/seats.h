/* SPDX-License-Identifier: MIT */
/* Who waits for a condition.
 *
 * Each who waits has a seat: a word that says whose it is, and whether its
 * owner waits or has been notified. Places are taken and notified by who has
 * the condition's lock. An owner gives its seat up alone when its time is
 * over, and keeps it, once notified, until it has the lock again: when it is
 * killed before, one of those who waited at that time finds the notification
 * and takes it over. */
#ifndef PYC_IPC_SEATS_H
#define PYC_IPC_SEATS_H

#include "ipc/bell.h"
#include "ipc/word.h"

#define PYC_WAITS 0x40000000u
#define PYC_NOTIFIED 0x80000000u
#define PYC_ASLEEP (PYC_WAITS | PYC_NOTIFIED) /* waits, and may sleep */

typedef struct {
    _Atomic uint32_t word;
    _Atomic uint32_t number; /* in the order of coming; once notified, the
                                first number that came later */
    pyc_bells bells;         /* when its owner is a task */
} pyc_seat;

#define PYC_SEATS 120

typedef struct {
    _Atomic uint32_t next;  /* number */
    _Atomic uint32_t used;  /* seats that were ever taken */
    _Atomic uint32_t crowd; /* somebody waits who found no seat, and is woken by
                               every notification that is left over: */
    _Atomic uint32_t calls;
    pyc_bells bells; /* of the crowd */
    pyc_seat seats[PYC_SEATS];
} pyc_seats;

static inline bool
pyc_seat_is_notified(uint32_t word)
{
    return (word & PYC_ASLEEP) == PYC_NOTIFIED;
}

/* Says that its owner is going to sleep, unless it was notified. */
static inline void
pyc_seat_doze(pyc_seat *seat, pyc_owner me)
{
    pyc_word_swap(&seat->word, me | PYC_WAITS, me | PYC_ASLEEP);
}

/* Takes a seat, under the lock: which, or -1 when there is none. */
static inline int32_t
pyc_seats_join(pyc_seats *self, pyc_owner me)
{
    uint32_t number = pyc_word_look(&self->next);
    for (uint32_t at = 0; at < PYC_SEATS; at++) {
        pyc_seat *seat = &self->seats[at];
        if (pyc_word_look(&seat->word) != 0) {
            continue;
        }
        atomic_store_explicit(&seat->number, number, memory_order_relaxed);
        if (at >= pyc_word_look(&self->used)) {
            atomic_store(&self->used, at + 1);
        }
        atomic_store(&self->next, number + 1);
        if (pyc_word_swap(&seat->word, 0, me | PYC_WAITS)) {
            return (int32_t)at;
        }
    }
    atomic_store(&self->crowd, 1);
    return -1;
}

/* Gives a seat up that was not notified: whether it was not. */
static inline bool
pyc_seats_leave(pyc_seat *seat, pyc_owner me)
{
    return pyc_word_swap(&seat->word, me | PYC_WAITS, 0) ||
           pyc_word_swap(&seat->word, me | PYC_ASLEEP, 0);
}

/* Has heard of the notification, and has the lock. */
static inline void
pyc_seats_done(pyc_seat *seat)
{
    atomic_store(&seat->word, 0);
}

/* Who has waited longest, under the lock; NULL: nobody waits. */
static inline pyc_seat *
pyc_seats_first(pyc_seats *self)
{
    pyc_seat *first = NULL;
    uint32_t used = pyc_word_look(&self->used),
             next = pyc_word_look(&self->next);
    uint32_t longest = 0;
    for (uint32_t at = 0; at < used && at < PYC_SEATS; at++) {
        pyc_seat *seat = &self->seats[at];
        uint32_t waits = next - pyc_word_look(&seat->number);
        if ((pyc_word_look(&seat->word) & PYC_WAITS) != 0 &&
            (first == NULL || waits > longest)) {
            longest = waits;
            first = seat;
        }
    }
    return first;
}

/* Notifies one who waits, under the lock: false when it has just given up.
 * *asleep: whether it may sleep. */
static inline bool
pyc_seats_notify(pyc_seats *self, pyc_seat *seat, bool *asleep)
{
    uint32_t word;
    atomic_store(&seat->number, pyc_word_look(&self->next));
    do { /* once more when it has just gone to sleep */
        word = pyc_word_look(&seat->word);
        if ((word & PYC_WAITS) == 0) {
            return false;
        }
        *asleep = (word & PYC_ASLEEP) == PYC_ASLEEP;
    } while (
        !pyc_word_swap(&seat->word, word, (word & PYC_OWNER) | PYC_NOTIFIED));
    return true;
}

/* Whether one who came with the number `mine` waited already when a seat, whose
 * word is `word`, was notified. */
static inline bool
pyc_seats_may_inherit(pyc_seat *seat, uint32_t word, uint32_t mine)
{
    uint32_t later = pyc_word_look(&seat->number);
    return pyc_seat_is_notified(word) && later != mine &&
           later - mine < PYC_SLEEPERS;
}

/* Whether anybody may inherit it who still waits. */
static inline bool
pyc_seats_has_heirs(pyc_seats *self, pyc_seat *seat, uint32_t word)
{
    for (uint32_t at = 0; at < PYC_SEATS; at++) {
        pyc_seat *heir = &self->seats[at];
        if ((pyc_word_look(&heir->word) & PYC_WAITS) != 0 &&
            pyc_seats_may_inherit(seat, word, pyc_word_look(&heir->number))) {
            return true;
        }
    }
    return false;
}

/* Leaves a seat that was notified, but not for the lock: the notification is
 * for who would inherit it. */
static inline void
pyc_seats_desert(pyc_seats *self, pyc_seat *seat)
{
    bool has_heirs =
        pyc_seats_has_heirs(self, seat, pyc_word_look(&seat->word));
    atomic_store(&seat->word, has_heirs ? PYC_NOTIFIED : 0);
}

/* A seat whose owner is dead, found by one who waits and came with the number
 * `mine`: whether it has got the notification with the seat. */
static inline bool
pyc_seats_bury(pyc_seats *self, pyc_seat *seat, uint32_t word, uint32_t mine,
               pyc_owner me)
{
    if (pyc_seats_may_inherit(seat, word, mine)) {
        return pyc_word_swap(&seat->word, word, me | PYC_NOTIFIED);
    }
    if ((word & PYC_WAITS) != 0 || !pyc_seats_has_heirs(self, seat, word)) {
        pyc_word_swap(&seat->word, word, 0);
    }
    return false;
}

#endif
