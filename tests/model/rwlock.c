/* SPDX-License-Identifier: MIT */
/* ReadWriteLock: one writes or several read, nobody sleeps for ever, what the
 * dead had comes back. */
#include "ipc/rwlock.c"

#include "kernel.h"
#include "objects.h"

typedef struct {
    rwlock lock[3];
    uint32_t reads; /* a bit for each process */
    uint32_t writes;
} ghost;
#define GHOST ((ghost *)model_ghost)
#define ME ((PyObject *)&GHOST->lock[model_me])

static void
set_up(void)
{
    for (int i = 0; i < 3; i++) {
        MODEL_OBJECT(&GHOST->lock[i], model_shared);
        GHOST->lock[i].looked = INT64_MAX / 2;
    }
}

static uint32_t
living(uint32_t processes)
{
    for (int i = 0; i < 3; i++) {
        if (!model_alive(i)) {
            processes &= ~(1u << i);
        }
    }
    return processes;
}

static void
check_inside(void)
{
    uint32_t reads = living(GHOST->reads), writes = living(GHOST->writes);
    MODEL_CHECK(writes == 0 || reads == 0, "one writes while another reads");
    MODEL_CHECK((writes & (writes - 1)) == 0, "two write");
}

static void
write_now(void)
{
    GHOST->writes |= 1u << model_me;
    model_point(MODEL_SITE("writes"));
    GHOST->writes &= ~(1u << model_me);
    MODEL_CHECK(free_word(ME), "did not write");
}

/* Who finds a writer dead is to write. */
static void
read_once(int64_t deadline)
{
    int rc = read_when_free(ME, deadline);
    if (rc == PYC_TAKEN_BUT) {
        write_now();
    }
    else if (rc == TAKEN) {
        GHOST->reads |= 1u << model_me;
        model_point(MODEL_SITE("reads"));
        GHOST->reads &= ~(1u << model_me);
        MODEL_CHECK(stop_reading(ME), "did not read");
    }
}

static void
write_once(int64_t deadline)
{
    int rc = write_when_free(ME, deadline);
    if (rc == TAKEN || rc == PYC_TAKEN_BUT) {
        write_now();
    }
}

static void
two_read(int me)
{
    if (me == 0) {
        write_once(PYC_NO_DEADLINE);
    }
    else {
        read_once(PYC_NO_DEADLINE);
    }
}

static void
two_write(int me)
{
    if (me == 0) {
        read_once(PYC_NO_DEADLINE);
    }
    else {
        write_once(PYC_NO_DEADLINE);
    }
}

static void
late(int me)
{
    if (me == 0) {
        read_once(PYC_NO_DEADLINE);
    }
    else {
        write_once(me == 1 ? MODEL_SOON : PYC_NO_DEADLINE);
    }
}

static void
late_reader(int me)
{
    if (me == 0) {
        write_once(PYC_NO_DEADLINE);
    }
    else {
        read_once(me == 1 ? MODEL_SOON : PYC_NO_DEADLINE);
    }
}

static void
all_done(void)
{
    const rwlock_memory *shared = (const rwlock_memory *)model_shared;
    MODEL_CHECK(model_killed() > 0 || shared->word == 0,
                "it is written by nobody");
    for (int i = 0; i < READERS; i++) {
        MODEL_CHECK(model_killed() > 0 || shared->readers[i] == 0,
                    "it is read by nobody");
    }
}

#define SCENARIO(...)                                                          \
    {.shared = sizeof(rwlock_memory),                                          \
     .ghost = sizeof(ghost),                                                   \
     .slices = 2,                                                              \
     .processes = 3,                                                           \
     .setup = set_up,                                                          \
     .check = check_inside,                                                    \
     .end = all_done,                                                          \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "two_read", .run = two_read),
    SCENARIO(.name = "two_write", .run = two_write),
    SCENARIO(.name = "late", .run = late),
    SCENARIO(.name = "late_reader", .run = late_reader),
    SCENARIO(.name = "kill_readers", .kills = 1, .run = two_read),
    SCENARIO(.name = "kill_writers", .kills = 1, .run = two_write),
    SCENARIO(.name = "kill_two", .kills = 2, .run = two_read),
    SCENARIO(.name = "buffered", .processes = 2, .run = two_read,
             .buffered = true),
};

int
main(int argc, char **argv)
{
    return model_main("rwlock", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
