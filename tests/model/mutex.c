/* SPDX-License-Identifier: MIT */
/* pyc_mutex: one owner at a time, nobody sleeps for ever, and what a killed
 * owner had begun is undone. */
#include "ipc/mutex.c"
#include "ipc/sleep.c"

#include "kernel.h"

#define ARENA ((pyc_arena *)1)

/* Two fields that always change together, under the mutex. */
typedef struct {
    pyc_mutex mutex;
    _Atomic uint32_t first;
    _Atomic uint32_t second;
} memory;
#define MEMORY ((memory *)model_shared)

typedef struct {
    uint32_t begun;  /* changes, by anybody */
    uint32_t done;   /* changes whose unlock returned */
    uint32_t inside; /* a bit for each process between lock and unlock */
} ghost;
#define GHOST ((ghost *)model_ghost)

static void
enter(bool died)
{
    GHOST->inside |= 1u << model_me;
    for (int i = 0; i < MODEL_PROCESSES; i++) {
        MODEL_CHECK(i == model_me || !(GHOST->inside & 1u << i) ||
                        !model_alive(i),
                    "two have the mutex");
    }
    MODEL_CHECK(!died || model_killed() > 0, "nobody has died");
}

static uint32_t
look(void)
{
    uint32_t first = atomic_load_explicit(&MEMORY->first, memory_order_relaxed);
    uint32_t second =
        atomic_load_explicit(&MEMORY->second, memory_order_relaxed);
    MODEL_CHECK(first == second, "half of a change");
    MODEL_CHECK(first >= GHOST->done, "a change was lost");
    MODEL_CHECK(first <= GHOST->begun, "a change was made twice");
    return first;
}

static void
change_once(void)
{
    enter(pyc_mutex_lock(ARENA, &MEMORY->mutex));
    uint32_t value = look();
    GHOST->begun++;
    pyc_mutex_set(&MEMORY->mutex, &MEMORY->first, value + 1);
    pyc_mutex_set(&MEMORY->mutex, &MEMORY->second, value + 1);
    GHOST->inside &= ~(1u << model_me);
    pyc_mutex_unlock(&MEMORY->mutex);
    GHOST->done++;
}

static void
once(int me)
{
    change_once();
}

static void
mixed(int me)
{
    if (me == 0) {
        change_once();
    }
    change_once();
}

static void
twice(int me)
{
    change_once();
    change_once();
}

/* A field is set twice, and set back in the right order. */
static void
to_and_fro(int me)
{
    enter(pyc_mutex_lock(ARENA, &MEMORY->mutex));
    uint32_t value = look();
    GHOST->begun++;
    pyc_mutex_set(&MEMORY->mutex, &MEMORY->first, 77);
    pyc_mutex_set(&MEMORY->mutex, &MEMORY->first, value + 1);
    pyc_mutex_set(&MEMORY->mutex, &MEMORY->second, value + 1);
    pyc_mutex_commit(&MEMORY->mutex);
    GHOST->done++; /* though the mutex is held still */
    pyc_mutex_set(&MEMORY->mutex, &MEMORY->second, 78);
    pyc_mutex_set(&MEMORY->mutex, &MEMORY->second, value + 1);
    GHOST->inside &= ~(1u << model_me);
    pyc_mutex_unlock(&MEMORY->mutex);
}

static void
all_done(void)
{
    uint32_t first = MEMORY->first;
    MODEL_CHECK(first == MEMORY->second || model_killed() > 0,
                "half of a change at the end");
    MODEL_CHECK(first == GHOST->done || model_killed() > 0,
                "a change is missing at the end");
}

#define SCENARIO(...)                                                          \
    {.shared = sizeof(memory),                                                 \
     .ghost = sizeof(ghost),                                                   \
     .end = all_done,                                                          \
     .slices = 1,                                                              \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "two", .processes = 2, .run = twice),
    SCENARIO(.name = "three", .processes = 3, .run = twice),
    SCENARIO(.name = "kill", .processes = 3, .kills = 1, .run = mixed),
    SCENARIO(.name = "kill_two", .processes = 3, .kills = 2, .run = once),
    SCENARIO(.name = "kill_early_slices", .processes = 3, .kills = 2,
             .run = once, .restless = true),
    SCENARIO(.name = "kill_undo_order", .processes = 3, .kills = 2,
             .run = to_and_fro),
    SCENARIO(.name = "buffered", .processes = 2, .run = twice,
             .buffered = true),
    SCENARIO(.name = "kill_buffered", .processes = 3, .kills = 1, .run = once,
             .buffered = true),
};

int
main(int argc, char **argv)
{
    return model_main("mutex", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
