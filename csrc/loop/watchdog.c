/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "base/futex.h"
#include "loop/watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

/* The limit has passed when so many looks in a row found the same callback.
 * (Not by the clock alone: the process may have been stopped meanwhile.) */
#define LOOKS 4
#define LOOK_MIN_NS 250000
#define LIMIT_MAX 1e9 /* seconds: far from what the clock cannot count */

/* Bits of pyc_watchdog.state. */
#define AWAKE 1u  /* the loop is, and may be held */
#define PARKED 2u /* the thread sleeps until the loop is awake */
#define ENDED 4u  /* the thread is to end */

/* What the Python side is told; it knows the numbers too. */
enum { HOLDS, HELD_UNSEEN, HELD_NO_MORE };

struct pyc_watchdog {
    pyc_loop *loop;     /* borrowed: it ends the thread before it goes */
    PyObject *loop_ref; /* weak: for when it is on its way out already */
    PyInterpreterState *interpreter;
    pthread_t thread;
    int64_t look_ns;
    _Atomic uint32_t state;
    _Atomic uint32_t rises; /* how often the loop has woken up */
    atomic_int attaching;   /* the thread has or wants a thread state */
    atomic_int joined;
    atomic_int orphan; /* the thread has ended its own loop: it frees this */
};

/* ---- the loop's side --------------------------------------------------- */

void
pyc_watchdog_rest(pyc_watchdog *self)
{
    atomic_fetch_and(&self->state, ~AWAKE);
}

void
pyc_watchdog_rise(pyc_watchdog *self)
{
    uint32_t rises = atomic_load_explicit(&self->rises, memory_order_relaxed);
    atomic_store_explicit(&self->rises, rises + 1, memory_order_relaxed);
    if (atomic_fetch_or(&self->state, AWAKE) & PARKED) {
        pyc_futex_wake(&self->state, 1);
    }
}

/* ---- the thread -------------------------------------------------------- */

/* Changes with every callback that begins. */
static size_t
progress(pyc_watchdog *self)
{
    pyc_loop *loop = self->loop;
    return __atomic_load_n(&loop->ready.head, __ATOMIC_RELAXED) +
           atomic_load_explicit(&loop->served, memory_order_relaxed) +
           atomic_load_explicit(&self->rises, memory_order_relaxed);
}

static int
awake(pyc_watchdog *self)
{
    return (atomic_load(&self->state) & AWAKE) != 0;
}

static int
ended(pyc_watchdog *self)
{
    return (atomic_load(&self->state) & ENDED) != 0;
}

static void
tell_python(pyc_watchdog *self, int what, double seconds, double waited)
{
    PyObject *loop = pyc_weakref_get(self->loop_ref);
    if (loop == NULL) {
        return;
    }
    PyObject *done = PyObject_CallMethod(loop, "_watchdog_tells", "idd", what,
                                         seconds, waited);
    if (done == NULL) {
        PyErr_WriteUnraisable(loop);
    }
    Py_XDECREF(done);
    Py_DECREF(loop);
}

/* Says with the GIL what it has seen without, `since` when; false when it is
 * over. */
static int
tell(pyc_watchdog *self, int what, size_t seen, int64_t since)
{
    int64_t found = pyc_clock_now();
    /* One of the two sees the other's store: us, or the one who ends us. */
    atomic_store(&self->attaching, 1);
    if ((what == HELD_NO_MORE || !ended(self)) && !pyc_is_finalizing()) {
        PyThreadState *state = PyThreadState_New(self->interpreter);
        if (state != NULL) {
            PyEval_AcquireThread(state);
            int64_t now = pyc_clock_now();
            if (what == HOLDS && (!awake(self) || progress(self) != seen)) {
                what = HELD_UNSEEN;
            }
            if (what == HELD_NO_MORE || !ended(self)) {
                int64_t last = what == HELD_NO_MORE ? found : now;
                tell_python(self, what, (double)(last - since) * 1e-9,
                            (double)(now - found) * 1e-9);
            }
            PyThreadState_Clear(state);
            PyThreadState_DeleteCurrent();
        }
    }
    atomic_store(&self->attaching, 0);
    return what == HOLDS;
}

/* Sleeps until the loop is awake, which it is not now. */
static void
park(pyc_watchdog *self)
{
    uint32_t asleep = 0;
    if (atomic_compare_exchange_strong(&self->state, &asleep, PARKED)) {
        while (atomic_load(&self->state) == PARKED) {
            pyc_futex_wait(&self->state, PARKED, PYC_NO_DEADLINE);
        }
        atomic_fetch_and(&self->state, ~PARKED);
    }
}

static void *
watch(void *arg)
{
    pyc_watchdog *self = arg;
    size_t seen = 0;
    int64_t since = 0;
    int looks = -1, told = 0; /* -1: there is nothing to compare with */
    while (!ended(self)) {
        int active = awake(self);
        size_t now = progress(self);
        if (told && (!active || now != seen)) {
            told = 0;
            looks = -1;
            (void)tell(self, HELD_NO_MORE, seen, since);
            continue;
        }
        if (!active) {
            looks = -1;
            park(self);
            continue;
        }
        if (looks < 0 || now != seen) {
            seen = now;
            since = pyc_clock_now();
            looks = 0;
        }
        else if (looks < LOOKS && ++looks == LOOKS) {
            told = tell(self, HOLDS, seen, since);
            continue;
        }
        pyc_futex_wait(&self->state, AWAKE, pyc_clock_now() + self->look_ns);
    }
    if (atomic_load(&self->orphan)) {
        free(self);
    }
    else if (told && !pyc_is_finalizing() &&
             (!awake(self) || progress(self) != seen)) {
        /* The loop ended before the next look. */
        (void)tell(self, HELD_NO_MORE, seen, since);
    }
    return NULL;
}

/* ---- its life ---------------------------------------------------------- */

static int
start_thread(pyc_watchdog *self)
{
    /* Signals are the business of the interpreter's threads. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&self->thread, NULL, watch, self);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error == 0) {
        pthread_setname_np(self->thread, "pyconc-watchdog");
    }
    return error;
}

static int
start(pyc_loop *loop)
{
    int error;
    pyc_watchdog *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->loop = loop;
    self->interpreter = PyInterpreterState_Get();
    self->look_ns = (int64_t)(loop->watchdog_limit * 1e9 / LOOKS);
    if (self->look_ns < LOOK_MIN_NS) {
        self->look_ns = LOOK_MIN_NS;
    }
    self->loop_ref = PyWeakref_NewRef((PyObject *)loop, NULL);
    if (self->loop_ref == NULL) {
        goto fail;
    }
    error = start_thread(self);
    if (error != 0) {
        PyErr_Format(PyExc_RuntimeError,
                     "can't start the watchdog's thread: %s", strerror(error));
        goto fail;
    }
    loop->watchdog = self;
    return 0;
fail:
    Py_XDECREF(self->loop_ref);
    free(self);
    return -1;
}

/* True when the thread is gone. */
static int
stop_thread(pyc_watchdog *self)
{
    if (atomic_load(&self->joined) || pyc_loop_forked(self->loop)) {
        return 1; /* a child of fork() has not got it */
    }
    atomic_fetch_or(&self->state, ENDED);
    pyc_futex_wake(&self->state, 1);
    if (pthread_equal(self->thread, pthread_self())) {
        pthread_detach(self->thread);
        Py_CLEAR(self->loop_ref);
        atomic_store(&self->orphan, 1);
        return 0;
    }
    if (pyc_is_finalizing() && atomic_load(&self->attaching)) {
        pthread_detach(self->thread); /* it gets the GIL never again */
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS
    pthread_join(self->thread, NULL);
    Py_END_ALLOW_THREADS
    atomic_store(&self->joined, 1);
    return 1;
}

void
pyc_watchdog_end(pyc_loop *loop)
{
    pyc_watchdog *self = loop->watchdog;
    if (self != NULL) {
        loop->watchdog = NULL;
        if (stop_thread(self)) {
            Py_DECREF(self->loop_ref);
            free(self);
        }
    }
}

int
pyc_watchdog_run_begins(pyc_loop *loop)
{
    if (loop->watchdog == NULL && loop->watchdog_limit > 0 && start(loop) < 0) {
        return -1;
    }
    if (loop->watchdog != NULL) {
        pyc_watchdog_rise(loop->watchdog);
    }
    return 0;
}

/* ---- methods ----------------------------------------------------------- */

PyObject *
pyc_loop_watch(pyc_loop *self, PyObject *limit)
{
    double seconds = PyFloat_AsDouble(limit);
    if ((seconds == -1 && PyErr_Occurred()) ||
        pyc_loop_check_thread(self) < 0) {
        return NULL;
    }
    pyc_watchdog_end(self);
    self->watchdog_limit = seconds < LIMIT_MAX ? seconds : LIMIT_MAX;
    if (self->thread != 0 && pyc_watchdog_run_begins(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
pyc_loop_watched(pyc_loop *self, PyObject *unused)
{
    return PyFloat_FromDouble(self->watchdog_limit);
}

/* Any thread, also while the loop runs: that may touch the struct still. */
PyObject *
pyc_loop_end_watch(pyc_loop *self, PyObject *unused)
{
    if (self->watchdog != NULL) {
        (void)stop_thread(self->watchdog);
    }
    Py_RETURN_NONE;
}
