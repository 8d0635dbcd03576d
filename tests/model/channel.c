/* SPDX-License-Identifier: MIT */
/* The channel of a process pool: each call is begun by one worker, a kill costs
 * the call that the killed one had claimed and no other, each result is noticed
 * by a thread of the parent, and each callback is called.
 *
 * The first processes of a scenario are threads of the parent, the others are
 * workers. What pyconc/workers does in Python is written again here. The chunks
 * of the rings and their memory are small: see mistakes.py. */
#include "explore.h"

enum { MODEL_HEAP = 640 };
#include "memfd.h"

#include "ipc/channel.h"
#include "pool/future.h"

#define MODEL_OWNER owner_of(model_me)
static uint32_t owner_of(int process);
#include "kernel.h"

#include <stdarg.h>

enum { CALLS = 3, WORKERS = 2, LISTS = 5 };
enum { PARENT_PID = 100 };

uint64_t model_chunk = 256; /* bytes in a chunk of a ring */
int model_batch;            /* results that are taken at once */
int64_t model_parent;       /* ns between two looks after the parent */

typedef struct {
    pyc_queue_memory jobs, results;
    _Alignas(64) unsigned char heap[2][MODEL_HEAP];
    pyc_board board;
    pyc_worker workers[WORKERS];
    pyc_claim claims[CALLS];
    /* Of the parent alone. */
    pyc_channel channel;
    pyc_slot slots[CALLS];
    pyc_future futures[CALLS];
    pyc_lock pool;          /* of what waits for room */
    _Atomic uint32_t bell;  /* of the supervisor */
    _Atomic uint32_t over;  /* the collector is to end */
    _Atomic uint32_t stays; /* 0: the worker that is held back may begin */
} memory;
#define MEMORY ((memory *)model_shared)
#define CHANNEL (&MEMORY->channel)
#define FUTURE(call) (&MEMORY->futures[call])

/* A process's side: that of the parent, or of a worker. */
typedef struct {
    pyc_queue jobs, results;
} side;

typedef struct {
    PyListObject lists[LISTS];
    PyObject *items[LISTS][CALLS];
    struct {
        PyTupleObject tuple;
        PyObject *second;
    } pairs[LISTS];
    struct {
        PyBytesObject bytes;
        char data[16];
    } pickles[WORKERS + 1];
    uint64_t task[WORKERS + 1]; /* that each worker has taken */
    int number[WORKERS + 1];    /* each worker's */
    uint8_t begun[CALLS];       /* how often it was run */
    uint8_t lost[CALLS];        /* how often a killed worker had claimed it */
    uint8_t called[CALLS];      /* callbacks */
    uint8_t answered, revoked, failed; /* a bit for each call */
    uint8_t waits;                     /* calls that have had no room */
    uint8_t finished;                  /* threads that wait for nothing more */
    uint8_t n_lists, n_pairs;
    bool raises; /* what is raised now is no Exception */
    bool closed;
    pyc_channel channels[WORKERS]; /* of workers */
    side sides[WORKERS + 1];       /* the first is the parent's */
} ghost;
#define GHOST ((ghost *)model_ghost)

_Static_assert(sizeof(memory) <= MODEL_SHARED, "too large");
_Static_assert(sizeof(ghost) <= MODEL_GHOST, "too large");

static unsigned char *
heap_memory(int fd)
{
    return MEMORY->heap[fd];
}

/* ---- The scenarios differ in these ---- */

typedef struct {
    int threads; /* of the parent */
    int calls;
    int slots;
    int batch;     /* 0: two */
    bool has_list; /* Futures have a callback of the program's */
    bool retries;  /* what a killed worker had begun is run again */
    int raises;    /* a call: something does, while it is ended; 0: nothing */
    bool looks_after_parent;
} plan;
static const plan *current;

static bool
is_worker(int process)
{
    return process >= current->threads;
}

static uint32_t
owner_of(int process)
{
    return is_worker(process) ? (uint32_t)process + 1 : 1;
}

/* ---- In place of Python ---- */

/* What is not of the state of any process: its counts do not matter. */
static PyTypeObject some_type;
static pyc_ipc states[2]; /* the parent's and the workers' */
static pyc_state core;
static PyObject things[CALLS + 3]; /* a call, and its value, are one of these */
#define ERROR (&things[CALLS])
#define CALLBACK (&things[CALLS + 1])
#define REFILL (&things[CALLS + 2])
PyObject _Py_NoneStruct;
PyLongObject _Py_TrueStruct;
PyObject *PyExc_Exception, *PyExc_RuntimeError, *PyExc_ValueError,
    *PyExc_TypeError, *PyExc_OverflowError;

static PyVarObject
object(Py_ssize_t size)
{
    return (PyVarObject){PyObject_HEAD_INIT(&some_type) size};
}

static int
call_of(const PyObject *thing)
{
    MODEL_CHECK(thing >= things && thing < things + CALLS, "is no call");
    return (int)(thing - things);
}

static int
call_of_future(const void *future)
{
    return (int)((const pyc_future *)future - MEMORY->futures);
}

PyObject *
PyErr_Occurred(void)
{
    return NULL;
}

void
PyErr_Clear(void)
{
}

void
PyErr_SetString(PyObject *type, const char *text)
{
}

PyObject *
PyErr_Format(PyObject *type, const char *format, ...)
{
    return NULL;
}

int
PyErr_ExceptionMatches(PyObject *type)
{
    return !GHOST->raises;
}

PyObject *
model_take_exception(void)
{
    GHOST->raises = false;
    return ERROR;
}

void
_Py_Dealloc(PyObject *object)
{
}

void
PyMem_Free(void *memory)
{
}

unsigned long
PyThread_get_thread_ident(void)
{
    return (unsigned long)model_me + 1;
}

PyObject *
PyBool_FromLong(long value)
{
    return value ? &things[0] : NULL;
}

PyObject *
PyLong_FromLongLong(long long number)
{
    return &things[number];
}

/* Of tasks, and of flags: see PyTuple_Pack(). */
PyObject *
PyLong_FromUnsignedLongLong(unsigned long long number)
{
    GHOST->task[model_me - current->threads] = number;
    return &things[0];
}

PyObject *
PyLong_FromUnsignedLong(unsigned long number)
{
    return &things[0];
}

/* A worker's number. */
Py_ssize_t
PyNumber_AsSsize_t(PyObject *object, PyObject *error)
{
    return object - things;
}

/* A pickle. */
PyObject *
PyBytes_FromStringAndSize(const char *data, Py_ssize_t size)
{
    PyBytesObject *bytes = &GHOST->pickles[model_me - current->threads].bytes;
    MODEL_CHECK(size == sizeof(int64_t), "what was sent has another size");
    *bytes = (PyBytesObject){.ob_base = object(size)};
    memcpy(bytes->ob_sval, data, (size_t)size);
    return (PyObject *)bytes;
}

/* (Future, callbacks), or a job. */
PyObject *
PyTuple_Pack(Py_ssize_t n, ...)
{
    va_list items;
    PyTupleObject *pair = &GHOST->pairs[GHOST->n_pairs].tuple;
    PyObject *first, *second;
    va_start(items, n);
    first = va_arg(items, PyObject *);
    second = va_arg(items, PyObject *);
    va_end(items);
    if (n != 2) {
        return second;
    }
    MODEL_CHECK(GHOST->n_pairs++ < LISTS, "too many pairs");
    *pair = (PyTupleObject){.ob_base = object(n)};
    pair->ob_item[0] = first;
    pair->ob_item[1] = second;
    return (PyObject *)pair;
}

PyObject *
PyList_New(Py_ssize_t size)
{
    int n = GHOST->n_lists;
    MODEL_CHECK(GHOST->n_lists++ < LISTS, "too many lists");
    GHOST->lists[n] =
        (PyListObject){.ob_base = object(0), .ob_item = GHOST->items[n]};
    return (PyObject *)&GHOST->lists[n];
}

int
PyList_Append(PyObject *list, PyObject *item)
{
    PyListObject *self = (PyListObject *)list;
    self->ob_item[self->ob_base.ob_size++] = item;
    return 0;
}

/* done() of a Future that was ended by others. */
static PyObject *
is_done(PyObject *future)
{
    MODEL_CHECK(pyc_future_done((pyc_future *)future), "it cannot be ended");
    return Py_True;
}

PyObject *
PyObject_CallMethod(PyObject *object, const char *name, const char *format, ...)
{
    return is_done(object);
}

static void refill(void);

PyObject *
PyObject_CallNoArgs(PyObject *callable)
{
    refill();
    return callable;
}

void
pyc_hurry_end(pyc_state *module)
{
}

/* ---- In place of what makes messages: an item is the number of a call ---- */

void
pyc_flat_begin(pyc_flat *self, int count)
{
}

bool
pyc_flat_add(pyc_flat *self, PyObject *object)
{
    if (self->length == 0) {
        int64_t number = call_of(object);
        __builtin_memcpy(self->data, &number, sizeof(number));
        self->length = sizeof(number);
    }
    return true;
}

PyObject *
pyc_flat_read(const char *data, size_t length)
{
    int64_t number;
    __builtin_memcpy(&number, data, sizeof(number));
    return &things[number];
}

int
pyc_message_simple(PyObject *object, pyc_message *message)
{
    message->kind = PYC_ITEM_INT;
    message->number = call_of(object);
    message->data = (const char *)&message->number;
    message->length = message->weight = sizeof(message->number);
    return 1;
}

void
pyc_message_write(const pyc_message *message, char *where)
{
    memcpy(where, message->data, message->length);
}

void
pyc_message_clear(pyc_queue *queue, pyc_message *message)
{
}

void
pyc_view_hold(pyc_queue *queue, pyc_piece *piece)
{
}

bool
pyc_queue_wait_for_piece(pyc_queue *queue, uint64_t size, uint32_t mine)
{
    return false;
}

bool
pyc_table_reap(pyc_arena *arena)
{
    return false;
}

void
pyc_bells_ring_now(pyc_ipc *state, pyc_arena *arena, pyc_bells *bells)
{
}

/* ---- Futures end, as in pool/task.c ---- */

static void
ring(void)
{
    atomic_store(&MEMORY->bell, 1);
}

static bool
all_done(void)
{
    for (int i = 0; i < current->calls; i++) {
        if (!pyc_future_done(FUTURE(i))) {
            return false;
        }
    }
    return true;
}

static bool
all_called(void)
{
    for (int i = 0; i < current->calls; i++) {
        if (GHOST->called[i] == 0) {
            return false;
        }
    }
    return true;
}

static int
call_callbacks(void *future, void *callbacks)
{
    GHOST->called[call_of_future(future)]++;
    ring();
    return 0;
}

static int
end_future(void *future, void *value, int failed, void **callbacks)
{
    PyObject *list;
    int rc = pyc_future_end(future, value, failed, &list);
    *callbacks = list;
    if (current->raises != 0) {
        ring();
    }
    if (rc == 0 && current->raises != 0 &&
        call_of_future(future) == current->raises) {
        GHOST->raises = true; /* as a signal's handler may */
        rc = -1;
    }
    return rc < 0 ? -1 : 1;
}

static const pyc_ending ending = {end_future, call_callbacks};

/* As set_exception(). */
static void
fail(int call)
{
    void *callbacks;
    if (end_future(FUTURE(call), ERROR, true, &callbacks) > 0) {
        GHOST->failed |= (uint8_t)(1 << call);
        if (callbacks != NULL) {
            call_callbacks(FUTURE(call), callbacks);
        }
    }
}

/* ---- A method of the real channel, by its name ---- */

static PyCFunction
method(const char *name)
{
    const PyType_Slot *slot = pyc_channel_spec.slots;
    while (slot->slot != Py_tp_methods) {
        slot++;
    }
    const PyMethodDef *found = slot->pfunc;
    while (strcmp(found->ml_name, name) != 0) {
        found++;
    }
    return found->ml_meth;
}

/* ---- Set up ---- */

static void
begin_queue(pyc_queue *queue, pyc_queue_memory *shared, int fd, bool is_first)
{
    queue->shared.state = &states[0];
    queue->shared.block.arena = (pyc_arena *)1;
    queue->shared.block.memory = shared;
    queue->store.fd = fd;
    queue->store.extents = &shared->ring.heap.extents;
    if (is_first && pyc_ring_begin(&shared->ring, &queue->store) < 0) {
        model_fail(__FILE__, __LINE__, "no memory");
    }
    pyc_store_map(&queue->store);
}

static void
begin_side(pyc_channel *channel, int which)
{
    side *at = &GHOST->sides[which];
    begin_queue(&at->jobs, &MEMORY->jobs, 0, which == 0);
    begin_queue(&at->results, &MEMORY->results, 1, which == 0);
    channel->jobs = &at->jobs;
    channel->results = &at->results;
    channel->board = &MEMORY->board;
    channel->state = &states[which != 0];
    channel->pid = which == 0 ? PARENT_PID : 0;
}

static void
begin_future(int call)
{
    pyc_future *future = FUTURE(call);
    future->ob_base = object(0).ob_base;
    future->module = &core;
    future->source = &CHANNEL->source;
    future->channel = (PyObject *)CHANNEL;
    if (current->has_list) {
        PyList_Append(future->callbacks = PyList_New(0), CALLBACK);
    }
}

static void
set_up(const plan *chosen)
{
    current = chosen;
    model_batch = chosen->batch == 0 ? 2 : chosen->batch;
    model_parent = chosen->looks_after_parent ? 0 : INT64_MAX;
    states[0].pid = PARENT_PID;
    states[1].pid = PARENT_PID + 1;
    for (int i = 0; i < CALLS + 3; i++) {
        things[i] = object(0).ob_base;
    }
    pyc_board_begin(&MEMORY->board, (uint32_t)chosen->slots, WORKERS, 1);
    pyc_channel *parent = CHANNEL;
    parent->ob_base = object(0).ob_base;
    parent->slots = MEMORY->slots;
    parent->max_bytes = 1 << 20;
    parent->refill = REFILL;
    pyc_channel_source(&parent->source);
    atomic_store(&parent->source.ending, &ending);
    begin_side(parent, 0);
    for (int i = 0; i < CALLS; i++) {
        MEMORY->slots[i].next = (uint32_t)i + 1;
        begin_future(i);
    }
    for (int i = 0; i < model_current()->processes - chosen->threads; i++) {
        begin_side(&GHOST->channels[i], i + 1);
    }
    atomic_store(&MEMORY->stays, 1);
}

/* ---- What the parent's threads do ---- */

static bool
try_to_send(int call)
{
    PyObject *thing = &things[call];
    pyc_call what = {(PyObject *)FUTURE(call), thing, thing, thing};
    int rc = pyc_channel_send(CHANNEL, &what);
    MODEL_CHECK(rc >= 0, "a call cannot be sent");
    return rc > 0;
}

/* As _refill() of the pool: what waits, while there is room. */
static void
refill(void)
{
    pyc_lock_take(&MEMORY->pool);
    for (int i = 0; i < current->calls && GHOST->waits != 0; i++) {
        if (GHOST->waits >> i & 1) {
            if (!try_to_send(i)) {
                break;
            }
            GHOST->waits &= (uint8_t)~(1 << i);
        }
    }
    pyc_lock_give(&MEMORY->pool);
}

/* As _put_off(). */
static void
put_off(int call)
{
    pyc_lock_take(&MEMORY->pool);
    GHOST->waits |= (uint8_t)(1 << call);
    pyc_lock_give(&MEMORY->pool);
    refill();
}

static void
send(int call)
{
    if (!try_to_send(call)) {
        put_off(call);
    }
}

/* As result(). */
static void
wait_for(int call, int64_t deadline)
{
    int rc = pyc_future_wait(FUTURE(call), deadline);
    MODEL_CHECK(rc > 0 || deadline != PYC_NO_DEADLINE || current->raises != 0,
                "result() ends too early");
    MODEL_CHECK(rc <= 0 || pyc_future_done(FUTURE(call)),
                "result() ends without one");
}

static void
close_channel(void)
{
    GHOST->closed = true;
    pyc_queue_shutdown(CHANNEL->jobs, 0);
}

/* As Collector of supervisor.py. */
static void
collect_until_stopped(void)
{
    while (!atomic_load(&MEMORY->over)) {
        if (pyc_channel_watch(CHANNEL, PYC_NO_DEADLINE)) {
            while (pyc_channel_collect(CHANNEL, true) < 0) {
            }
        }
    }
    pyc_channel_collect(CHANNEL, true);
}

static void
stop_collector(void)
{
    atomic_store(&MEMORY->over, 1);
    pyc_channel_wake(CHANNEL);
}

static void
wait_until(bool (*is_so)(void))
{
    while (!is_so()) {
        model_await(MODEL_SITE("the bell"), 0, &MEMORY->bell);
        atomic_store(&MEMORY->bell, 0);
    }
}

/* As _bury() and _lost() of the pool. */
static void
bury(int number, int process)
{
    PyObject *found = method("bury")((PyObject *)CHANNEL, &things[number]);
    MODEL_CHECK(found != NULL, "bury() failed");
    if (found == Py_None) {
        return;
    }
    int call = call_of_future(found);
    MODEL_CHECK(!model_alive(process), "a worker that lives has lost a call");
    MODEL_CHECK(!(GHOST->answered & 1 << call),
                "a call is lost that was answered");
    GHOST->lost[call]++;
    if (current->retries) {
        put_off(call);
    }
    else {
        fail(call);
    }
}

/* As Supervisor.run() with tend(): one worker's process, another after it;
 * `first` and the one behind it. The others are not its concern. */
static void
supervise(int first)
{
    int process = first;
    int last = model_current()->processes - 1;
    for (;;) {
        atomic_store(&MEMORY->bell, 0);
        if (model_ended(process)) {
            bury(0, process);
            bool has_work = !all_done();
            if (!has_work || process == last) {
                break;
            }
            process = last;
            atomic_store(&MEMORY->stays, 0);
        }
        if (all_done() && !GHOST->closed) {
            close_channel();
        }
        model_await(MODEL_SITE("the bell, or the end of a worker"),
                    1u << process, &MEMORY->bell);
    }
    if (!GHOST->closed) {
        close_channel();
    }
    if (process != last) {
        atomic_store(&MEMORY->stays, 0);
    }
}

/* ---- What a worker does ---- */

static void
run(int call)
{
    MODEL_CHECK(!(GHOST->revoked & 1 << call),
                "a call is run that was revoked");
    MODEL_CHECK(GHOST->begun[call] <= GHOST->lost[call], "a call is run twice");
    GHOST->begun[call]++;
    model_point(MODEL_SITE("a call"));
}

static void
work(int number)
{
    int which = model_me - current->threads;
    pyc_channel *channel = &GHOST->channels[which];
    for (;;) {
        PyObject *job =
            pyc_channel_take(channel, (uint32_t)number, PYC_NO_DEADLINE);
        MODEL_CHECK(job != NULL, "a worker cannot take a job");
        if (job == Py_None) {
            return;
        }
        int call = call_of(job);
        run(call);
        MODEL_CHECK(
            pyc_channel_reply(channel, GHOST->task[which], job, false) == 0,
            "a worker cannot reply");
        GHOST->answered |= (uint8_t)(1 << call);
    }
}

/* Once the one before it has ended. */
static void
work_later(void)
{
    model_lock(MODEL_SITE("until it is started"), &MEMORY->stays);
    if (!GHOST->closed) {
        work(0);
    }
}

/* ---- Scenarios ---- */

static void
send_all(void)
{
    for (int i = 0; i < current->calls; i++) {
        send(i);
    }
}

static void
wait_for_all(void)
{
    for (int i = 0; i < current->calls; i++) {
        wait_for(i, PYC_NO_DEADLINE);
    }
}

/* A thread sends and waits, the others work. */
static void
result(int me)
{
    if (me == 0) {
        send_all();
        wait_for_all();
        close_channel();
    }
    else {
        work(me - 1);
    }
}

/* Nobody waits: the callbacks say when all are done. */
static void
callback(int me)
{
    if (me == 0) {
        send_all();
        wait_until(all_called);
        close_channel();
        stop_collector();
    }
    else if (me == 1) {
        collect_until_stopped();
    }
    else {
        work(me - 2);
    }
}

/* It waits for the results, and then for the callbacks. */
static void
result_and_callback(int me)
{
    if (me == 0) {
        send_all();
        wait_for_all();
        wait_until(all_called);
        close_channel();
        stop_collector();
    }
    else {
        callback(me);
    }
}

/* It waits for the first one: for a while, or until something is raised. */
static void
driver_leaves(int me)
{
    if (me == 0) {
        send_all();
        wait_for(0, current->raises == 0 ? MODEL_SOON : PYC_NO_DEADLINE);
        wait_until(all_done);
        close_channel();
        stop_collector();
    }
    else {
        callback(me);
    }
}

/* Each waits for a call of its own. */
static void
two_drivers(int me)
{
    if (me < 2) {
        send(me);
        wait_for(me, PYC_NO_DEADLINE);
        if (++GHOST->finished == 2) {
            close_channel();
            stop_collector();
        }
    }
    else if (me == 2) {
        collect_until_stopped();
    }
    else {
        work(me - 3);
    }
}

/* 1 cancels what 0 waits for. */
static void
cancel(int me)
{
    if (me == 0) {
        send_all();
        wait_for_all();
        close_channel();
    }
    else if (me == 1) {
        if (method("revoke")((PyObject *)CHANNEL, (PyObject *)FUTURE(0))) {
            MODEL_CHECK(GHOST->begun[0] == 0, "a call is revoked that is run");
            GHOST->revoked |= 1;
            pyc_future_cancel(FUTURE(0));
        }
    }
    else {
        work(me - 2);
    }
}

/* 0 waits, 1 sees to workers. */
static void
supervised(int me)
{
    if (me == 0) {
        send_all();
        wait_for_all();
        ring();
    }
    else if (me == 1) {
        supervise(2);
    }
    else if (me == 2) {
        work(0);
    }
    else {
        work_later();
    }
}

/* As that, but nobody waits. */
static void
collected(int me)
{
    if (me == 0) {
        send_all();
        supervise(2);
        stop_collector();
    }
    else if (me == 1) {
        collect_until_stopped();
    }
    else {
        supervised(me);
    }
}

/* One of two workers may be killed; no other comes. */
static void
two_workers(int me)
{
    if (me == 0) {
        send_all();
        wait_for_all();
        ring();
    }
    else if (me == 1) {
        bool is_buried = false;
        while (!all_done()) {
            unsigned ended =
                model_await(MODEL_SITE("the end of a worker"),
                            is_buried ? 0 : 1u << 2, &MEMORY->bell);
            if (ended != 0) {
                is_buried = true;
                bury(0, 2);
            }
        }
        close_channel();
    }
    else {
        work(me - 2);
    }
}

/* A worker is asked to end; another takes what is left, or is there already. */
static void
retire(int me)
{
    if (me == 1) {
        method("retire")((PyObject *)CHANNEL, &things[0]);
        supervise(2);
    }
    else {
        supervised(me);
    }
}

static void
retire_one(int me)
{
    if (me == 0) {
        send_all();
        wait_for_all();
        close_channel();
    }
    else if (me == 1) {
        method("retire")((PyObject *)CHANNEL, &things[0]);
    }
    else {
        work(me - 2);
    }
}

/* As break_down() of the pool; 1 waits meanwhile. */
static void
stop(int me)
{
    if (me == 0) {
        send_all();
        GHOST->closed = true;
        method("stop")((PyObject *)CHANNEL, NULL);
        pyc_channel_collect(CHANNEL, true);
        for (int i = 0; i < current->calls; i++) {
            if (method("revoke")((PyObject *)CHANNEL, (PyObject *)FUTURE(i))) {
                GHOST->revoked |= (uint8_t)(1 << i);
            }
            fail(i);
        }
    }
    else if (me == 1) {
        wait_for(current->calls - 1, PYC_NO_DEADLINE);
    }
    else {
        work(me - 2);
    }
}

/* ---- What is true in the end ---- */

static void
check_call(int call)
{
    pyc_future *future = FUTURE(call);
    bool failed = GHOST->failed >> call & 1;
    MODEL_CHECK(pyc_future_done(future), "a call has no end");
    MODEL_CHECK(failed || GHOST->revoked >> call & 1 ||
                    (future->result == &things[call] && GHOST->begun[call] > 0),
                "a call has another's result");
    MODEL_CHECK(GHOST->called[call] == current->has_list,
                "callbacks are not called once");
}

static void
check_end(void)
{
    int lost = 0;
    if (!model_alive(0)) {
        return; /* the workers have seen it */
    }
    for (int i = 0; i < current->calls; i++) {
        check_call(i);
        lost += GHOST->lost[i];
    }
    MODEL_CHECK(lost <= model_killed(), "a kill has cost more than one call");
}

/* When nobody works at them any more. */
static void
check_channel(void)
{
    check_end();
    MODEL_CHECK(!model_alive(0) ||
                    (CHANNEL->in_flight == 0 && CHANNEL->bytes == 0),
                "the channel has not forgotten a call");
}

#define PLAN(name_, ...)                                                       \
    static const plan name_ = {__VA_ARGS__};                                   \
    static void set_up_##name_(void) { set_up(&name_); }
PLAN(alone, .threads = 1, .calls = 2, .slots = CALLS)
PLAN(no_room, .threads = 1, .calls = 3, .slots = 1)
PLAN(mortal, .threads = 1, .calls = 1, .slots = CALLS,
     .looks_after_parent = true)
PLAN(with_callbacks, .threads = 2, .calls = 2, .slots = CALLS, .has_list = true)
PLAN(little_room, .threads = 2, .calls = 2, .slots = 1, .has_list = true)
PLAN(one_each, .threads = 3, .calls = 2, .slots = CALLS)
PLAN(interrupted, .threads = 2, .calls = 3, .slots = CALLS, .batch = 1,
     .raises = 1)
PLAN(one_call_collected, .threads = 2, .calls = 1, .slots = CALLS,
     .has_list = true)
PLAN(one_call, .threads = 2, .calls = 1, .slots = CALLS)
PLAN(two_calls, .threads = 2, .calls = 2, .slots = CALLS)
PLAN(one_call_again, .threads = 2, .calls = 1, .slots = CALLS, .retries = true)
PLAN(one_call_alone, .threads = 1, .calls = 1, .slots = CALLS)
PLAN(again, .threads = 2, .calls = 2, .slots = CALLS, .retries = true)
PLAN(again_collected, .threads = 2, .calls = 2, .slots = CALLS, .retries = true,
     .has_list = true)

/* Less to keep of each state. */
#define ONE_WORKER (offsetof(ghost, sides) + 2 * sizeof(side))

#define SCENARIO(...)                                                          \
    {.shared = sizeof(memory),                                                 \
     .ghost = sizeof(ghost),                                                   \
     .slices = 3,                                                              \
     .processes = 3,                                                           \
     .preemptions = 2,                                                         \
     .end = check_channel,                                                     \
     __VA_ARGS__}

static const model_scenario scenarios[] = {
    SCENARIO(.name = "one", .ghost = ONE_WORKER, .processes = 2,
             .preemptions = 3, .setup = set_up_alone, .run = result),
    SCENARIO(.name = "two", .setup = set_up_alone, .run = result),
    SCENARIO(.name = "no_room", .ghost = ONE_WORKER, .processes = 2,
             .preemptions = 3, .setup = set_up_no_room, .run = result),
    SCENARIO(.name = "collector", .ghost = ONE_WORKER,
             .setup = set_up_with_callbacks, .run = callback),
    SCENARIO(.name = "collector_no_room", .ghost = ONE_WORKER,
             .setup = set_up_little_room, .run = callback),
    SCENARIO(.name = "deferred", .ghost = ONE_WORKER,
             .setup = set_up_one_call_collected, .run = result_and_callback),
    SCENARIO(.name = "driver_leaves", .ghost = ONE_WORKER,
             .setup = set_up_with_callbacks, .run = driver_leaves),
    SCENARIO(.name = "driver_interrupted", .ghost = ONE_WORKER,
             .setup = set_up_interrupted, .run = driver_leaves),
    SCENARIO(.name = "two_drivers", .ghost = ONE_WORKER, .processes = 4,
             .preemptions = 1, .setup = set_up_one_each, .run = two_drivers),
    SCENARIO(.name = "cancel", .ghost = ONE_WORKER, .setup = set_up_one_call,
             .run = cancel),
    SCENARIO(.name = "kill", .processes = 4, .kills = 1, .immortal = 1 | 2 | 8,
             .setup = set_up_one_call, .run = supervised),
    SCENARIO(.name = "kill_retry", .processes = 4, .preemptions = 1, .kills = 1,
             .immortal = 1 | 2 | 8, .setup = set_up_again, .run = supervised),
    SCENARIO(.name = "kill_collector", .processes = 4, .preemptions = 1,
             .kills = 1, .immortal = 1 | 2 | 8, .setup = set_up_again_collected,
             .run = collected),
    SCENARIO(.name = "kill_one_of_two", .processes = 4, .preemptions = 1,
             .kills = 1, .immortal = 1 | 2 | 8, .setup = set_up_one_call_again,
             .run = two_workers),
    SCENARIO(.name = "retire", .processes = 4, .setup = set_up_one_call,
             .run = retire),
    SCENARIO(.name = "retire_one", .processes = 4, .setup = set_up_one_call,
             .run = retire_one),
    SCENARIO(.name = "stop", .ghost = ONE_WORKER, .setup = set_up_two_calls,
             .run = stop, .end = check_end),
    SCENARIO(.name = "buffered", .ghost = ONE_WORKER, .processes = 2,
             .preemptions = 1, .buffered = true, .setup = set_up_one_call_alone,
             .run = result),
    SCENARIO(.name = "kill_parent", .ghost = ONE_WORKER, .processes = 2,
             .preemptions = 3, .kills = 1, .immortal = 2,
             .setup = set_up_mortal, .run = result),
};

int
main(int argc, char **argv)
{
    return model_main("channel", scenarios,
                      sizeof(scenarios) / sizeof(*scenarios), argc, argv);
}
