/* SPDX-License-Identifier: MIT */
/* Condition: each notification reaches one who waits, and no notification is
 * lost with who dies. Two seats; a third waits in the crowd. */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define syscall(number, word, operation, wakes, most, target, expected)        \
    model_requeue(MODEL_SITE("a sleeper to the lock"), (void *)(word),         \
                  (void *)(target), expected)
#include "ipc/condition.c"
#undef syscall
#include "ipc/condition_type.c"
#include "ipc/sleep.c"

#include "kernel.h"
#include "objects.h"

typedef struct {
    pyc_lock_memory lock;
    pyc_seats seats;
    _Atomic uint32_t tokens; /* under the lock */
} memory;
#define MEMORY ((memory *)model_shared)

enum { NOBODY = -1 };

typedef struct {
    pyc_ipc_lock lock[4];
    pyc_condition condition[4];
    int holder;
    uint32_t notified; /* notifications, at most */
    uint32_t heard;
} ghost;
#define GHOST ((ghost *)model_ghost)
#define ME (&GHOST->condition[model_me])

static void
set_up(void)
{
    for (int i = 0; i < model_current()->processes; i++) {
        MODEL_OBJECT(&GHOST->lock[i], &MEMORY->lock);
        MODEL_OBJECT(&GHOST->condition[i], &MEMORY->seats);
        GHOST->condition[i].shared.extra = (PyObject *)&GHOST->lock[i];
        GHOST->lock[i].looked = INT64_MAX / 2;
        GHOST->condition[i].looked = INT64_MAX / 2;
    }
    GHOST->holder = NOBODY;
}

/* One of the seats is taken, the second who waits finds none. */
static void
set_up_crowd(void)
{
    set_up();
    atomic_store(&MEMORY->seats.seats[1].word, 1 | PYC_NOTIFIED);
    atomic_store(&MEMORY->seats.used, 2);
}

static void
has_it(void)
{
    MODEL_CHECK(GHOST->holder == NOBODY || !model_alive(GHOST->holder),
                "two have the lock");
    GHOST->holder = model_me;
}

static void
acquire(void)
{
    if (pyc_word_try(&MEMORY->lock.word, (pyc_owner)model_me + 1)) {
        pyc_lock_mark(&MEMORY->lock, 2);
    }
    else {
        while (pyc_lock_wait(&GHOST->lock[model_me], 2, PYC_NO_DEADLINE) ==
               -1) {
        }
    }
    has_it();
}

static void
let_go(void)
{
    GHOST->holder = NOBODY;
    pyc_lock_free(&GHOST->lock[model_me]);
}

static void one_token(int me);

/* As condition_wait() does. */
static bool
await(int64_t deadline)
{
    pyc_condition_wait wait = {.condition = ME, .who = 2};
    GHOST->holder = NOBODY;
    pyc_condition_begin(&wait);
    bool failed = sleep_in_seat(&wait, deadline) < 0;
    bool notified = pyc_condition_leave(&wait);
    failed |= pyc_lock_retake(PYC_CONDITION_LOCK(ME), wait.who, wait.depth,
                              wait.rest) < 0;
    has_it();
    if (model_current()->run == one_token) {
        model_spare(true); /* or it may take a notification with it */
    }
    pyc_condition_end(&wait, notified && failed);
    GHOST->heard += notified && !failed;
    MODEL_CHECK(GHOST->heard <= GHOST->notified,
                "more hear of it than were notified");
    MODEL_CHECK(notified || failed || deadline != PYC_NO_DEADLINE,
                "goes on without a notification");
    return notified && !failed;
}

static void
put_tokens(uint32_t tokens, uint32_t notifications)
{
    acquire();
    uint32_t now = atomic_load_explicit(&MEMORY->tokens, memory_order_relaxed);
    atomic_store_explicit(&MEMORY->tokens, now + tokens, memory_order_relaxed);
    GHOST->notified += notifications;
    pyc_condition_notify(ME, notifications);
    let_go();
}

static bool
take_token(int64_t deadline)
{
    bool taken = true;
    acquire();
    while (atomic_load_explicit(&MEMORY->tokens, memory_order_relaxed) == 0 &&
           taken) {
        taken = await(deadline);
    }
    if (model_current()->run == one_token) {
        model_spare(true);
    }
    if (taken) {
        uint32_t now =
            atomic_load_explicit(&MEMORY->tokens, memory_order_relaxed);
        atomic_store_explicit(&MEMORY->tokens, now - 1, memory_order_relaxed);
    }
    let_go();
    return taken;
}

/* 0 puts two tokens, one after the other; the others take one each. */
static void
one_by_one(int me)
{
    if (me == 0) {
        put_tokens(1, 1);
        put_tokens(1, 1);
    }
    else {
        take_token(PYC_NO_DEADLINE);
    }
}

static void
both_at_once(int me)
{
    if (me == 0) {
        put_tokens(2, 2);
    }
    else {
        take_token(PYC_NO_DEADLINE);
    }
}

static void
one_of_two_late(int me)
{
    if (me == 0) {
        put_tokens(1, 1);
        put_tokens(1, 1);
    }
    else {
        take_token(me == 1 ? MODEL_SOON : PYC_NO_DEADLINE);
    }
}

/* One token for two: who has it puts it back. */
static void
one_token(int me)
{
    if (me == 0) {
        put_tokens(1, 1);
    }
    else if (take_token(PYC_NO_DEADLINE)) {
        put_tokens(1, 1);
    }
}

static void
nothing_left(void)
{
    MODEL_CHECK(model_killed() > 0 || MEMORY->lock.word == 0,
                "the lock is held by nobody");
    for (int i = 0; i < PYC_SEATS; i++) {
        MODEL_CHECK(model_killed() > 0 || MEMORY->seats.seats[i].word == 0 ||
                        model_current()->setup == set_up_crowd,
                    "a seat is taken by nobody");
    }
}

#define SCENARIO(...)                                                          \
    {.shared = (sizeof(memory) + 3) / 4 * 4,                                   \
     .ghost = sizeof(ghost),                                                   \
     .slices = 2,                                                              \
     .end = nothing_left,                                                      \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "one", .processes = 2, .setup = set_up,
             .run = both_at_once),
    SCENARIO(.name = "two", .processes = 3, .setup = set_up, .run = one_by_one),
    SCENARIO(.name = "both", .processes = 3, .setup = set_up,
             .run = both_at_once),
    SCENARIO(.name = "late", .processes = 3, .setup = set_up,
             .run = one_of_two_late),
    SCENARIO(.name = "passed_on", .processes = 3, .setup = set_up,
             .interrupts = 1, .run = one_token),
    SCENARIO(.name = "inherit", .processes = 3, .setup = set_up, .kills = 1,
             .immortal = 1 | 4, .run = one_token),
    SCENARIO(.name = "kill_waiter", .processes = 3, .setup = set_up, .kills = 1,
             .immortal = 1, .run = one_by_one),
    SCENARIO(.name = "kill_both", .processes = 3, .setup = set_up, .kills = 1,
             .immortal = 1, .run = both_at_once),
    SCENARIO(.name = "crowd", .processes = 3, .setup = set_up_crowd,
             .run = one_by_one),
    SCENARIO(.name = "kill_crowd", .processes = 3, .kills = 1, .immortal = 1,
             .setup = set_up_crowd, .run = both_at_once),
    SCENARIO(.name = "buffered", .processes = 2, .setup = set_up, .kills = 1,
             .immortal = 1, .run = both_at_once, .buffered = true),
};

int
main(int argc, char **argv)
{
    return model_main("condition", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
