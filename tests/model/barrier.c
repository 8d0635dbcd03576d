/* SPDX-License-Identifier: MIT */
/* Barrier: nobody goes on before all have come, all who were in a round see it
 * end in the same way, and a death breaks it. */
#include "ipc/barrier.c"

#include "kernel.h"
#include "objects.h"

enum { ROUNDS_MOST = 4 };

typedef struct {
    pyc_rounds rounds;
    _Atomic uint32_t inside[3]; /* of the rounds */
} memory;

typedef struct {
    barrier barrier[3];
    pyc_ipc state;
    uint32_t came;                 /* to any round, as often as they did */
    uint32_t indexes[ROUNDS_MOST]; /* a bit for each that was given */
    bool passed[ROUNDS_MOST];      /* somebody has, in that round */
    bool broken[ROUNDS_MOST];
} ghost;
#define GHOST ((ghost *)model_ghost)
#define ME ((PyObject *)&GHOST->barrier[model_me])

void
PyErr_SetNone(PyObject *exception)
{
}

static void
set_up(void)
{
    uint32_t parties = (uint32_t)model_current()->processes;
    atomic_store(&((memory *)model_shared)->rounds.parties, parties);
    for (int i = 0; i < 3; i++) {
        MODEL_OBJECT(&GHOST->barrier[i], model_shared);
        GHOST->barrier[i].shared.state = &GHOST->state;
        GHOST->barrier[i].looked = INT64_MAX / 2;
    }
}

static int
note(uint32_t number, int rc)
{
    uint32_t parties = (uint32_t)model_current()->processes;
    MODEL_CHECK(number < ROUNDS_MOST, "a round that should not be");
    GHOST->passed[number] |= rc == 0;
    GHOST->broken[number] |= rc < 0;
    MODEL_CHECK(rc < 0 || GHOST->came >= parties * (number + 1),
                "goes on before all have come");
    MODEL_CHECK(!GHOST->passed[number] || !GHOST->broken[number] ||
                    model_current()->interrupts > 0,
                "a round is over and broken");
    return rc;
}

/* As barrier_wait(): 0, or -1 when it is broken. */
static int
await(int64_t deadline)
{
    uint32_t number, index;
    int where;
    /* Killed before, they would wait for it for ever. */
    model_spare(deadline == PYC_NO_DEADLINE);
    model_point(MODEL_SITE("comes"));
    GHOST->came++;
    while ((where = come(ME, &number, &index)) == OUTSIDE) {
        if (wait_outside(ME, number) < 0) {
            return -1;
        }
    }
    model_spare(false);
    if (where == AT_BROKEN) {
        return raise_broken(ME);
    }
    MODEL_CHECK(!(GHOST->indexes[number] & 1u << index) ||
                    model_current()->interrupts > 0,
                "two have the same index");
    GHOST->indexes[number] |= 1u << index;
    return note(number, where == LAST ? trip(ME, number)
                                      : wait_inside(ME, number, deadline));
}

static void
once(int me)
{
    int rc = await(PYC_NO_DEADLINE);
    MODEL_CHECK(rc == 0 || model_killed() > 0, "it is broken");
}

static void
twice(int me)
{
    if (await(PYC_NO_DEADLINE) == 0) {
        await(PYC_NO_DEADLINE);
    }
}

static void
impatient(int me)
{
    await(me == 0 ? MODEL_SOON : PYC_NO_DEADLINE);
}

static void
all_impatient(int me)
{
    await(MODEL_SOON);
}

static void
breaks_it(int me)
{
    if (me == 0) {
        end_any(ME, PYC_BROKEN); /* abort() */
    }
    else {
        MODEL_CHECK(await(PYC_NO_DEADLINE) < 0, "too few have come");
    }
}

#define SCENARIO(...)                                                          \
    {.shared = sizeof(memory),                                                 \
     .ghost = sizeof(ghost),                                                   \
     .slices = 2,                                                              \
     .processes = 3,                                                           \
     .setup = set_up,                                                          \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "two_rounds", .processes = 2, .run = twice),
    SCENARIO(.name = "three", .run = once),
    SCENARIO(.name = "three_rounds", .run = twice, .preemptions = 3),
    SCENARIO(.name = "late", .run = impatient),
    SCENARIO(.name = "broken", .run = breaks_it),
    SCENARIO(.name = "kill", .run = once, .kills = 1, .preemptions = 3),
    SCENARIO(.name = "kill_late", .run = all_impatient, .kills = 1,
             .preemptions = 2),
    SCENARIO(.name = "kill_two", .run = once, .kills = 2, .preemptions = 2),
    SCENARIO(.name = "buffered", .processes = 2, .run = once, .buffered = true),
};

int
main(int argc, char **argv)
{
    return model_main("barrier", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
