/* SPDX-License-Identifier: MIT */
/* Jobs out of the queue and results into the other, in a worker. */
#include "ipc/channel.h"

#include "ipc/layout.h"
#include "ipc/sleep.h"
#include "ipc/spare.h"

#include <limits.h>
#include <sys/resource.h>

#define LOOK_AFTER_PARENT INT64_C(300000000) /* ns */
#define LONG_IDLE INT64_C(200000000)         /* ns */
#define LONG_TASK INT64_C(200000)            /* ns: its memory is looked at */
#define YIELDS 2 /* the kernel may have had its reasons the first time */
#define SKIPS 63 /* at most: a program may begin to wait for results */

static bool
may_have_job(pyc_queue *jobs, uint64_t worker)
{
    return !pyc_queue_is_empty(jobs) ||
           atomic_load(&pyc_queue_shared(jobs)->shut) != 0 ||
           atomic_load(&((pyc_worker *)(uintptr_t)worker)->asked) != 0;
}

/* Claims the task of a record that was read. What was revoked is skipped. */
static bool
claim(pyc_channel *self, uint32_t worker, const pyc_taken *item)
{
    uint64_t task = item->frame.task;
    if (PYC_TASK_SLOT(task) >= self->board->slots ||
        !pyc_board_move(self->board, task, PYC_QUEUED, PYC_BEGUN + worker)) {
        return false;
    }
    pyc_worker *record = pyc_board_worker(self->board, worker);
    int64_t now = pyc_clock_now();
    atomic_store_explicit(
        &pyc_board_claim(self->board, PYC_TASK_SLOT(task))->began, now,
        memory_order_relaxed);
    atomic_store_explicit(&record->began, now, memory_order_relaxed);
    atomic_store_explicit(&record->task, task, memory_order_release);
    return true;
}

/* 1; 0: there is none; -1 with an exception set. */
static int
take_job(pyc_channel *self, uint32_t worker, pyc_taken *item)
{
    pyc_queue *jobs = self->jobs;
    pyc_queue_memory *memory = pyc_queue_shared(jobs);
    pyc_ring_cursor cursor;
    int rc;
    if (pyc_queue_is_empty(jobs)) {
        return 0;
    }
    pyc_mutex_lock(jobs->shared.block.arena, &memory->getting);
    pyc_ring_load(&memory->ring.out, &cursor);
    for (;;) {
        *item = (pyc_taken){0};
        rc = pyc_queue_take(jobs, &cursor, item);
        if (rc <= 0) {
            break;
        }
        bool claimed = claim(self, worker, item);
        PYC_KILL_POINT("channel-claimed");
        pyc_ring_commit_out(&memory->ring, &jobs->store, &cursor);
        PYC_KILL_POINT("channel-taken");
        if (claimed) {
            pyc_queue_hold(jobs, item);
            break;
        }
        pyc_queue_discard(jobs, item);
    }
    pyc_mutex_unlock(&memory->getting);
    return rc;
}

/* (task, data, buffers, which arguments are buffers): for load(). */
static PyObject *
job_of(pyc_channel *self, uint32_t worker, pyc_taken *item)
{
    PyObject *data, *buffers;
    uint64_t task = item->frame.task;
    pyc_worker *record = pyc_board_worker(self->board, worker);
    atomic_store_explicit(&record->bytes_in,
                          pyc_load(record->bytes_in) + item->record.weight,
                          memory_order_relaxed);
    if (item->record.kind == PYC_ITEM_FLAT) {
        data = pyc_queue_finish(self->jobs, item);
        buffers = NULL;
    }
    else if (pyc_queue_unfold(self->jobs, item, &data, &buffers) < 0) {
        data = NULL;
    }
    if (data == NULL) {
        return NULL;
    }
    PyObject *number = PyLong_FromUnsignedLongLong(task);
    PyObject *carried = PyLong_FromUnsignedLong(item->frame.carried);
    PyObject *job =
        number == NULL || carried == NULL
            ? NULL
            : PyTuple_Pack(4, number, data, buffers == NULL ? Py_None : buffers,
                           carried);
    Py_XDECREF(carried);
    Py_XDECREF(number);
    Py_DECREF(data);
    Py_XDECREF(buffers);
    return job;
}

static bool
parent_is_gone(pyc_channel *self)
{
    int64_t now = pyc_clock_now();
    if (now - self->parent_seen < LOOK_AFTER_PARENT) {
        return false;
    }
    self->parent_seen = now;
    return pyc_arena_owner_is_dead(self->jobs->shared.block.arena,
                                   self->board->parent);
}

/* Keeping memory pays while jobs come one after the other. */
static void
keep_no_memory(const pyc_worker *record)
{
    if (pyc_clock_now() - pyc_load(record->began) > LONG_IDLE) {
        pyc_spare_give_back();
    }
}

PyObject *
pyc_channel_take(pyc_channel *self, uint32_t worker, int64_t deadline)
{
    pyc_worker *record = pyc_board_worker(self->board, worker);
    pyc_queue_memory *memory = pyc_queue_shared(self->jobs);
    pyc_queue_wish wish = {&memory->items, &self->jobs->for_item, may_have_job,
                           (uint64_t)(uintptr_t)record};
    if (atomic_load(&record->pid) != (uint32_t)self->state->pid) {
        atomic_store(&record->began, pyc_clock_now());
        atomic_store(&record->pid, (uint32_t)self->state->pid);
    }
    for (;;) {
        pyc_taken item;
        uint32_t was_shut = atomic_load(&memory->shut);
        if (atomic_load(&record->asked) != 0) {
            Py_RETURN_NONE;
        }
        int rc = take_job(self, worker, &item);
        if (rc != 0) {
            return rc < 0 ? NULL : job_of(self, worker, &item);
        }
        if (was_shut || parent_is_gone(self)) {
            Py_RETURN_NONE;
        }
        keep_no_memory(record);
        rc = pyc_queue_wait(self->jobs, &wish, deadline);
        if (rc == 0) {
            PyErr_SetNone(self->state->queue_Empty);
        }
        if (rc <= 0) {
            return NULL;
        }
    }
}

/* The argument that came as a buffer: a view of it where it is to be bytes, as
 * that was read-only. */
static PyObject *
bytes_of(PyObject *object)
{
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *bytes = pyc_bytes_of(view.buf, view.len, !view.readonly);
    PyBuffer_Release(&view);
    return bytes;
}

static PyObject *
args_of(PyObject *from, unsigned long carried)
{
    PyObject *args = PyTuple_New(PyTuple_GET_SIZE(from));
    for (Py_ssize_t i = 0; args != NULL && i < PyTuple_GET_SIZE(from); i++) {
        PyObject *item = PyTuple_GET_ITEM(from, i);
        item = i < 32 && (carried >> i & 1) ? bytes_of(item) : Py_NewRef(item);
        if (item == NULL) {
            Py_CLEAR(args);
            break;
        }
        PyTuple_SET_ITEM(args, i, item);
    }
    return args;
}

/* Steals the call. */
static PyObject *
with_bytes(PyObject *call, unsigned long carried)
{
    PyObject *result = NULL;
    PyObject *blob, *from, *kwargs;
    if (!PyTuple_Check(call) ||
        !PyArg_ParseTuple(call, "OO!O", &blob, &PyTuple_Type, &from, &kwargs)) {
        PyErr_SetString(PyExc_ValueError, "not a call");
        goto done;
    }
    PyObject *args = args_of(from, carried);
    if (args != NULL) {
        result = PyTuple_Pack(3, blob, args, kwargs);
        Py_DECREF(args);
    }
done:
    Py_DECREF(call);
    return result;
}

PyObject *
pyc_channel_load(PyObject *object, PyObject *job)
{
    if (!PyTuple_CheckExact(job) || PyTuple_GET_SIZE(job) != 4) {
        PyErr_Format(PyExc_TypeError, "not a job of take(): %R", job);
        return NULL;
    }
    PyObject *data = PyTuple_GET_ITEM(job, 1);
    PyObject *buffers = PyTuple_GET_ITEM(job, 2);
    unsigned long carried = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(job, 3));
    if (carried == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    if (PyTuple_CheckExact(data)) {
        return Py_NewRef(data);
    }
    pyc_ipc *state = ((pyc_channel *)object)->state;
    PyObject *call =
        pyc_unpack(state, data, buffers == Py_None ? NULL : buffers);
    if (call != NULL && carried != 0) {
        call = with_bytes(call, carried);
    }
    if (call != NULL && PyList_CheckExact(buffers) &&
        PyList_SetSlice(buffers, 0, PyList_GET_SIZE(buffers), NULL) < 0) {
        Py_CLEAR(call);
    }
    return call;
}

/* A thread of the parent that is about to wait for the only task may not have
 * got as far, where this process has the same CPU: it had better go on than the
 * collector be woken, which would take the GIL from it. Whether it did. */
static bool
let_drive(pyc_channel *self)
{
    pyc_patience *patience = &self->for_driver;
    if (!pyc_queue_is_empty(self->jobs) || !pyc_patience_allows(patience)) {
        return false;
    }
    bool cheap = true, drives = false;
    for (int i = 0; i < YIELDS && cheap && !drives; i++) {
        cheap = pyc_yield(patience);
        drives = pyc_queue_is_empty(self->results) ||
                 atomic_load(&self->board->driven);
    }
    pyc_patience_learn(patience, !cheap   ? PYC_DEAR
                                 : drives ? PYC_READY
                                          : PYC_IN_VAIN);
    if (cheap && pyc_load(patience->skip) > SKIPS) {
        pyc_store(patience->skip, SKIPS);
    }
    return drives;
}

/* The driver if there is one, or else the collector. */
static void
tell_parent(pyc_channel *self)
{
    pyc_gate *gate = &pyc_queue_shared(self->results)->items;
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load(&self->board->driven) && let_drive(self)) {
        atomic_thread_fence(memory_order_seq_cst);
    }
    if (atomic_load(&self->board->driven)) {
        pyc_gate_open(gate, 1);
    }
    else if (!pyc_queue_is_empty(self->results)) {
        pyc_gate_open(&self->board->collector, 1);
    }
}

static void
note_end(pyc_worker *record, uint64_t bytes)
{
    struct rusage usage;
    int64_t now = pyc_clock_now(), took = now - pyc_load(record->began);
    pyc_store(record->tasks, pyc_load(record->tasks) + 1);
    pyc_store(record->busy, pyc_load(record->busy) + (uint64_t)took);
    pyc_store(record->bytes_out, pyc_load(record->bytes_out) + bytes);
    pyc_store(record->began, now);
    atomic_store_explicit(&record->task, 0, memory_order_release);
    if ((took > LONG_TASK || pyc_load(record->peak) == 0) &&
        getrusage(RUSAGE_SELF, &usage) == 0) {
        pyc_store(record->peak, (uint64_t)usage.ru_maxrss * 1024);
    }
}

static int
answer_of(pyc_channel *self, PyObject *value, pyc_flat *flat,
          pyc_message *message)
{
    if (pyc_message_simple(value, message)) {
        return 0;
    }
    flat->length = 0;
    if ((PyTuple_CheckExact(value) || PyList_CheckExact(value) ||
         PyDict_CheckExact(value)) &&
        pyc_flat_add(flat, value)) {
        pyc_message_flat(flat, message);
        return 0;
    }
    return pyc_message_of(self->state, value, message);
}

int
pyc_channel_reply(pyc_channel *self, uint64_t task, PyObject *value,
                  bool failed)
{
    uint32_t state = PYC_TASK_SLOT(task) < self->board->slots
                         ? pyc_board_state(self->board, task)
                         : PYC_OVER;
    if (state < PYC_BEGUN || state - PYC_BEGUN >= self->board->workers) {
        return 0; /* it was given up */
    }
    pyc_frame frame = {
        .task = task, .worker = state - PYC_BEGUN, .failed = failed};
    pyc_message message = {0};
    pyc_flat flat;
    int rc = answer_of(self, value, &flat, &message);
    uint64_t bytes = message.weight;
    if (rc == 0) {
        message.frame = &frame;
        rc = pyc_queue_put_message(self->results, &message);
    }
    if (rc > 0) {
        PYC_KILL_POINT("channel-replied");
        note_end(pyc_board_worker(self->board, frame.worker), bytes);
        tell_parent(self);
    }
    pyc_message_clear(self->results, &message);
    return rc < 0 ? -1 : 0;
}
