/* SPDX-License-Identifier: MIT */
/* The run cycle: the poll (poll.c), timers, then ready callbacks in bursts
 * until it is time to poll again. */
#include "py/compat.h"
#include "loop/cycle.h"

/* Ready callbacks keep the loop from its poll for this long at most. */
#define BURST_SECONDS 250e-6
/* A look at the clock costs as much as a small callback: one for so many. */
#define CALLBACKS_PER_LOOK 32

/* ---- what others schedule ---------------------------------------------- */

int
pyc_loop_soon(pyc_loop *loop, pyc_soon_fn fn, PyObject *arg)
{
    if (pyc_ring_push(&loop->ready, (void *)fn, arg) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(arg);
    return 0;
}

int
pyc_loop_call_soon(pyc_loop *loop, PyObject *callback, PyObject *const *args,
                   Py_ssize_t nargs, PyObject *context)
{
    pyc_handle *handle = pyc_handle_new(loop, callback, args, nargs, context);
    if (handle == NULL) {
        return -1;
    }
    if (pyc_ring_push(&loop->ready, NULL, handle) < 0) {
        Py_DECREF(handle);
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

void
pyc_ready_clear(pyc_ring *ring)
{
    while (pyc_ring_len(ring) > 0) {
        pyc_ring_item item = pyc_ring_pop(ring);
        Py_DECREF((PyObject *)item.what);
    }
    pyc_ring_free(ring);
}

/* ---- errors ------------------------------------------------------------ */

void
pyc_loop_fail(pyc_loop *loop, PyObject *exc)
{
    if (loop->failure == NULL) {
        loop->failure = exc;
    }
    else {
        Py_DECREF(exc);
    }
}

static PyObject *
failure_context(pyc_state *state, const char *message, PyObject *exc,
                PyObject *protocol, PyObject *transport)
{
    PyObject *context = PyDict_New();
    PyObject *text = PyUnicode_FromString(message);
    if (context == NULL || text == NULL ||
        PyDict_SetItem(context, state->str_message, text) < 0 ||
        PyDict_SetItem(context, state->str_exception, exc) < 0 ||
        (transport != NULL &&
         PyDict_SetItem(context, state->str_transport, transport) < 0) ||
        (protocol != NULL &&
         PyDict_SetItem(context, state->str_protocol, protocol) < 0)) {
        Py_CLEAR(context);
    }
    Py_XDECREF(text);
    return context;
}

void
pyc_loop_report(pyc_loop *loop, const char *message, PyObject *protocol,
                PyObject *transport)
{
    PyObject *exc = pyc_take_exception();
    if (PyErr_GivenExceptionMatches(exc, PyExc_SystemExit) ||
        PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)) {
        pyc_loop_fail(loop, exc);
        return;
    }
    PyObject *done = NULL;
    PyObject *context =
        failure_context(loop->state, message, exc, protocol, transport);
    if (context != NULL) {
        done = PyObject_CallMethodOneArg(
            (PyObject *)loop, loop->state->str_call_exception_handler, context);
        Py_DECREF(context);
    }
    if (done == NULL) {
        pyc_loop_fail(loop, pyc_take_exception());
    }
    Py_XDECREF(done);
    Py_DECREF(exc);
}

/* ---- the cycle --------------------------------------------------------- */

/* Runs the first `count` ready callbacks. */
static void
run_ready(pyc_loop *loop, size_t count)
{
    for (; count > 0 && loop->failure == NULL; count--) {
        if (PYC_UNLIKELY(pyc_loop_forked(loop))) {
            break;
        }
        pyc_ring_item item = pyc_ring_pop(&loop->ready);
        if (item.run == NULL) {
            pyc_handle_run(item.what);
            pyc_handle_done(item.what);
        }
        else {
            ((pyc_soon_fn)item.run)(loop, item.what);
            Py_DECREF((PyObject *)item.what);
        }
    }
}

static void
run_burst(pyc_loop *loop)
{
    double end = 0;
    size_t looked = 0;
    pyc_timers_take_due(loop, loop->timers.len > 0 ? pyc_loop_time() : 0);
    while (!loop->stopping && loop->failure == NULL && !pyc_loop_forked(loop)) {
        size_t count = pyc_ring_len(&loop->ready);
        run_ready(loop, count);
        looked += count;
        pyc_inbox_drain(loop);
        if (looked >= CALLBACKS_PER_LOOK) {
            double now = pyc_loop_time();
            looked = 0;
            if (end == 0) {
                end = now + BURST_SECONDS;
            }
            else if (now >= end) {
                return;
            }
            pyc_timers_take_due(loop, now);
        }
        if (pyc_ring_len(&loop->ready) == 0 || loop->poll_wanted) {
            return;
        }
    }
}

/* Nothing may stay out of the collector's sight in a loop that stands still:
 * it can become garbage as it is. */
static void
track_scheduled(pyc_loop *loop)
{
    for (size_t at = loop->ready.head; at != loop->ready.tail; at++) {
        pyc_ring_item *item = &loop->ready.items[at & loop->ready.mask];
        if (item->run == NULL) {
            pyc_handle_track(item->what);
        }
    }
    for (size_t i = 0; i < loop->timers.len; i++) {
        pyc_handle_track(loop->timers.items[i].what);
    }
}

static void
take_due(pyc_loop *loop)
{
    if (loop->timers.len > 0) {
        pyc_timers_take_due(loop, pyc_loop_time());
    }
}

/* One turn: the poll, then what is ready. Of that only the first `batch`, which
 * was there before, when it is the last turn. */
static void
turn(pyc_loop *loop, size_t batch)
{
    if (PYC_UNLIKELY(pyc_loop_check_usable(loop) < 0)) {
        pyc_loop_fail(loop, pyc_take_exception()); /* a callback has forked */
        return;
    }
    pyc_inbox_drain(loop);
    pyc_poll(loop);
    if (PYC_UNLIKELY(loop->stopping)) {
        run_ready(loop, batch);
        return;
    }
    pyc_inbox_drain(loop);
    run_burst(loop);
}

PyObject *
pyc_cycle_run(pyc_loop *loop)
{
    pyc_inbox_drain(loop);
    take_due(loop);
    size_t batch = pyc_ring_len(&loop->ready);
    if (loop->stopping) {
        /* stop() came first: a single turn, as asyncio's. */
        turn(loop, batch);
    }
    else {
        /* What has been scheduled comes before the I/O that waits. When it
         * stops the loop, the turn's poll is still due. */
        run_ready(loop, batch);
        do {
            if (loop->failure != NULL) {
                break;
            }
            turn(loop, loop->stopping ? 0 : pyc_ring_len(&loop->ready));
        } while (!loop->stopping);
    }
    if (!pyc_loop_forked(loop)) {
        pyc_poll_flush(loop);
    }
    pyc_handle_forget_contexts(loop);
    pyc_inbox_drain(loop);
    track_scheduled(loop);
    loop->stopping = 0;
    if (loop->failure != NULL) {
        PyObject *exc = loop->failure;
        loop->failure = NULL;
        pyc_put_exception(exc);
        return NULL;
    }
    Py_RETURN_NONE;
}
