/* SPDX-License-Identifier: MIT */
/* Results into Futures. */
#include "ipc/channel.h"

#define BATCH_MOST 64
#define BATCH_WEIGHT (UINT64_C(1) << 20) /* about their bytes */

/* A result and what it is for. */
typedef struct {
    pyc_taken taken;
    pyc_call call; /* without a future: nobody waits for it any longer */
} arrival;

typedef struct {
    arrival arrivals[BATCH_MOST];
    int n;
    PyObject *error; /* the first that a callback raised, no Exception */
} batch;

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
        pyc_channel_end(self, next->taken.frame.task, &next->call);
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

/* Why there is no result, or the exception that the result is. Steals the
 * value, NULL with an exception set. */
static PyObject *
exception_of(PyObject *value)
{
    static const char *note =
        "It came while what a worker process sent was unpickled.";
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
    PyObject *noted = PyObject_CallMethod(error, "add_note", "s", note);
    if (noted == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(noted);
    return error;
}

/* A Future that was ended by others meanwhile, as cancel() may, is no error. */
static void
not_ended(batch *all, PyObject *future)
{
    PyObject *error = pyc_take_exception();
    PyObject *done = PyObject_CallMethod(future, "done", NULL);
    if (!PyErr_GivenExceptionMatches(error, PyExc_Exception) &&
        all->error == NULL) {
        all->error = Py_NewRef(error);
    }
    else if (done != Py_True) {
        PyErr_Clear();
        pyc_put_exception(Py_NewRef(error));
        PyErr_WriteUnraisable(future);
    }
    PyErr_Clear();
    Py_XDECREF(done);
    Py_DECREF(error);
}

static void
finish(pyc_channel *self, batch *all, arrival *one)
{
    if (one->call.future == NULL) {
        pyc_queue_discard(self->results, &one->taken);
        return;
    }
    pyc_ipc *state = self->state;
    bool failed = one->taken.frame.failed != 0;
    PyObject *value = pyc_queue_finish(self->results, &one->taken);
    if (value == NULL || failed) {
        failed = true;
        value = exception_of(value);
    }
    PyObject *done = PyObject_CallMethodOneArg(
        one->call.future,
        failed ? state->str_set_exception : state->str_set_result, value);
    Py_DECREF(value);
    if (done == NULL) {
        not_ended(all, one->call.future);
    }
    Py_XDECREF(done);
    pyc_call_clear(&one->call);
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
        PyObject *callable = NULL, *done = NULL;
        pyc_lock_take(&self->lock);
        callable = Py_XNewRef(self->refill);
        pyc_lock_give(&self->lock);
        if (callable != NULL) {
            done = PyObject_CallNoArgs(callable);
            if (done == NULL) {
                PyErr_WriteUnraisable(callable);
            }
        }
        Py_XDECREF(done);
        Py_XDECREF(callable);
    } while (!atomic_compare_exchange_strong(&self->refilling, &wanted, 0));
}

Py_ssize_t
pyc_channel_collect(pyc_channel *self)
{
    batch all;
    Py_ssize_t ended = 0;
    int rc = 0;
    all.error = NULL;
    while (!pyc_queue_is_empty(self->results) && all.error == NULL) {
        all.n = 0;
        rc = take(self, &all);
        if (rc < 0) {
            break;
        }
        for (int i = 0; i < all.n; i++) {
            ended += all.arrivals[i].call.future != NULL;
            finish(self, &all, &all.arrivals[i]);
        }
        refill(self, &all);
    }
    if (all.error != NULL) {
        pyc_put_exception(all.error);
        return -1;
    }
    return rc < 0 ? -1 : ended;
}
