/* SPDX-License-Identifier: MIT */
/* Semaphore: no more units than there are, no unit of the living gets lost,
 * those of the dead come back where there are books of them. */
#include "ipc/semaphore.c"
#include "ipc/sleep.c"

#include "kernel.h"
#include "objects.h"

enum { UNITS = 3 };

typedef struct {
    semaphore_memory semaphore;
    _Atomic uint32_t units[UNITS]; /* of the semaphore */
    _Atomic uint32_t bells[3];
} memory;

typedef struct {
    semaphore semaphore[3];
    uint32_t holds[3];
} ghost;
#define GHOST ((ghost *)model_ghost)
#define ME ((PyObject *)&GHOST->semaphore[model_me])

static void
set_up(uint32_t value, uint32_t most, uint32_t owners)
{
    semaphore_memory *shared = &((memory *)model_shared)->semaphore;
    shared->most = most;
    shared->owners = owners;
    for (uint32_t i = value; i < owners; i++) {
        atomic_store(&shared->units[i], PYC_ABSENT);
    }
    atomic_store(&shared->word, owners == 0 ? value : 0);
    model_bells = ((memory *)model_shared)->bells;
    for (int i = 0; i < 3; i++) {
        MODEL_OBJECT(&GHOST->semaphore[i], model_shared);
        GHOST->semaphore[i].looked = INT64_MAX / 2;
    }
}

static void
counts_none(void)
{
    set_up(0, PYC_COUNT_MOST, 0);
}

static void
counts_one(void)
{
    set_up(1, 1, 0);
}

static void
counts_two(void)
{
    set_up(2, 2, 0);
}

static void
owned_one(void)
{
    set_up(1, 1, 1);
}

static void
owned_two(void)
{
    set_up(2, 2, 2);
}

/* None yet, and up to two. */
static void
owned_none(void)
{
    set_up(0, 2, 2);
}

static int
attempt(PyObject *self)
{
    PyObject *taken = semaphore_attempt(self, NULL);
    GHOST->semaphore[model_me].looked = -PYC_SLICE; /* as after a slice */
    return (int)(uintptr_t)taken - 1;
}

static bool is_task(void);

static bool
acquire(int64_t deadline)
{
    if (is_task()) {
        model_until(attempt, semaphore_arm, ME, false);
        GHOST->holds[model_me]++;
        return true;
    }
    if (!take(ME, false) && wait_for_one(ME, deadline) <= 0) {
        return false;
    }
    GHOST->holds[model_me]++;
    return true;
}

static void
let_go(void)
{
    GHOST->holds[model_me]--;
    MODEL_CHECK(give(ME), "a unit could not be given back");
}

static void
check_holders(void)
{
    const semaphore_memory *shared = &((memory *)model_shared)->semaphore;
    uint32_t held = 0;
    for (int i = 0; i < 3; i++) {
        held += model_alive(i) ? GHOST->holds[i] : 0;
    }
    MODEL_CHECK(held <= shared->most, "more have a unit than there are");
}

static void
hold(int64_t deadline)
{
    if (acquire(deadline)) {
        model_point(MODEL_SITE("has a unit"));
        let_go();
    }
}

static void
once(int me)
{
    hold(PYC_NO_DEADLINE);
}

static void
mixed(int me)
{
    if (me == 0) {
        hold(PYC_NO_DEADLINE);
    }
    hold(PYC_NO_DEADLINE);
}

/* 0 and 1 wait as coroutines do. */
static void
tasks(int me)
{
    hold(PYC_NO_DEADLINE);
}

static bool
is_task(void)
{
    return model_current()->run == tasks && model_me < 2;
}

static void
impatient(int me)
{
    hold(me == 0 ? PYC_NO_DEADLINE : MODEL_SOON);
    if (me == 2) {
        hold(0);
    }
}

/* 0 gives, the others take one each. */
static void
signal_two(int me)
{
    if (me == 0) {
        MODEL_CHECK(give(ME), "a unit was not taken");
        MODEL_CHECK(give(ME), "a unit was not taken");
    }
    else {
        MODEL_CHECK(acquire(PYC_NO_DEADLINE), "not taken");
        GHOST->holds[model_me] = 0;
    }
}

/* 0 gives one, which the first takes who comes: 1, which has no time, or 2. */
static void
signal_late(int me)
{
    if (me == 0) {
        MODEL_CHECK(give(ME), "a unit was not taken");
        MODEL_CHECK(give(ME), "a unit was not taken");
    }
    else {
        acquire(me == 1 ? MODEL_SOON : PYC_NO_DEADLINE);
        GHOST->holds[model_me] = 0;
    }
}

static void
all_back(void)
{
    PyObject *any = (PyObject *)&GHOST->semaphore[0];
    uint32_t value = value_of(any);
    uint32_t most = PYC_MEMORY(any, semaphore_memory)->most;
    MODEL_CHECK(value == most || model_killed() > 0, "a unit is missing");
}

#define SCENARIO(...)                                                          \
    {.shared = sizeof(memory),                                                 \
     .ghost = sizeof(ghost),                                                   \
     .slices = 1,                                                              \
     .processes = 3,                                                           \
     .check = check_holders,                                                   \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "counts", .setup = counts_one, .run = mixed,
             .end = all_back),
    SCENARIO(.name = "counts_two", .setup = counts_two, .run = mixed,
             .end = all_back),
    SCENARIO(.name = "counts_late", .setup = counts_one, .run = impatient,
             .end = all_back),
    SCENARIO(.name = "counts_interrupted", .setup = counts_one, .run = mixed,
             .interrupts = 1, .end = all_back),
    SCENARIO(.name = "counts_signal", .setup = counts_none, .run = signal_two),
    SCENARIO(.name = "counts_signal_late", .setup = counts_none,
             .run = signal_late),
    SCENARIO(.name = "counts_signal_kill", .setup = counts_none,
             .run = signal_two, .kills = 1, .immortal = 1),
    SCENARIO(.name = "owned", .setup = owned_one, .run = mixed,
             .end = all_back),
    SCENARIO(.name = "owned_two", .setup = owned_two, .run = mixed,
             .end = all_back),
    SCENARIO(.name = "owned_kill", .setup = owned_one, .run = mixed, .kills = 1,
             .end = all_back),
    SCENARIO(.name = "owned_kill_two", .setup = owned_two, .run = once,
             .kills = 2, .end = all_back),
    SCENARIO(.name = "owned_late", .setup = owned_one, .run = impatient,
             .end = all_back),
    SCENARIO(.name = "owned_late_kill", .setup = owned_one, .run = impatient,
             .kills = 1, .end = all_back),
    SCENARIO(.name = "owned_interrupted", .setup = owned_one, .run = mixed,
             .interrupts = 1, .end = all_back),
    SCENARIO(.name = "owned_signal", .setup = owned_none, .run = signal_two),
    SCENARIO(.name = "owned_signal_kill", .setup = owned_none,
             .run = signal_two, .kills = 1, .immortal = 1),
    SCENARIO(.name = "counts_tasks", .setup = counts_one, .run = tasks,
             .end = all_back),
    SCENARIO(.name = "owned_tasks", .setup = owned_one, .run = tasks,
             .end = all_back),
    SCENARIO(.name = "owned_tasks_kill", .setup = owned_one, .run = tasks,
             .kills = 1, .end = all_back),
    SCENARIO(.name = "buffered", .setup = counts_one, .run = once,
             .buffered = true),
    SCENARIO(.name = "owned_buffered", .setup = owned_one, .run = once,
             .buffered = true, .kills = 1),
};

int
main(int argc, char **argv)
{
    return model_main("semaphore", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
