/* SPDX-License-Identifier: MIT */
/* The run cycle and its parts, for the files of this folder alone. */
#ifndef PYC_LOOP_CYCLE_H
#define PYC_LOOP_CYCLE_H

#include "py/compat.h"
#include "loop/handle.h"
#include "loop/loop.h"

/* Runs until stop() or a failure; None, or NULL with the failure raised. */
PyObject *pyc_cycle_run(pyc_loop *loop);

/* poll.c: what is due before a poll, and a poll with it. */
void pyc_poll_flush(pyc_loop *loop);
void pyc_poll(pyc_loop *loop);

/* Has Python sort out the arguments of a method: its `function` calls the
 * method again with all of them in place, or raises what a wrong call raises.
 */
PyObject *pyc_loop_by_name(pyc_loop *loop, const char *function,
                           PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);

/* Timers (timers.c). */
/* Counts a cancelled one that is in the heap, in any thread. */
static inline void
pyc_timers_count_cancelled(pyc_loop *loop)
{
    if (PYC_FREE_THREADED) {
        atomic_fetch_add(&loop->timers_cancelled, 1);
        return;
    }
    atomic_store_explicit(
        &loop->timers_cancelled,
        atomic_load_explicit(&loop->timers_cancelled, memory_order_relaxed) + 1,
        memory_order_relaxed);
}
int pyc_timers_add(pyc_loop *loop, pyc_timer_handle *timer);
void pyc_timers_take_due(pyc_loop *loop, double now);
/* When the next one is due; not a number when there is none. */
double pyc_timers_next(pyc_loop *loop);
/* Has the poll end at `when`; 0, or -1 with an exception. */
int pyc_timers_wake_at(pyc_loop *loop, double when);
void pyc_timers_clear(pyc_loop *loop);

/* Callbacks from other threads (inbox.c). */
int pyc_inbox_init(pyc_inbox *inbox);
/* Any thread with the GIL. Steals a reference to handle; 0, or -1 with an
 * exception. */
int pyc_inbox_put(pyc_loop *loop, pyc_handle *handle);
void pyc_inbox_drain(pyc_loop *loop);
void pyc_inbox_free(pyc_inbox *inbox);

/* watcher.c */
/* Its descriptor is ready: for what libuv itself has not been asked about. */
void pyc_watcher_ready(pyc_watcher *watcher, int events);
/* One that reads `fd`, a new descriptor of the loop's own (-1: the error is in
 * errno). NULL with OSError, and `fd` closed. */
pyc_watcher *pyc_watcher_open_own(pyc_loop *loop, int fd, pyc_watcher_fn ready);
/* Closes both; *watcher may be NULL already. */
void pyc_watcher_close_own(pyc_watcher **watcher);
void pyc_watcher_check_fresh(pyc_loop *loop);
/* After pyc_watcher_clear(), with loop->watching taken. */
void pyc_watcher_close_all(pyc_loop *loop);
/* Does what other threads asked for during the poll. */
void pyc_watcher_catch_up(pyc_loop *loop);
int pyc_watcher_traverse(pyc_loop *loop, visitproc visit, void *arg);
/* Lets go of what the watchers keep alive. */
void pyc_watcher_clear(pyc_loop *loop);

/* Drops the items of a ring of callbacks without running them. */
void pyc_ready_clear(pyc_ring *ring);

#endif
