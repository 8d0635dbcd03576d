/* SPDX-License-Identifier: MIT */
/* Event: who waits when it is set goes on, though it may be cleared at once. */
#include "ipc/event.c"
#include "ipc/sleep.c"

#include "kernel.h"
#include "objects.h"

typedef struct {
    event_object event[3];
    uint32_t begun; /* how often it was set */
    uint32_t done;
} ghost;
#define GHOST ((ghost *)model_ghost)
#define ME ((PyObject *)&GHOST->event[model_me])

PyObject _Py_NoneStruct;

static void
set_up(void)
{
    for (int i = 0; i < 3; i++) {
        MODEL_OBJECT(&GHOST->event[i], model_shared);
    }
}

static void
set(void)
{
    model_point(MODEL_SITE("sets it"));
    GHOST->begun++;
    event_set(ME, NULL);
    GHOST->done++;
}

/* Whether it was set. As in event_wait(). */
static bool
await(int64_t deadline)
{
    PyObject *self = ME;
    uint32_t before = atomic_load(&MEMORY->word);
    uint32_t begun = GHOST->begun; /* by then */
    bool was_set =
        (before & PYC_SET) != 0 || wait_for_it(self, before, deadline) == 1;
    MODEL_CHECK(!was_set || GHOST->begun > 0, "nobody has set it");
    MODEL_CHECK(was_set || GHOST->done <= begun ||
                    model_current()->interrupts > 0,
                "was set meanwhile, and is told it was not");
    return was_set;
}

static void
set_once(int me)
{
    if (me == 0) {
        set();
    }
    else {
        await(PYC_NO_DEADLINE);
        MODEL_CHECK(pyc_flag_is_set((_Atomic uint32_t *)model_shared),
                    "is not set");
    }
}

/* Those who come after it was cleared wait for the second time. */
static void
set_and_clear(int me)
{
    if (me == 0) {
        set();
        event_clear(ME, NULL);
        set();
    }
    else {
        await(PYC_NO_DEADLINE);
    }
}

static void
two_set(int me)
{
    if (me < 2) {
        set();
    }
    else {
        await(PYC_NO_DEADLINE);
    }
}

static void
impatient(int me)
{
    if (me == 0) {
        set();
        event_clear(ME, NULL);
        set();
    }
    else {
        await(me == 1 ? MODEL_SOON : PYC_NO_DEADLINE);
    }
}

#define SCENARIO(...)                                                          \
    {.shared = sizeof(event_memory),                                           \
     .ghost = sizeof(ghost),                                                   \
     .slices = 1,                                                              \
     .processes = 3,                                                           \
     .setup = set_up,                                                          \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "set", .run = set_once),
    SCENARIO(.name = "clear", .run = set_and_clear),
    SCENARIO(.name = "two_set", .run = two_set),
    SCENARIO(.name = "late", .run = impatient),
    SCENARIO(.name = "interrupted", .run = set_and_clear, .interrupts = 1),
    SCENARIO(.name = "kill_waiter", .run = set_and_clear, .kills = 1,
             .immortal = 1),
    SCENARIO(.name = "kill_setter", .run = two_set, .kills = 1, .immortal = 2),
    SCENARIO(.name = "buffered", .run = set_and_clear, .buffered = true),
};

int
main(int argc, char **argv)
{
    return model_main("event", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
