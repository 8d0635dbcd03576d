/* SPDX-License-Identifier: MIT */
/* Who of the parent's threads waits for results.
 *
 * A thread that waits for a Future drives: it sleeps at the gate of the results
 * and ends Futures, until its own one is over. Others that wait meanwhile sleep
 * on their Futures' words. Where nobody drives it is the collector, a thread of
 * the pool, that a worker wakes. */
#include "ipc/channel.h"

#include "ipc/sleep.h"

#include <errno.h>
#include <limits.h>

typedef struct {
    _Atomic uint32_t *word;
    uint32_t expected;
} change;

static pyc_channel *
channel_of(pyc_source *source)
{
    return pyc_container(source, pyc_channel, source);
}

static bool
has_changed(const change *what)
{
    return atomic_load(what->word) != what->expected;
}

static bool
is_ready(pyc_queue *results, uint64_t what)
{
    return has_changed((const change *)(uintptr_t)what) ||
           !pyc_queue_is_empty(results);
}

/* Workers need not wake the driver: it is awake. */
static void
retract(pyc_gate *gate)
{
    atomic_fetch_and(&gate->word, ~1u);
}

static int
sleep_beside(const change *what, int64_t deadline)
{
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pyc_futex_wait(what->word, what->expected, deadline);
    Py_END_ALLOW_THREADS
    return rc;
}

/* 0, or an error as wait() has it. */
static int
drive(pyc_channel *self, const change *what, int64_t deadline)
{
    pyc_queue *results = self->results;
    pyc_gate *gate = &pyc_queue_shared(results)->items;
    pyc_queue_wish wish = {gate, &results->for_item, is_ready,
                           (uint64_t)(uintptr_t)what};
    for (;;) {
        Py_ssize_t rc = pyc_channel_collect(self, false);
        if (rc < 0) {
            return rc == PYC_UNREADABLE ? sleep_beside(what, deadline)
                                        : -ECANCELED;
        }
        if (has_changed(what)) {
            return 0;
        }
        if (!pyc_queue_is_empty(results)) {
            if (PyErr_CheckSignals() < 0) {
                return -ECANCELED;
            }
            if (pyc_clock_now() >= deadline) {
                return -ETIMEDOUT;
            }
            continue;
        }
        int ready = pyc_queue_wait(results, &wish, deadline);
        retract(gate);
        if (ready <= 0) {
            return ready == 0 ? -ETIMEDOUT : -ECANCELED;
        }
    }
}

/* What came before workers saw that nobody drives is left to nobody else. */
static int
leave(pyc_channel *self, int rc)
{
    atomic_store(&self->board->driven, 0);
    atomic_store(&self->driver, 0);
    atomic_thread_fence(memory_order_seq_cst);
    if (rc == 0 && !pyc_queue_is_empty(self->results) &&
        pyc_channel_collect(self, false) == -1) {
        rc = -ECANCELED;
    }
    if (rc != 0 && !pyc_queue_is_empty(self->results)) {
        pyc_gate_open(&self->board->collector, 1);
    }
    return rc;
}

/* A callback, or a signal's handler, may wait while its thread drives: then it
 * drives as well. */
static int
source_wait(pyc_source *source, _Atomic uint32_t *word, uint32_t expected,
            int64_t deadline)
{
    pyc_channel *self = channel_of(source);
    change what = {word, expected};
    unsigned long me = PyThread_get_thread_ident(), nobody = 0;
    if (self->pid != self->state->pid) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this call's result goes to the process that forked "
                        "this one");
        return -ECANCELED;
    }
    bool is_first = atomic_compare_exchange_strong(&self->driver, &nobody, me);
    if (!is_first && nobody != me) {
        return sleep_beside(&what, deadline);
    }
    Py_INCREF(self);
    atomic_store(&self->board->driven, 1);
    int rc = drive(self, &what, deadline);
    if (is_first) {
        rc = leave(self, rc);
    }
    Py_DECREF(self);
    return rc;
}

static void
source_kick(pyc_source *source)
{
    atomic_thread_fence(memory_order_seq_cst);
    pyc_gate_open(&pyc_queue_shared(channel_of(source)->results)->items,
                  INT_MAX);
}

static int
source_is_running(pyc_source *source, void *future)
{
    pyc_channel *self = channel_of(source);
    if (self->pid != self->state->pid) {
        return 0; /* nor is the lock to be had for sure after a fork */
    }
    uint64_t task = pyc_channel_find(self, future);
    return task != 0 && pyc_channel_is_running(self, task);
}

void
pyc_channel_source(pyc_source *source)
{
    *source = (pyc_source){.wait = source_wait,
                           .kick = source_kick,
                           .is_running = source_is_running};
}

int
pyc_channel_watch(pyc_channel *self, int64_t deadline)
{
    pyc_gate *gate = &self->board->collector;
    uint32_t word = pyc_gate_announce(gate);
    int rc = 0;
    if (pyc_queue_is_empty(self->results) && !atomic_load(&self->called) &&
        deadline != 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = pyc_futex_wait_shared(&gate->word, word, deadline);
        Py_END_ALLOW_THREADS
    }
    retract(gate);
    atomic_exchange(&self->called, 0); /* what was left before it is seen */
    if (rc != 0 && PyErr_CheckSignals() < 0) {
        return -1;
    }
    return !pyc_queue_is_empty(self->results) ||
           pyc_load(self->deferred) != NULL;
}

void
pyc_channel_wake(pyc_channel *self)
{
    atomic_store(&self->called, 1);
    atomic_thread_fence(memory_order_seq_cst);
    pyc_gate_open(&self->board->collector, INT_MAX);
}
