/* SPDX-License-Identifier: MIT */
#include "ipc/condition.h"
#include "ipc/died.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One question for neighbours of the same process. */
static bool
is_dead(pyc_arena *arena, pyc_owner owner, pyc_owner *alive)
{
    if (owner == 0 || owner == *alive) {
        return false;
    }
    if (pyc_arena_owner_is_dead(arena, owner)) {
        return true;
    }
    *alive = owner;
    return false;
}

/* Frees the seats of the dead, up to one whose notification is for who came
 * with the number `mine`: that seat, or -1. */
static int32_t
bury_dead(pyc_condition *self, uint32_t mine)
{
    pyc_arena *arena = PYC_ARENA(self);
    pyc_owner me = pyc_arena_me(arena), alive = me;
    pyc_seats *seats = PYC_CONDITION_SEATS(self);
    uint32_t used = pyc_word_look(&seats->used);
    for (uint32_t at = 0; at < used && at < PYC_SEATS; at++) {
        pyc_seat *seat = &seats->seats[at];
        uint32_t word = pyc_word_look(&seat->word);
        bool deserted = word == PYC_NOTIFIED;
        if ((deserted || is_dead(arena, word & PYC_OWNER, &alive)) &&
            pyc_seats_bury(seats, seat, word, mine, me)) {
            return (int32_t)at;
        }
    }
    return -1;
}

/* The dead keep nobody standing. */
static int32_t
join(pyc_condition *self)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(self));
    pyc_seats *seats = PYC_CONDITION_SEATS(self);
    int32_t at = pyc_seats_join(seats, me);
    if (at < 0) {
        /* Who only comes inherits nothing. */
        bury_dead(self, pyc_word_look(&seats->next));
        at = pyc_seats_join(seats, me);
    }
    return at;
}

void
pyc_condition_begin(pyc_condition_wait *wait)
{
    pyc_condition *self = wait->condition;
    pyc_seats *seats = PYC_CONDITION_SEATS(self);
    pyc_ipc_lock *lock = PYC_CONDITION_LOCK(self);
    wait->depth = pyc_word_look(&PYC_LOCK_MEMORY(lock)->depth);
    wait->heir = -1;
    wait->at = join(self);
    wait->number = pyc_word_look(wait->at < 0 ? &seats->calls
                                              : &seats->seats[wait->at].number);
    pyc_lock_free(lock);
}

static bool
is_notified(pyc_condition_wait *wait)
{
    pyc_seats *seats = PYC_CONDITION_SEATS(wait->condition);
    if (wait->at < 0) {
        return atomic_load(&seats->calls) != wait->number;
    }
    return pyc_seat_is_notified(atomic_load(&seats->seats[wait->at].word));
}

bool
pyc_condition_heard(pyc_condition_wait *wait)
{
    return wait->heir >= 0 || is_notified(wait);
}

/* The crowd hears every call and inherits nothing. */
void
pyc_condition_look(pyc_condition_wait *wait)
{
    if (wait->at >= 0) {
        wait->heir = bury_dead(wait->condition, wait->number);
    }
}

bool
pyc_condition_leave(pyc_condition_wait *wait)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(wait->condition));
    pyc_seats *seats = PYC_CONDITION_SEATS(wait->condition);
    if (wait->at >= 0 && pyc_seats_leave(&seats->seats[wait->at], me)) {
        wait->at = -1;
        return wait->heir >= 0;
    }
    return pyc_condition_heard(wait);
}

void
pyc_condition_end(pyc_condition_wait *wait, bool passes_on)
{
    pyc_condition *self = wait->condition;
    pyc_seats *seats = PYC_CONDITION_SEATS(self);
    if (passes_on || (wait->at >= 0 && wait->heir >= 0)) {
        pyc_condition_notify(self, 1);
    }
    if (wait->at >= 0) {
        pyc_seats_done(&seats->seats[wait->at]);
    }
    if (wait->heir >= 0) {
        pyc_seats_done(&seats->seats[wait->heir]);
    }
}

void
pyc_condition_desert(pyc_condition_wait *wait)
{
    pyc_seats *seats = PYC_CONDITION_SEATS(wait->condition);
    pyc_condition_leave(wait);
    if (wait->at >= 0) {
        pyc_seats_desert(seats, &seats->seats[wait->at]);
    }
    if (wait->heir >= 0) {
        pyc_seats_desert(seats, &seats->seats[wait->heir]);
    }
}

static void
ring(pyc_condition *self, pyc_bells *bells)
{
    pyc_bells_ring(pyc_ipc_of((PyObject *)self), PYC_ARENA(self), bells);
}

/* Has who sleeps in a seat, which was notified just now, sleep on for the lock,
 * as he would find that taken. Who lets go of it wakes him. */
static void
move(pyc_seat *seat, pyc_ipc_lock *lock)
{
    _Atomic uint32_t *word = &PYC_LOCK_MEMORY(lock)->word;
    pyc_word_ask(word);
    if (syscall(SYS_futex, &seat->word, FUTEX_CMP_REQUEUE, 0, (void *)1, word,
                pyc_word_look(&seat->word)) < 0) {
        pyc_wake(&seat->word, 1);
    }
}

void
pyc_condition_notify(pyc_condition *self, size_t count)
{
    pyc_seats *seats = PYC_CONDITION_SEATS(self);
    pyc_seat *seat;
    bool asleep;
    while (count > 0 && (seat = pyc_seats_first(seats)) != NULL) {
        if (pyc_seats_notify(seats, seat, &asleep)) {
            PYC_KILL_POINT("condition.notified");
            if (asleep) {
                move(seat, PYC_CONDITION_LOCK(self));
            }
            ring(self, &seat->bells);
            count--;
        }
    }
    if (count > 0 && pyc_word_look(&seats->crowd) != 0) {
        atomic_store(&seats->crowd, 0);
        atomic_fetch_add(&seats->calls, 1);
        pyc_wake(&seats->calls, INT32_MAX);
        ring(self, &seats->bells);
    }
}
