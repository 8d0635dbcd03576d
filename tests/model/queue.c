/* SPDX-License-Identifier: MIT */
/* The queue: no item of the living is lost or comes twice, each producer's come
 * in order, who waits for an item or for space goes on. The chunks of the ring
 * and its memory are small: see mistakes.py. */
#include "explore.h"

enum { MODEL_HEAP = 1024 };
#include "memfd.h"

#include "ipc/queue_put.c"
#include "ipc/queue_get.c"

#include "kernel.h"
#include "objects.h"

uint64_t model_chunk; /* bytes in a chunk of the ring */

typedef struct {
    pyc_queue_memory queue;
    _Alignas(64) unsigned char heap[MODEL_HEAP];
} memory;
#define MEMORY ((memory *)model_shared)

static unsigned char *
heap_memory(int fd)
{
    return MEMORY->heap;
}

enum { PRODUCERS = 2, MOST = 4 };

typedef struct {
    pyc_queue queue[3];
    uint32_t put[PRODUCERS];  /* items whose put() returned */
    uint32_t last[PRODUCERS]; /* the last one that was got, + 1 */
    uint32_t got_by[3];       /* how many each got */
    uint32_t seen[PRODUCERS]; /* a bit for each that was got */
} ghost;
#define GHOST ((ghost *)model_ghost)
#define ME (&GHOST->queue[model_me])

_Static_assert(sizeof(memory) <= MODEL_SHARED, "too large");
_Static_assert(sizeof(ghost) <= MODEL_GHOST, "too large");

/* ---- In place of Python ---- */

/* An item is a number, its object a pointer that is one. */
PyObject *
PyLong_FromLongLong(long long number)
{
    return (PyObject *)(uintptr_t)(number + 1);
}

void
pyc_message_write(const pyc_message *message, char *where)
{
    memcpy(where, &message->number, sizeof(message->number));
}

void
pyc_view_hold(pyc_queue *queue, pyc_piece *piece)
{
}

/* Others may free one meanwhile. */
bool
pyc_queue_wait_for_piece(pyc_queue *queue, uint64_t size, uint32_t mine)
{
    model_point(MODEL_SITE("waits for a piece"));
    return true;
}

bool
pyc_table_reap(pyc_arena *arena)
{
    return false;
}

/* ---- */

static void
set_up(uint64_t chunk, uint64_t maxsize)
{
    pyc_queue_memory *shared = &MEMORY->queue;
    model_chunk = chunk;
    shared->maxsize = maxsize;
    for (int i = 0; i < 3; i++) {
        pyc_queue *queue = &GHOST->queue[i];
        MODEL_OBJECT(queue, &MEMORY->queue);
        queue->store.extents = &shared->ring.heap.extents;
        if (i == 0 && pyc_ring_begin(&shared->ring, &queue->store) < 0) {
            model_fail(__FILE__, __LINE__, "no memory");
        }
        pyc_store_map(&queue->store);
    }
}

static void
unlimited(void)
{
    set_up(128, 0);
}

static void
one_at_most(void)
{
    set_up(128, 1);
}

/* A chunk for each record. */
static void
many_chunks(void)
{
    set_up(64, 0);
}

/* Whether the queue was open still. */
static bool
put(int producer, int64_t number)
{
    pyc_message message = {.kind = PYC_ITEM_INT,
                           .weight = 8,
                           .length = sizeof(message.number),
                           .number = producer * MOST + number};
    pyc_message *one = &message;
    PyObject *no_object = NULL;
    batch self = {.queue = ME, .items = &no_object, .messages = &one, .n = 1};
    int rc = put_all(&self, PYC_NO_DEADLINE);
    MODEL_CHECK(rc == 0 ? self.done == 1 : rc == SHUT && self.done == 0,
                "put() failed");
    GHOST->put[producer] += rc == 0;
    return rc == 0;
}

/* Two at once. */
static void
put_two(int producer)
{
    pyc_message messages[2];
    pyc_message *both[2] = {&messages[0], &messages[1]};
    PyObject *no_objects[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        messages[i] = (pyc_message){.kind = PYC_ITEM_INT,
                                    .weight = 8,
                                    .length = sizeof(messages[i].number),
                                    .number = producer * MOST + i};
    }
    batch self = {.queue = ME, .items = no_objects, .messages = both, .n = 2};
    MODEL_CHECK(put_all(&self, PYC_NO_DEADLINE) == 0 && self.done == 2,
                "put() failed");
    GHOST->put[producer] += 2;
}

static int
note(PyObject *object)
{
    int number = (int)(uintptr_t)object - 1;
    int producer = number / MOST;
    number %= MOST;
    MODEL_CHECK(!(GHOST->seen[producer] & 1u << number), "an item came twice");
    GHOST->seen[producer] |= 1u << number;
    GHOST->got_by[model_me]++;
    return producer;
}

/* Whether there was one. As pyc_queue_get() does. */
static bool
get(int64_t deadline)
{
    for (;;) {
        pyc_taken item = {0};
        uint32_t was_shut = atomic_load(&MEMORY->queue.shut);
        int rc = take_one(ME, &item);
        MODEL_CHECK(rc >= 0, "get() failed");
        if (rc > 0) {
            note(item.object);
            return true;
        }
        if (was_shut) {
            return false;
        }
        pyc_queue_wish wish = {&MEMORY->queue.items, &ME->for_item,
                               may_have_item, 0};
        if (pyc_queue_wait(ME, &wish, deadline) <= 0) {
            return false;
        }
    }
}

/* One producer, one consumer. */
static void
one_to_one(int me)
{
    int count = model_chunk == 64 ? 4 : 3;
    for (int i = 0; i < count; i++) {
        if (me == 0) {
            put(0, i);
        }
        else {
            get(PYC_NO_DEADLINE);
            MODEL_CHECK(GHOST->seen[0] == (2u << i) - 1,
                        "an item came too early");
        }
    }
}

static void
two_to_one(int me)
{
    if (me < 2) {
        put(me, 0);
    }
    else {
        get(PYC_NO_DEADLINE);
        get(PYC_NO_DEADLINE);
    }
}

static void
one_to_two(int me)
{
    if (me == 0) {
        put(0, 0);
        put(0, 1);
    }
    else {
        get(PYC_NO_DEADLINE);
    }
}

static void
batch_to_two(int me)
{
    if (me == 0) {
        put_two(0);
    }
    else {
        get(PYC_NO_DEADLINE);
    }
}

/* 0 is killed, the others are not. */
static void
kill_producer(int me)
{
    if (me < 2) {
        put(me, 0);
    }
    else {
        while (GHOST->seen[1] == 0) {
            get(PYC_NO_DEADLINE);
        }
    }
}

/* What is in it can be got still; nobody sleeps on. */
static void
shut(int me)
{
    if (me == 0) {
        if (put(0, 0) && model_current()->kills == 0) {
            put(0, 1);
        }
        if (model_current()->kills > 0) {
            pyc_queue_shutdown(ME, 0); /* if 1 could not do so */
        }
    }
    else if (me == 1) {
        pyc_queue_shutdown(ME, 0);
    }
    else {
        while (get(PYC_NO_DEADLINE)) {
        }
        MODEL_CHECK(MEMORY->queue.shut, "get() ends before the queue is shut");
    }
}

static void
shut_at_once(int me)
{
    if (me == 0) {
        if (put(0, 0)) {
            put(0, 1);
        }
    }
    else if (me == 1) {
        pyc_queue_shutdown(ME, 1);
    }
    else {
        pyc_queue_join(ME, PYC_NO_DEADLINE);
    }
}

/* 0 goes on when 1 has done both tasks. */
static void
join_tasks(int me)
{
    for (int i = 0; i < 2; i++) {
        if (me == 0) {
            put(0, i);
        }
        else {
            get(PYC_NO_DEADLINE);
            GHOST->got_by[me] = (uint32_t)i + 1;
            pyc_queue_task_done(ME);
        }
    }
    if (me == 0) {
        pyc_queue_join(ME, PYC_NO_DEADLINE);
        MODEL_CHECK(GHOST->got_by[1] == 2, "join() ends too early");
    }
}

static void
one_item(int me)
{
    if (me == 0) {
        put(0, 0);
    }
    else {
        get(PYC_NO_DEADLINE);
    }
}

/* Whoever dies now, the next one finds the chunks that both ends are in. */
static void
check_end(const pyc_ring_end *end)
{
    uint64_t chunk = end->place[end->word & 1].chunk;
    const pyc_piece *piece = (const pyc_piece *)(heap_memory(0) + chunk);
    MODEL_CHECK(PYC_STATE_IS(piece->state) == PYC_CHUNK,
                "a chunk that is needed is free");
}

static void
check_ends(void)
{
    check_end(&MEMORY->queue.ring.in);
    check_end(&MEMORY->queue.ring.out);
}

static void
all_got(void)
{
    uint64_t left = pyc_ring_count(&MEMORY->queue.ring);
    uint32_t put = 0, got = 0;
    for (int i = 0; i < PRODUCERS; i++) {
        put += GHOST->put[i];
        got += (uint32_t)__builtin_popcount(GHOST->seen[i]);
    }
    uint32_t dropped = (uint32_t)pyc_ring_dropped(&MEMORY->queue.ring);
    got += dropped;
    MODEL_CHECK(left + got + (uint32_t)model_killed() >= put,
                "an item of the living was lost");
    MODEL_CHECK(model_killed() > 0 || left + got == put, "an item was lost");
}

#define SCENARIO(...)                                                          \
    {.shared = sizeof(memory),                                                 \
     .ghost = sizeof(ghost),                                                   \
     .slices = 2,                                                              \
     .processes = 3,                                                           \
     .preemptions = 3,                                                         \
     .end = all_got,                                                           \
     .check = check_ends,                                                      \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "one_to_one", .processes = 2, .preemptions = 0,
             .setup = unlimited, .run = one_to_one),
    SCENARIO(.name = "one_to_one_small", .processes = 2, .preemptions = 0,
             .setup = one_at_most, .run = one_to_one),
    SCENARIO(.name = "one_to_one_chunks", .processes = 2, .preemptions = 3,
             .setup = many_chunks, .run = one_to_one),
    SCENARIO(.name = "two_to_one", .setup = unlimited, .run = two_to_one),
    SCENARIO(.name = "two_to_one_small", .setup = one_at_most,
             .run = two_to_one),
    SCENARIO(.name = "one_to_two", .setup = unlimited, .run = one_to_two),
    SCENARIO(.name = "batch_to_two", .setup = unlimited, .run = batch_to_two),
    SCENARIO(.name = "kill_producer", .kills = 1, .immortal = 2 | 4,
             .setup = unlimited, .run = kill_producer),
    SCENARIO(.name = "kill_consumer", .kills = 1, .immortal = 1 | 4,
             .setup = unlimited, .run = one_to_two),
    SCENARIO(.name = "kill_producer_small", .kills = 1, .immortal = 2 | 4,
             .setup = one_at_most, .run = kill_producer),
    SCENARIO(.name = "kill_consumer_small", .kills = 1, .immortal = 1 | 4,
             .setup = one_at_most, .run = one_to_two),
    SCENARIO(.name = "kill_producer_chunks", .kills = 1, .immortal = 2 | 4,
             .setup = many_chunks, .run = kill_producer),
    SCENARIO(.name = "kill_consumer_chunks", .kills = 1, .preemptions = 2,
             .immortal = 1 | 4, .setup = many_chunks, .run = one_to_two),
    SCENARIO(.name = "shut", .setup = one_at_most, .run = shut),
    SCENARIO(.name = "shut_at_once", .setup = one_at_most, .run = shut_at_once),
    SCENARIO(.name = "kill_shut", .kills = 1, .immortal = 1 | 4,
             .setup = one_at_most, .run = shut),
    SCENARIO(.name = "join", .processes = 2, .preemptions = 0,
             .setup = unlimited, .run = join_tasks),
    SCENARIO(.name = "buffered", .processes = 2, .preemptions = 0,
             .setup = unlimited, .run = one_item, .buffered = true),
    SCENARIO(.name = "kill_buffered", .processes = 2, .kills = 1,
             .preemptions = 0, .immortal = 1, .setup = unlimited,
             .run = one_item, .buffered = true),
};

int
main(int argc, char **argv)
{
    return model_main("queue", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
