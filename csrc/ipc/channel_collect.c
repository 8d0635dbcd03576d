/* SPDX-License-Identifier: MIT */
/* Results into Futures. */
#include "ipc/channel.h"

#define BATCH_MOST 64
#define BATCH_WEIGHT (UINT64_C(1) << 20) /* about their bytes */

/* A result and what it is for. */
typedef struct {
    pyc_taken taken;
    PyObject *future; /* borrowed; NULL: nobody waits for it any longer */
} arrival;

typedef struct {
    arrival arrivals[BATCH_MOST];
    int n;
    bool calls;
    bool deferred;   /* callbacks, to be called by the collector */
    PyObject *error; /* the first that something raised, no Exception */
} batch;

/* An exception that is set and no Exception is for who collects: it may be that
 * of a signal's handler. Whether it was one. */
static bool
keep(batch *all)
{
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        return false;
    }
    PyObject *error = pyc_take_exception();
    if (all->error == NULL) {
        all->error = error;
    }
    else {
        Py_DECREF(error);
    }
    return true;
}

/* Takes what is there. 0, or -1 with an exception set and nothing taken. */
static int
take(pyc_channel *self, batch *all)
{
    pyc_queue_memory *memory = pyc_queue_shared(self->results);
    pyc_ring_cursor cursor;
    int rc = 1;
    pyc_mutex_lock(self->results->shared.block.arena, &memory->getting);
    pyc_ring_load(&memory->ring.out, &cursor);
    uint64_t weight = cursor.weight;
    while (all->n < BATCH_MOST && cursor.weight - weight < BATCH_WEIGHT) {
        arrival *next = &all->arrivals[all->n];
        *next = (arrival){0};
        rc = pyc_queue_take(self->results, &cursor, &next->taken);
        if (rc <= 0) {
            break;
        }
        all->n++;
        next->future = pyc_channel_arrive(self, next->taken.frame.task);
    }
    if (all->n > 0) {
        pyc_ring_commit_out(&memory->ring, &self->results->store, &cursor);
        for (int i = 0; i < all->n; i++) {
            pyc_queue_hold(self->results, &all->arrivals[i].taken);
        }
    }
    pyc_mutex_unlock(&memory->getting);
    if (rc < 0 && all->n > 0) {
        PyErr_Clear(); /* it will come again, with the first of a batch */
        rc = 0;
    }
    return rc < 0 ? -1 : 0;
}

/* A failure of what is better to have, but not needed. */
static void
forgive(batch *all)
{
    if (PyErr_Occurred() && !keep(all)) {
        PyErr_Clear();
    }
}

/* The text of the call; NULL: it is not known. */
static PyObject *
description(pyc_channel *self, batch *all, PyObject *future)
{
    pyc_lock_take(&self->lock);
    PyObject *describe = Py_XNewRef(self->describe);
    pyc_lock_give(&self->lock);
    if (describe == NULL) {
        return NULL;
    }
    PyObject *text = PyObject_CallOneArg(describe, future);
    Py_DECREF(describe);
    forgive(all);
    if (text != NULL && !PyUnicode_Check(text)) {
        Py_CLEAR(text);
    }
    return text;
}

/* Says in a note which call it is that has no result. */
static void
note_call(pyc_channel *self, batch *all, PyObject *future, PyObject *error)
{
    PyObject *text = description(self, all, future), *noted = NULL;
    PyObject *note = PyUnicode_FromFormat(
        "It came while what a worker process sent was unpickled%s%V.",
        text == NULL ? "" : ": the result of ", text, "");
    if (note != NULL) {
        noted = PyObject_CallMethod(error, "add_note", "O", note);
    }
    forgive(all);
    Py_XDECREF(noted);
    Py_XDECREF(note);
    Py_XDECREF(text);
}

/* Why there is no result, or the exception that the result is. Steals the
 * value, NULL with an exception set. */
static PyObject *
exception_of(pyc_channel *self, batch *all, PyObject *future, PyObject *value)
{
    if (value != NULL && PyExceptionInstance_Check(value)) {
        return value;
    }
    if (value != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "a worker process failed with %R, which is no exception",
                     value);
        Py_DECREF(value);
    }
    PyObject *error = pyc_take_exception();
    note_call(self, all, future, error);
    return error;
}

/* A Future that was ended by others meanwhile, as cancel() may, is no error. */
static void
not_ended(batch *all, PyObject *future)
{
    if (keep(all)) {
        return;
    }
    PyObject *error = pyc_take_exception();
    PyObject *done = PyObject_CallMethod(future, "done", NULL);
    if (done != Py_True) {
        PyErr_Clear();
        pyc_put_exception(Py_NewRef(error));
        PyErr_WriteUnraisable(future);
    }
    Py_XDECREF(done);
    Py_DECREF(error);
}

/* Takes the callbacks over. */
static void
defer(pyc_channel *self, batch *all, PyObject *future, PyObject *callbacks)
{
    PyObject *pair = PyTuple_Pack(2, future, callbacks);
    PyObject *fresh = PyList_New(0);
    int rc = -1;
    Py_DECREF(callbacks);
    if (pair != NULL && fresh != NULL) {
        pyc_lock_take(&self->lock);
        if (self->deferred == NULL) {
            self->deferred = fresh;
            fresh = NULL;
        }
        rc = PyList_Append(self->deferred, pair);
        pyc_lock_give(&self->lock);
    }
    Py_XDECREF(pair);
    Py_XDECREF(fresh);
    if (rc < 0) {
        PyErr_WriteUnraisable(future);
    }
    all->deferred = true;
}

/* 1; 0: it was of another kind; -1 with an exception set. */
static int
end_quickly(pyc_channel *self, batch *all, PyObject *future, PyObject *value,
            bool failed)
{
    void *callbacks = NULL;
    const pyc_ending *ending =
        atomic_load_explicit(&self->source.ending, memory_order_relaxed);
    if (ending == NULL) {
        return 0;
    }
    int rc = ending->end(future, value, failed, &callbacks);
    if (rc == 1 && callbacks != NULL) {
        if (all->calls) {
            return ending->call(future, callbacks) < 0 ? -1 : 1;
        }
        defer(self, all, future, callbacks);
    }
    return rc;
}

static int
end_by_method(pyc_ipc *state, PyObject *future, PyObject *value, bool failed)
{
    PyObject *name = failed ? state->str_set_exception : state->str_set_result;
    PyObject *done = PyObject_CallMethodOneArg(future, name, value);
    Py_XDECREF(done);
    return done == NULL ? -1 : 1;
}

/* The value, or NULL with an exception set. What interrupts it once is for who
 * collects, and not for the Future; what comes each time is the Future's. */
static PyObject *
value_of(pyc_channel *self, batch *all, pyc_taken *taken)
{
    PyObject *data, *buffers;
    if (taken->record.kind != PYC_ITEM_PICKLE) {
        return pyc_queue_finish(self->results, taken);
    }
    if (pyc_queue_unfold(self->results, taken, &data, &buffers) < 0) {
        return NULL;
    }
    bool was_interrupted = all->error != NULL;
    PyObject *value = pyc_unpack(self->state, data, buffers);
    if (value == NULL && keep(all)) {
        value = pyc_unpack(self->state, data, buffers);
        if (value == NULL && !was_interrupted &&
            PyErr_ExceptionMatches((PyObject *)Py_TYPE(all->error))) {
            Py_CLEAR(all->error);
        }
    }
    Py_DECREF(data);
    Py_XDECREF(buffers);
    return value;
}

static void
finish(pyc_channel *self, batch *all, arrival *one)
{
    uint64_t task = one->taken.frame.task;
    PyObject *future = one->future;
    pyc_call call = {0};
    if (future == NULL) {
        pyc_queue_discard(self->results, &one->taken);
        return;
    }
    bool failed = one->taken.frame.failed != 0;
    PyObject *value = value_of(self, all, &one->taken);
    if (value == NULL || failed) {
        failed = true;
        value = exception_of(self, all, future, value);
    }
    int rc = end_quickly(self, all, future, value, failed);
    if (rc == 0) {
        rc = end_by_method(self->state, future, value, failed);
    }
    Py_DECREF(value);
    if (rc < 0) {
        not_ended(all, future);
    }
    pyc_channel_end(self, task, &call);
    pyc_call_clear(&call);
}

/* When it fails it is called once more, some time: what it was to send has to
 * be sent. */
static void
call_refill(pyc_channel *self, batch *all)
{
    pyc_lock_take(&self->lock);
    PyObject *callable = Py_XNewRef(self->refill);
    pyc_lock_give(&self->lock);
    if (callable == NULL) {
        return;
    }
    PyObject *done = PyObject_CallNoArgs(callable);
    if (done == NULL) {
        atomic_store(&self->wants_room, 1);
        if (keep(all)) {
            done = PyObject_CallNoArgs(callable);
        }
    }
    if (done == NULL && !keep(all)) {
        PyErr_WriteUnraisable(callable);
    }
    Py_XDECREF(done);
    Py_DECREF(callable);
}

/* Only one thread at a time calls it, and once more for those that wanted it
 * meanwhile. */
static void
refill(pyc_channel *self, batch *all)
{
    if (!atomic_load(&self->wants_room) ||
        atomic_fetch_add(&self->refilling, 1) != 0) {
        return;
    }
    uint32_t wanted;
    do {
        wanted = atomic_load(&self->refilling);
        atomic_store(&self->wants_room, 0);
        call_refill(self, all);
    } while (!atomic_compare_exchange_strong(&self->refilling, &wanted, 0));
}

/* What threads that waited have left. */
static void
call_deferred(pyc_channel *self, batch *all)
{
    pyc_lock_take(&self->lock);
    PyObject *list = self->deferred;
    self->deferred = NULL;
    pyc_lock_give(&self->lock);
    const pyc_ending *ending =
        atomic_load_explicit(&self->source.ending, memory_order_relaxed);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *pair = PyList_GET_ITEM(list, i);
        PyObject *future = PyTuple_GET_ITEM(pair, 0);
        if (ending->call(future, Py_NewRef(PyTuple_GET_ITEM(pair, 1))) < 0) {
            not_ended(all, future);
        }
    }
    Py_XDECREF(list);
}

/* Has the collector call what was left to it, or whoever is there in its place:
 * that was put there before it has taken for the last time what was left. */
static void
tell_collector(pyc_channel *self, batch *all)
{
    pyc_lock_take(&self->lock);
    PyObject *relief = Py_XNewRef(self->relief);
    pyc_lock_give(&self->lock);
    if (relief == NULL) {
        pyc_channel_wake(self);
        return;
    }
    PyObject *done = PyObject_CallNoArgs(relief);
    if (done == NULL && !keep(all)) {
        PyErr_WriteUnraisable(relief);
    }
    Py_XDECREF(done);
    Py_DECREF(relief);
}

static void
trim(pyc_queue *queue)
{
    if (pyc_queue_is_empty(queue)) {
        pyc_queue_trim(queue);
    }
}

/* Whether there are results that had come before that number. */
static bool
is_before(pyc_queue *results, uint64_t number)
{
    pyc_ring *ring = &pyc_queue_shared(results)->ring;
    return (int64_t)(number - pyc_ring_number(&ring->out)) > 0;
}

/* Leaves to the collector what is its own. `rc` is what taking results has
 * come to, with an exception set when it is negative. */
static int
leave(pyc_channel *self, batch *all, int rc)
{
    PyObject *pending = rc < 0 ? pyc_take_exception() : NULL;
    if (all->deferred) {
        tell_collector(self, all);
    }
    if (pending == NULL) {
        return rc;
    }
    if (!all->calls && PyErr_GivenExceptionMatches(pending, PyExc_OSError)) {
        Py_DECREF(pending);
        pyc_channel_wake(self);
        return PYC_UNREADABLE;
    }
    pyc_put_exception(pending);
    return rc;
}

Py_ssize_t
pyc_channel_collect(pyc_channel *self, bool calls)
{
    uint64_t end = pyc_ring_number(&pyc_queue_shared(self->results)->ring.in);
    batch all;
    Py_ssize_t ended = 0;
    int rc = 0;
    all.error = NULL;
    all.calls = calls;
    all.deferred = false;
    if (calls && pyc_load(self->deferred) != NULL) {
        call_deferred(self, &all);
    }
    while (is_before(self->results, end) && all.error == NULL) {
        all.n = 0;
        rc = take(self, &all);
        if (rc < 0) {
            break;
        }
        for (int i = 0; i < all.n; i++) {
            ended += all.arrivals[i].future != NULL;
            finish(self, &all, &all.arrivals[i]);
        }
        refill(self, &all);
    }
    if (ended > 0) {
        trim(self->results);
        trim(self->jobs);
    }
    rc = leave(self, &all, rc);
    if (all.error != NULL) {
        pyc_put_exception(all.error);
        return -1;
    }
    return rc < 0 ? rc : ended;
}
