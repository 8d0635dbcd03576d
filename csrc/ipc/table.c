/* SPDX-License-Identifier: MIT */
/* The processes of an arena. */
#include "ipc/layout.h"

#include "ipc/alive.h"

#include "base/futex.h"

#include <string.h>
#include <unistd.h>

/* A reservation that no child has taken up after so long was for none: ns. A
 * child may come to it after the death of its parent. */
#define RESERVED_FOR INT64_C(600000000000)
#define RESERVED_BY_DEAD_FOR INT64_C(10000000000)

static uint32_t
state_of(pyc_place *place)
{
    return atomic_load_explicit(&place->state, memory_order_acquire);
}

static bool
change(pyc_place *place, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong(&place->state, &from, to);
}

static pyc_owner
owner_of(pyc_place *places, int place)
{
    uint32_t generation = atomic_load(&places[place].generation);
    return (generation << PYC_PLACE_BITS | (uint32_t)place) &
           ((1u << PYC_OWNER_BITS) - 1);
}

static int
place_of(pyc_owner owner)
{
    return owner & (PYC_PLACES - 1);
}

void
pyc_arena_each_block(pyc_arena *arena,
                     void (*visit)(pyc_arena *, pyc_block_header *,
                                   uint32_t offset, int place),
                     int place)
{
    for (uint32_t page = PYC_FIRST_PAGE; page < PYC_PAGES; page++) {
        uint32_t size = atomic_load(&pyc_arena_head(arena)->page_sizes[page]);
        if (size < PYC_LEAST_BLOCK || size > PYC_PAGE_SIZE) {
            continue;
        }
        uint32_t start = page * PYC_PAGE_SIZE;
        for (uint32_t at = 0; at + size <= PYC_PAGE_SIZE; at += size) {
            visit(arena, pyc_header_at(arena, start + at), start + at, place);
        }
    }
}

static void
take_from(pyc_arena *arena, pyc_block_header *block, uint32_t offset, int place)
{
    uint64_t bit = pyc_place_bit(place);
    uint64_t unready = bit | PYC_UNREADY;
    if (bit != PYC_FOR_GOOD &&
        !atomic_compare_exchange_strong(&block->word, &unready, 0)) {
        atomic_fetch_and(&block->word, ~bit);
    }
}

/* Of a place that the caller has made PYC_PLACE_BUSY for itself. */
static void
clear(pyc_arena *arena, int place)
{
    pyc_place *entry = &pyc_arena_places(arena)[place];
    pyc_arena_each_block(arena, take_from, place);
    atomic_fetch_add(&entry->generation, 1);
    atomic_store(&entry->state, 0);
}

static bool
is_dead(pyc_place *place, uint32_t state)
{
    uint64_t start = atomic_load(&place->start);
    int pid = PYC_PLACE_PID(state);
    int64_t age;
    switch (PYC_PLACE_STATUS(state)) {
    case PYC_PLACE_LIVE:
        return !pyc_process_is_alive(pid, start);
    case PYC_PLACE_RESERVED:
        age = pyc_clock_now() - (int64_t)start;
        return age > RESERVED_FOR ||
               (age > RESERVED_BY_DEAD_FOR && !pyc_process_is_alive(pid, 0));
    default:
        return !pyc_process_is_alive(pid, 0);
    }
}

bool
pyc_table_reap(pyc_arena *arena)
{
    pyc_place *places = pyc_arena_places(arena);
    uint32_t mine = PYC_PLACE_STATE(getpid(), PYC_PLACE_BUSY);
    bool found = false;
    for (int i = 1; i < PYC_NOBODY; i++) {
        uint32_t state = state_of(&places[i]);
        if (state != 0 && is_dead(&places[i], state) &&
            change(&places[i], state, mine)) {
            clear(arena, i);
            found = true;
        }
    }
    return found;
}

/* A place made PYC_PLACE_BUSY, or PYC_NOBODY. */
static int
claim(pyc_arena *arena)
{
    pyc_place *places = pyc_arena_places(arena);
    uint32_t mine = PYC_PLACE_STATE(getpid(), PYC_PLACE_BUSY);
    do {
        for (int i = 1; i < PYC_NOBODY; i++) {
            if (state_of(&places[i]) == 0 && change(&places[i], 0, mine)) {
                return i;
            }
        }
    } while (pyc_table_reap(arena));
    return PYC_NOBODY;
}

/* Tells the others who is at the place, and has it live. */
static void
introduce(pyc_ipc *state, pyc_arena *arena, int place)
{
    arena->place = place;
    arena->me = owner_of(pyc_arena_places(arena), place);
    if (place == PYC_NOBODY) {
        return;
    }
    pyc_place *entry = &pyc_arena_places(arena)[place];
    atomic_store(&entry->start, pyc_process_start(state->pid));
    atomic_store(&entry->missed, 0);
    memcpy(entry->bell, state->bell_name, sizeof(entry->bell));
    atomic_store(&entry->state, PYC_PLACE_STATE(state->pid, PYC_PLACE_LIVE));
}

void
pyc_table_enter(pyc_ipc *state, pyc_arena *arena)
{
    introduce(state, arena, claim(arena));
}

void
pyc_table_leave(pyc_arena *arena)
{
    pyc_place *entry = &pyc_arena_places(arena)[arena->place];
    uint32_t state = state_of(entry);
    int pid = getpid();
    if (arena->place != PYC_NOBODY &&
        state == PYC_PLACE_STATE(pid, PYC_PLACE_LIVE) &&
        change(entry, state, PYC_PLACE_STATE(pid, PYC_PLACE_BUSY))) {
        clear(arena, arena->place);
    }
}

static void
mark_held(pyc_arena *arena, pyc_block_header *block, uint32_t offset, int place)
{
    if (arena->held_here[offset / PYC_LEAST_BLOCK] != 0) {
        atomic_fetch_or(&block->word, pyc_place_bit(place));
    }
}

void
pyc_table_reserve(pyc_arena *arena)
{
    int place = claim(arena);
    pyc_arena_each_block(arena, mark_held, place);
    if (place != PYC_NOBODY) {
        pyc_place *entry = &pyc_arena_places(arena)[place];
        atomic_store(&entry->start, (uint64_t)pyc_clock_now());
        atomic_store(&entry->state,
                     PYC_PLACE_STATE(getpid(), PYC_PLACE_RESERVED));
    }
    arena->child_place = place;
}

void
pyc_table_adopt(pyc_ipc *state, pyc_arena *arena)
{
    int place = arena->child_place;
    pyc_place *entry = &pyc_arena_places(arena)[place];
    uint32_t reserved = state_of(entry);
    arena->child_place = 0;
    if (place != PYC_NOBODY &&
        (PYC_PLACE_STATUS(reserved) != PYC_PLACE_RESERVED ||
         !change(entry, reserved,
                 PYC_PLACE_STATE(state->pid, PYC_PLACE_BUSY)))) {
        place = claim(arena);
    }
    pyc_arena_each_block(arena, mark_held, place); /* new since then, too */
    introduce(state, arena, place);
}

pyc_owner
pyc_arena_me(const pyc_arena *arena)
{
    return arena->me;
}

bool
pyc_arena_owner_is_dead(pyc_arena *arena, pyc_owner owner)
{
    pyc_place *places = pyc_arena_places(arena);
    int place = place_of(owner);
    if (owner == arena->me || place == PYC_NOBODY) {
        return false;
    }
    uint32_t state = state_of(&places[place]);
    /* Busy: it is cleared, as the owner died or left; or filled in, and nobody
     * knows of this owner yet. */
    return state == 0 || owner_of(places, place) != owner ||
           PYC_PLACE_STATUS(state) == PYC_PLACE_BUSY ||
           is_dead(&places[place], state);
}

int
pyc_arena_owner_pid(pyc_arena *arena, pyc_owner owner)
{
    pyc_place *places = pyc_arena_places(arena);
    int place = place_of(owner);
    uint32_t state = state_of(&places[place]);
    return place != PYC_NOBODY && owner_of(places, place) == owner
               ? PYC_PLACE_PID(state)
               : 0;
}
