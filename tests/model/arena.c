/* SPDX-License-Identifier: MIT */
/* The arena's table of processes and its blocks: no place and no block is given
 * to two, a pickle gives its own block or none, what a dead process had comes
 * back. The arena is a small one: a page of two blocks, a table of two places;
 * a third process has none. */
#include <unistd.h>

static int caller(void);
#define getpid() (100 + caller())

#define change change_place
#include "ipc/table.c"
#undef change
#include "ipc/block.c"

#define MODEL_REAL_TABLE
#include "kernel.h"

enum { KIND = 5, WHOLE_PAGE = PYC_PAGE_SIZE - 64, HALF_PAGE = 64 };

/* What a process keeps for itself. */
typedef struct {
    pyc_ipc state;
    pyc_arena arena;
    uint32_t held_here[PYC_ARENA_SIZE / PYC_LEAST_BLOCK];
} own;

/* A pickle. */
typedef struct {
    uint32_t offset;
    uint32_t generation;
    uint32_t object; /* 0: there is none yet */
} sent_object;

typedef struct {
    own of[3];
    uint32_t objects; /* made so far */
    uint32_t inside;  /* a bit for each process that has a place */
    bool received;
    bool sent_all;
    bool forked;
    bool unborn; /* there will be no fork */
    sent_object sent;
    sent_object other; /* the second pickle */
} ghost;
#define GHOST ((ghost *)model_ghost)

int model_nobody; /* the places before it are there */

_Static_assert(PYC_ARENA_SIZE <= MODEL_SHARED, "too large");
_Static_assert(sizeof(ghost) <= MODEL_GHOST, "too large");
_Static_assert(sizeof(pyc_arena_header) <= PYC_PAGE_SIZE, "too large");
_Static_assert(sizeof(pyc_place) * PYC_PLACES <= 2 * PYC_PAGE_SIZE,
               "too large");

static int set_up_for; /* whom the explorer stands for */

static int
caller(void)
{
    return model_me >= 0 ? model_me : set_up_for;
}

static pyc_arena *
arena_of(int process)
{
    return &GHOST->of[process].arena;
}

#define ME (&GHOST->of[model_me])

/* ---- In place of alive.c, guard.c and map.c ---- */

uint64_t
pyc_process_start(int pid)
{
    return 7;
}

bool
pyc_process_is_alive(int pid, uint64_t start)
{
    int process = pid - 100;
    if (model_me < 0) {
        return model_alive(process);
    }
    return !model_is_dead(MODEL_SITE("the process"), process);
}

void
pyc_guard_take(pyc_ipc *state)
{
}

void
pyc_guard_give(pyc_ipc *state)
{
}

pyc_arena *
pyc_arena_create(void)
{
    return NULL;
}

pyc_arena *
pyc_arena_find(pyc_ipc *state, const char *cookie)
{
    return arena_of(caller());
}

void
pyc_arena_enter(pyc_ipc *state, pyc_arena *arena)
{
}

void
pyc_arena_leave(pyc_arena *arena)
{
}

/* ---- */

static void
open_arena(int process)
{
    own *mine = &GHOST->of[process];
    pyc_link_init(&mine->state.arenas);
    pyc_link_insert(&mine->state.arenas, &mine->arena.link);
    mine->state.newest = &mine->arena;
    mine->state.pid = 100 + process;
    mine->arena.state = &mine->state;
    mine->arena.memory = (char *)model_shared;
    mine->arena.held_here = mine->held_here;
    mine->arena.adopted = true;
}

static void
set_up(void)
{
    model_nobody = 3;
    for (int i = 0; i < model_current()->processes; i++) {
        open_arena(i);
    }
}

static void
enter_first(int processes)
{
    for (int i = 0; i < processes; i++) {
        set_up_for = i;
        pyc_table_enter(&GHOST->of[i].state, arena_of(i));
        GHOST->inside |= 1u << i;
    }
    set_up_for = 0;
}

static void
enter_all(void)
{
    set_up();
    model_nobody = 4;
    enter_first(model_current()->processes);
}

/* Not the child of a fork. */
static void
enter_other(void)
{
    set_up();
    enter_first(1);
    set_up_for = 2;
    pyc_table_enter(&GHOST->of[2].state, arena_of(2));
    GHOST->inside |= 4;
    set_up_for = 0;
}

static void
enter_one(void)
{
    set_up();
    enter_first(1);
}

/* The object a block is of: a number in its memory. */
static _Atomic uint32_t *
number_in(const pyc_block *block)
{
    return block->memory;
}

static bool
make(pyc_block *block, size_t size)
{
    if (pyc_block_new(&ME->state, size, KIND, block) < 0) {
        return false;
    }
    MODEL_CHECK(atomic_load(number_in(block)) == 0, "a block is not empty");
    atomic_store(number_in(block), ++GHOST->objects);
    return true;
}

static void
check_number(const pyc_block *block, uint32_t number)
{
    MODEL_CHECK(atomic_load(number_in(block)) == number,
                "a block is another object's, too");
}

static void
make_and_drop(size_t size, bool must)
{
    for (int i = 0; i < 2; i++) {
        pyc_block block;
        if (make(&block, size)) {
            uint32_t number = atomic_load(number_in(&block));
            model_point(MODEL_SITE("has the block"));
            check_number(&block, number);
            pyc_block_drop(&block);
        }
        else {
            MODEL_CHECK(!must, "a block that is free is not found");
        }
    }
}

/* There is a block for each. */
static void
take_one(int me)
{
    make_and_drop(HALF_PAGE, model_current()->kills == 0);
}

/* There is one block for all. */
static void
take_the_one(int me)
{
    make_and_drop(WHOLE_PAGE, false);
}

static void
send_block(const pyc_block *block, sent_object *as)
{
    pyc_block_header *header = pyc_header_at(block->arena, block->offset);
    sent_object this = {block->offset, block->generation, GHOST->objects};
    add_sent(header);
    *as = this;
}

static void
receive_once(sent_object this, bool must)
{
    pyc_block block;
    sent_block sent = {.cookie = "",
                       .offset = this.offset,
                       .generation = this.generation,
                       .kind = KIND};
    enum outcome outcome = find_sent(&ME->state, &sent, NULL, &block);
    MODEL_CHECK(!must || outcome == RECEIVED, "what was sent is gone");
    MODEL_CHECK(outcome == RECEIVED || outcome == GONE, "no such block");
    if (outcome == RECEIVED) {
        check_number(&block, this.object);
        model_point(MODEL_SITE("has the block"));
        check_number(&block, this.object);
        pyc_block_drop(&block);
    }
}

/* 0 makes an object, sends it, drops it and makes others; 1 receives it, and
 * then tries the same pickle once more. */
static void
send_and_receive(int me)
{
    pyc_block block;
    if (me == 0) {
        if (make(&block, WHOLE_PAGE)) {
            send_block(&block, &GHOST->sent);
            pyc_block_drop(&block);
        }
        for (int i = 0; i < 2; i++) {
            if (make(&block, WHOLE_PAGE)) {
                uint32_t number = GHOST->objects;
                if (i == 0) {
                    model_point(MODEL_SITE("has the block"));
                }
                check_number(&block, number);
                pyc_block_drop(&block);
            }
        }
        return;
    }
    while (GHOST->sent.object == 0 && model_alive(0)) {
        model_point(MODEL_SITE("waits for the pickle"));
    }
    if (GHOST->sent.object != 0) {
        receive_once(GHOST->sent, true);
        receive_once(GHOST->sent, false);
    }
}

/* The second use of the block sends a pickle of its own, which must arrive
 * whatever becomes of the first one. */
static void
send_twice(int me)
{
    pyc_block block;
    if (me == 0) {
        if (make(&block, WHOLE_PAGE)) {
            send_block(&block, &GHOST->sent);
            pyc_block_drop(&block);
        }
        return;
    }
    while (GHOST->sent.object == 0 && model_alive(0)) {
        model_point(MODEL_SITE("waits for the pickle"));
    }
    if (GHOST->sent.object == 0) {
        return;
    }
    sent_object first = GHOST->sent;
    receive_once(GHOST->sent, true);
    if (make(&block, WHOLE_PAGE)) {
        send_block(&block, &GHOST->sent);
        MODEL_CHECK(GHOST->sent.generation != first.generation,
                    "two uses of a block have the same generation");
        pyc_block_drop(&block);
        receive_once(GHOST->sent, true);
    }
}

/* A pickle that two unpickle, and the next one that 2 must get. (The block may
 * then be kept, as for a pickle on its way, until its arena goes: who finds
 * that it has taken the other use's pickle gives it back, which the other may
 * have managed without.) */
static void
send_to_two(int me)
{
    pyc_block block;
    if (me == 0) {
        if (make(&block, WHOLE_PAGE)) {
            send_block(&block, &GHOST->sent);
            pyc_block_drop(&block);
        }
        while (!GHOST->received) {
            model_point(MODEL_SITE("waits until 2 has it"));
        }
        if (make(&block, WHOLE_PAGE)) {
            send_block(&block, &GHOST->other);
            pyc_block_drop(&block);
        }
        GHOST->sent_all = true;
        return;
    }
    while (GHOST->sent.object == 0) {
        model_point(MODEL_SITE("waits for the pickle"));
    }
    receive_once(GHOST->sent, false);
    if (me == 2) {
        GHOST->received = true;
        while (!GHOST->sent_all) {
            model_point(MODEL_SITE("waits for the other pickle"));
        }
        if (GHOST->other.object != 0) {
            receive_once(GHOST->other, true);
        }
    }
}

/* ---- The table ---- */

static bool
is_inside(int process)
{
    return (GHOST->inside & 1u << process) != 0 && model_alive(process);
}

static void
check_places(void)
{
    for (int i = 0; i < model_current()->processes; i++) {
        for (int j = 0; j < i; j++) {
            const pyc_arena *a = arena_of(i), *b = arena_of(j);
            MODEL_CHECK(!is_inside(i) || !is_inside(j) ||
                            a->place != b->place || a->place == PYC_NOBODY,
                        "two processes have the same place");
            MODEL_CHECK(a->me == 0 || a->me != b->me || a->place == PYC_NOBODY,
                        "two processes had the same number");
        }
    }
}

static void
ask_for_others(void)
{
    for (int i = 0; i < model_current()->processes; i++) {
        pyc_owner owner = arena_of(i)->me;
        if (i == model_me || owner == 0) {
            continue;
        }
        bool was_inside = is_inside(i);
        bool was_dead = !model_alive(i);
        bool dead = pyc_arena_owner_is_dead(&ME->arena, owner);
        MODEL_CHECK(!dead || !was_inside || !is_inside(i),
                    "the living are called dead");
        MODEL_CHECK(dead || !was_dead || arena_of(i)->place == PYC_NOBODY,
                    "the dead are called living");
    }
}

static void
come_and_go(int me)
{
    pyc_table_enter(&ME->state, &ME->arena);
    MODEL_CHECK(ME->arena.me != 0, "nobody's number");
    GHOST->inside |= 1u << me;
    ask_for_others();
    GHOST->inside &= ~(1u << me);
    pyc_table_leave(&ME->arena);
}

static void
come_and_stay(int me)
{
    pyc_table_enter(&ME->state, &ME->arena);
    GHOST->inside |= 1u << me;
    ask_for_others();
}

/* ---- A fork: 0 is the parent, 1 its child ---- */

static void
child(void)
{
    own *mine = ME;
    while (!GHOST->forked && !GHOST->unborn && model_alive(0)) {
        model_point(MODEL_SITE("is not born yet"));
    }
    if (!GHOST->forked) {
        return;
    }
    pyc_block block = {.arena = &mine->arena,
                       .offset = GHOST->sent.offset,
                       .generation = GHOST->sent.generation};
    block.memory = pyc_header_at(&mine->arena, block.offset) + 1;
    pyc_table_adopt(&mine->state, &mine->arena);
    GHOST->inside |= 1u << model_me;
    check_number(&block, GHOST->sent.object);
    model_point(MODEL_SITE("has the block"));
    check_number(&block, GHOST->sent.object);
    pyc_block_drop(&block);
}

static void
parent(void)
{
    pyc_block block;
    if (!make(&block, WHOLE_PAGE)) {
        GHOST->unborn = true;
        return;
    }
    GHOST->sent = (sent_object){block.offset, block.generation, GHOST->objects};
    pyc_table_reserve(&ME->arena);
    own *born = &GHOST->of[1];
    born->arena.place = ME->arena.place;
    born->arena.child_place = ME->arena.child_place;
    born->arena.held = ME->arena.held;
    __builtin_memcpy(born->held_here, ME->held_here, sizeof(born->held_here));
    GHOST->forked = true;
    pyc_block_drop(&block);
    if (make(&block, WHOLE_PAGE)) {
        pyc_block_drop(&block);
    }
}

static void
fork_once(int me)
{
    if (me == 0) {
        parent();
    }
    else if (me == 1) {
        child();
    }
    else {
        pyc_block block;
        if (make(&block, WHOLE_PAGE)) {
            uint32_t number = GHOST->objects;
            model_point(MODEL_SITE("has the block"));
            check_number(&block, number);
            pyc_block_drop(&block);
        }
    }
}

/* ---- At the end ---- */

/* The dead's things come back, and what is left is what pickles hold. */
static void
nothing_left(void)
{
    pyc_arena *arena = NULL;
    set_up_for = 0;
    for (int i = 0; i < model_current()->processes; i++) {
        if (model_alive(i)) {
            arena = arena_of(i);
            set_up_for = i;
        }
    }
    model_time = RESERVED_FOR + 1;
    pyc_table_reap(arena);
    model_time = 0;
    for (uint32_t page = PYC_FIRST_PAGE; page < PYC_PAGES; page++) {
        uint32_t size = pyc_arena_head(arena)->page_sizes[page];
        for (uint32_t at = 0; size != 0 && at + size <= PYC_PAGE_SIZE;
             at += size) {
            uint64_t word =
                pyc_header_at(arena, page * PYC_PAGE_SIZE + at)->word;
            MODEL_CHECK((word & (PYC_FOR_GOOD - 1)) == 0 &&
                            !(word & PYC_UNREADY),
                        "a block is never free again");
            MODEL_CHECK(PYC_SENT(word) == 0 || model_killed() > 0 ||
                            GHOST->received,
                        "a pickle holds its block for ever");
        }
    }
    for (int i = 1; i < PYC_NOBODY; i++) {
        uint32_t state = pyc_arena_places(arena)[i].state;
        MODEL_CHECK(state == 0 || model_alive(PYC_PLACE_PID(state) - 100),
                    "a dead process keeps its place");
    }
    set_up_for = 0;
}

#define SCENARIO(...)                                                          \
    {.shared = PYC_ARENA_SIZE,                                                 \
     .ghost = sizeof(ghost),                                                   \
     .slices = 1,                                                              \
     .check = check_places,                                                    \
     .end = nothing_left,                                                      \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "take", .processes = 2, .setup = enter_all,
             .run = take_one),
    SCENARIO(.name = "take_kill", .processes = 2, .kills = 1,
             .setup = enter_all, .run = take_one),
    SCENARIO(.name = "take_the_one", .processes = 2, .kills = 1,
             .setup = enter_all, .run = take_the_one),
    SCENARIO(.name = "send", .processes = 2, .kills = 0, .setup = enter_all,
             .run = send_and_receive),
    SCENARIO(.name = "send_kill", .processes = 2, .kills = 1,
             .setup = enter_all, .run = send_and_receive),
    SCENARIO(.name = "send_twice", .processes = 2, .kills = 0,
             .setup = enter_all, .run = send_twice),
    SCENARIO(.name = "send_to_two", .processes = 3, .kills = 0,
             .setup = enter_all, .run = send_to_two),
    SCENARIO(.name = "table", .processes = 2, .setup = set_up,
             .run = come_and_go),
    SCENARIO(.name = "table_kill", .processes = 3, .kills = 1, .setup = set_up,
             .run = come_and_stay),
    SCENARIO(.name = "table_kill_two", .processes = 3, .kills = 2,
             .setup = set_up, .run = come_and_go),
    SCENARIO(.name = "fork", .processes = 2, .setup = enter_one,
             .run = fork_once),
    SCENARIO(.name = "fork_kill", .processes = 2, .kills = 1,
             .setup = enter_one, .run = fork_once),
    SCENARIO(.name = "fork_full", .processes = 3, .setup = enter_other,
             .run = fork_once),
    SCENARIO(.name = "fork_full_kill", .processes = 3, .kills = 1,
             .setup = enter_other, .run = fork_once),
};

int
main(int argc, char **argv)
{
    return model_main("arena", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
