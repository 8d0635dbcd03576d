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
    bool calls;
    bool deferred;   /* callbacks, to be called by the collector */
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

/* Takes the callbacks over. */
static void
defer(pyc_channel *self, batch *all, PyObject *future, PyObject *callbacks)
{
    int rc = -1;
    pyc_lock_take(&self->lock);
    if (self->deferred == NULL) {
        self->deferred = PyList_New(0);
    }
    if (self->deferred != NULL && PyList_Append(self->deferred, future) == 0) {
        rc = PyList_Append(self->deferred, callbacks);
        if (rc < 0) {
            PyList_SetSlice(self->deferred, PyList_GET_SIZE(self->deferred) - 1,
                            PyList_GET_SIZE(self->deferred), NULL);
        }
    }
    pyc_lock_give(&self->lock);
    Py_DECREF(callbacks);
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

static void
finish(pyc_channel *self, batch *all, arrival *one)
{
    if (one->call.future == NULL) {
        pyc_queue_discard(self->results, &one->taken);
        return;
    }
    PyObject *future = one->call.future;
    bool failed = one->taken.frame.failed != 0;
    PyObject *value = pyc_queue_finish(self->results, &one->taken);
    if (value == NULL || failed) {
        failed = true;
        value = exception_of(value);
    }
    int rc = end_quickly(self, all, future, value, failed);
    if (rc == 0) {
        rc = end_by_method(self->state, future, value, failed);
    }
    Py_DECREF(value);
    if (rc < 0) {
        not_ended(all, future);
    }
    pyc_call_clear(&one->call);
}

/* Only one thread at a time calls it, and once more for those that wanted it
 * meanwhile. */
static void
refill(pyc_channel *self)
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
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i += 2) {
        PyObject *future = PyList_GET_ITEM(list, i);
        PyObject *callbacks = Py_NewRef(PyList_GET_ITEM(list, i + 1));
        if (ending->call(future, callbacks) < 0) {
            not_ended(all, future);
        }
    }
    Py_XDECREF(list);
}

Py_ssize_t
pyc_channel_collect(pyc_channel *self, bool calls)
{
    batch all;
    Py_ssize_t ended = 0;
    int rc = 0;
    all.error = NULL;
    all.calls = calls;
    all.deferred = false;
    if (calls && pyc_load(self->deferred) != NULL) {
        call_deferred(self, &all);
    }
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
        refill(self);
    }
    if (all.deferred) {
        pyc_channel_wake(self);
    }
    if (all.error != NULL) {
        pyc_put_exception(all.error);
        return -1;
    }
    return rc < 0 ? -1 : ended;
}
