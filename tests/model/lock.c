/* SPDX-License-Identifier: MIT */
/* Lock: one owner at a time, nobody sleeps for ever, who takes it from a dead
 * owner is told so. */
#include "ipc/lock.c"
#include "ipc/sleep.c"

static pyc_owner owner(void);
#define MODEL_OWNER owner()
#include "kernel.h"
#include "objects.h"

typedef struct {
    pyc_lock_memory lock;
    _Atomic uint32_t value; /* under the lock */
    _Atomic uint32_t bells[3];
} memory;
#define MEMORY ((memory *)model_shared)

enum { NOBODY = -1 };

typedef struct {
    pyc_ipc_lock lock[3];
    int holder;
    bool told;     /* an attempt, that the owner died */
    uint32_t done; /* changes of the value that cannot get lost */
} ghost;
#define GHOST ((ghost *)model_ghost)

static void
set_up(void)
{
    for (int i = 0; i < 3; i++) {
        MODEL_OBJECT(&GHOST->lock[i], &MEMORY->lock);
        GHOST->lock[i].looked = INT64_MAX / 2; /* just now */
    }
    GHOST->holder = NOBODY;
    model_bells = MEMORY->bells;
}

/* Of a task. */
static int
attempt(PyObject *self)
{
    PyObject *taken = pyc_lock_attempt(self, (PyObject *)16);
    /* A slice may be over: it may ask whether the owner is dead. */
    GHOST->lock[model_me].looked = -PYC_SLICE;
    if (taken == NULL) {
        GHOST->told = true;
        return 1;
    }
    return (int)(uintptr_t)taken - 1;
}

static int
acquire_as_task(pyc_ipc_lock *lock, int64_t deadline)
{
    GHOST->told = false;
    bool taken = model_until(attempt, pyc_lock_arm, (PyObject *)lock,
                             deadline != PYC_NO_DEADLINE);
    return !taken ? 0 : GHOST->told ? PYC_TAKEN_BUT : 1;
}

static bool is_task(void);

/* 1 and 2 are threads of one process, in which one has the number that the
 * thread of 0 has in its own. */
static bool are_threads(void);

static pyc_owner
owner(void)
{
    return are_threads() && model_me == 2 ? 2 : (pyc_owner)model_me + 1;
}

static uint64_t
who(void)
{
    return pyc_lock_who(&GHOST->lock[model_me],
                        are_threads() && model_me == 1 ? 4 : 2);
}

/* Whether it was taken. */
static bool
acquire(int64_t deadline)
{
    pyc_ipc_lock *lock = &GHOST->lock[model_me];
    int taken = pyc_word_try(&MEMORY->lock.word, owner());
    if (taken) {
        pyc_lock_mark(&MEMORY->lock, who());
    }
    else if (is_task()) {
        taken = acquire_as_task(lock, deadline);
    }
    else {
        taken = pyc_lock_wait(lock, who(), deadline);
    }
    if (taken != 1 && taken != PYC_TAKEN_BUT) {
        return false;
    }
    MODEL_CHECK(GHOST->holder == NOBODY || !model_alive(GHOST->holder),
                "two have the lock");
    MODEL_CHECK(GHOST->holder == NOBODY || taken == PYC_TAKEN_BUT,
                "nobody is told that the owner died");
    MODEL_CHECK(taken == 1 || model_killed() > 0, "nobody has died");
    GHOST->holder = model_me;
    model_return();
    return true;
}

static void
release(void)
{
    GHOST->holder = NOBODY;
    MODEL_CHECK(pyc_lock_free(&GHOST->lock[model_me]), "the lock was free");
}

static void
change(void)
{
    uint32_t value = atomic_load_explicit(&MEMORY->value, memory_order_relaxed);
    MODEL_CHECK(value >= GHOST->done, "a change was lost");
    atomic_store_explicit(&MEMORY->value, value + 1, memory_order_relaxed);
}

static void
change_once(int64_t deadline)
{
    if (acquire(deadline)) {
        change();
        release();
        GHOST->done++;
    }
}

static void
once(int me)
{
    change_once(PYC_NO_DEADLINE);
}

static void
twice(int me)
{
    change_once(PYC_NO_DEADLINE);
    change_once(PYC_NO_DEADLINE);
}

static void
mixed(int me)
{
    if (me == 0) {
        change_once(PYC_NO_DEADLINE);
    }
    change_once(PYC_NO_DEADLINE);
}

/* 0 and 1 wait as coroutines do. */
static void
tasks(int me)
{
    change_once(PYC_NO_DEADLINE);
}

static bool
is_task(void)
{
    return model_current()->run == tasks && model_me < 2;
}

/* 2 looks whether it has the lock, which it never takes. */
static void
threads(int me)
{
    if (me < 2) {
        change_once(PYC_NO_DEADLINE);
    }
    else {
        MODEL_CHECK(!pyc_lock_is_mine(&GHOST->lock[me], who()),
                    "has what it never took");
    }
}

static bool
are_threads(void)
{
    return model_current()->run == threads;
}

/* One or two of them have little time. */
static void
impatient(int me)
{
    change_once(me == 0 ? PYC_NO_DEADLINE : MODEL_SOON);
    if (me == 2) {
        change_once(0);
    }
}

static void
all_done(void)
{
    MODEL_CHECK(MEMORY->value >= GHOST->done, "a change is missing");
    MODEL_CHECK(model_killed() > 0 || MEMORY->lock.word == 0,
                "the lock is held by nobody");
}

#define SCENARIO(...)                                                          \
    {.shared = sizeof(memory),                                                 \
     .ghost = sizeof(ghost),                                                   \
     .slices = 1,                                                              \
     .setup = set_up,                                                          \
     .end = all_done,                                                          \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "two", .processes = 2, .run = twice),
    SCENARIO(.name = "three", .processes = 3, .run = mixed),
    SCENARIO(.name = "kill", .processes = 3, .kills = 1, .run = mixed),
    SCENARIO(.name = "kill_two", .processes = 3, .kills = 2, .run = once),
    SCENARIO(.name = "kill_early_slices", .processes = 3, .kills = 2,
             .run = once, .restless = true),
    SCENARIO(.name = "late", .processes = 3, .run = impatient),
    SCENARIO(.name = "late_kill", .processes = 3, .kills = 1, .run = impatient),
    SCENARIO(.name = "interrupted", .processes = 3, .interrupts = 1,
             .run = mixed),
    SCENARIO(.name = "tasks", .processes = 3, .run = tasks),
    SCENARIO(.name = "tasks_kill", .processes = 3, .kills = 1, .run = tasks),
    SCENARIO(.name = "threads", .processes = 3, .kills = 1, .run = threads,
             .immortal = 6),
    SCENARIO(.name = "threads_buffered", .processes = 3, .kills = 1,
             .run = threads, .immortal = 6, .buffered = true),
    SCENARIO(.name = "buffered", .processes = 3, .run = once, .buffered = true),
    SCENARIO(.name = "kill_buffered", .processes = 3, .kills = 1, .run = once,
             .buffered = true),
};

int
main(int argc, char **argv)
{
    return model_main("lock", scenarios, sizeof(scenarios) / sizeof(*scenarios),
                      argc, argv);
}
