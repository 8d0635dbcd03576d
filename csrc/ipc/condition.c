/* SPDX-License-Identifier: MIT */
#include "ipc/condition.h"
#include "ipc/died.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

void
pyc_condition_begin(pyc_condition_wait *wait)
{
    pyc_condition *self = wait->condition;
    pyc_places *places = &PYC_CONDITION_MEMORY(self)->places;
    pyc_ipc_lock *lock = PYC_CONDITION_LOCK(self);
    wait->depth = pyc_word_look(&PYC_LOCK_MEMORY(lock)->depth);
    wait->heir = -1;
    wait->at = pyc_places_join(places, pyc_arena_me(PYC_ARENA(self)));
    wait->number = pyc_word_look(wait->at < 0
                                     ? &places->calls
                                     : &places->places[wait->at].number);
    pyc_lock_free(lock);
}

static bool
is_notified(pyc_condition_wait *wait)
{
    pyc_places *places = &PYC_CONDITION_MEMORY(wait->condition)->places;
    if (wait->at < 0) {
        return atomic_load(&places->calls) != wait->number;
    }
    return (atomic_load(&places->places[wait->at].word) & PYC_NOTIFIED) != 0;
}

bool
pyc_condition_heard(pyc_condition_wait *wait)
{
    return wait->heir >= 0 || is_notified(wait);
}

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

void
pyc_condition_look(pyc_condition_wait *wait)
{
    pyc_arena *arena = PYC_ARENA(wait->condition);
    pyc_owner me = pyc_arena_me(arena), alive = me;
    pyc_places *places = &PYC_CONDITION_MEMORY(wait->condition)->places;
    uint32_t used = pyc_word_look(&places->used);
    if (wait->at < 0) {
        return; /* the crowd hears every call and inherits nothing */
    }
    for (uint32_t at = 0; at < used && at < PYC_PLACES; at++) {
        pyc_place *place = &places->places[at];
        uint32_t word = pyc_word_look(&place->word);
        if (is_dead(arena, word & PYC_OWNER, &alive) &&
            pyc_places_bury(places, place, word, wait->number, me)) {
            wait->heir = (int32_t)at;
            return;
        }
    }
}

bool
pyc_condition_leave(pyc_condition_wait *wait)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(wait->condition));
    pyc_places *places = &PYC_CONDITION_MEMORY(wait->condition)->places;
    if (wait->at >= 0 && pyc_places_leave(&places->places[wait->at], me)) {
        wait->at = -1;
        return wait->heir >= 0;
    }
    return pyc_condition_heard(wait);
}

void
pyc_condition_end(pyc_condition_wait *wait, bool passes_on)
{
    pyc_condition *self = wait->condition;
    pyc_places *places = &PYC_CONDITION_MEMORY(self)->places;
    if (passes_on || (wait->at >= 0 && wait->heir >= 0)) {
        pyc_condition_notify(self, 1);
    }
    if (wait->at >= 0) {
        pyc_places_done(&places->places[wait->at]);
    }
    if (wait->heir >= 0) {
        pyc_places_done(&places->places[wait->heir]);
    }
}

/* Has who sleeps in a place, which was notified just now, sleep on for the
 * lock, as he would find that taken. Who lets go of it wakes him. */
static void
move(pyc_place *place, pyc_ipc_lock *lock)
{
    _Atomic uint32_t *word = &PYC_LOCK_MEMORY(lock)->word;
    pyc_word_ask(word);
    if (syscall(SYS_futex, &place->word, FUTEX_CMP_REQUEUE, 0, (void *)1, word,
                pyc_word_look(&place->word)) < 0) {
        pyc_wake(&place->word, 1);
    }
}

static size_t
notify_first(pyc_condition *self, size_t count)
{
    pyc_places *places = &PYC_CONDITION_MEMORY(self)->places;
    pyc_place *place;
    size_t notified = 0;
    while (notified < count && (place = pyc_places_first(places)) != NULL) {
        if (pyc_places_notify(places, place)) {
            move(place, PYC_CONDITION_LOCK(self));
            notified++;
        }
    }
    return notified;
}

void
pyc_condition_notify(pyc_condition *self, size_t count)
{
    pyc_condition_memory *memory = PYC_CONDITION_MEMORY(self);
    pyc_places *places = &memory->places;
    size_t notified = notify_first(self, count);
    if (notified < count && pyc_word_look(&places->crowd) != 0) {
        atomic_store(&places->crowd, 0);
        atomic_fetch_add(&places->calls, 1);
        pyc_wake(&places->calls, INT32_MAX);
        notified++;
    }
    if (notified > 0) {
        pyc_bells_ring(pyc_ipc_of((PyObject *)self), PYC_ARENA(self),
                       &memory->bells);
    }
}
