/* SPDX-License-Identifier: MIT */
/* The poll. libuv keeps the set of descriptors; while nothing in it changes,
 * it is waited on directly, which takes half the instructions of uv_run(). */
#include "py/compat.h"
#include "loop/cycle.h"
#include "loop/watchdog.h"

#include <errno.h>
#include <sys/epoll.h>

/* A deadline this close is waited for awake: sleeping takes longer. */
#define SPIN_SECONDS 20e-6
#define EVENTS_MAX 256
/* So many polls asleep, then one awake to see whether there is always more. */
#define POLLS_ASLEEP 16

/* ---- before ------------------------------------------------------------ */

void
pyc_poll_flush(pyc_loop *loop)
{
    pyc_link todo;
    loop->turn++;
    pyc_link_move(&loop->flushes, &todo);
    while (!pyc_link_alone(&todo)) {
        pyc_flush *flush = pyc_container(todo.next, pyc_flush, link);
        pyc_link_remove(&flush->link);
        flush->run(flush);
    }
}

static int
nothing_to_run(pyc_loop *loop)
{
    return !loop->stopping && loop->failure == NULL &&
           pyc_ring_len(&loop->ready) == 0 && pyc_link_alone(&loop->flushes);
}

/* Without a descriptor left to be woken by, the loop looks again and again. */
static int
nap(void)
{
    PyErr_Clear();
    Py_BEGIN_ALLOW_THREADS
    uv_sleep(1);
    Py_END_ALLOW_THREADS
    return 0;
}

/* Whether the timers let the poll sleep; sets the deadline to wake up at. */
static int
timers_allow_sleep(pyc_loop *loop)
{
    double next = pyc_timers_next(loop);
    if (next != next) {
        return 1;
    }
    if (next - pyc_loop_time() < SPIN_SECONDS) {
        return 0;
    }
    if (pyc_timers_wake_at(loop, next) < 0) {
        return nap();
    }
    return 1;
}

static void
on_wake(pyc_watcher *watcher, int events)
{
    pyc_wake_clear(watcher->fd);
}

/* Whether other threads can end the poll. (libuv's own means for it does not
 * do where others wait on its descriptors: it may tell once only.) */
static int
can_be_woken(pyc_loop *loop)
{
    if (PYC_UNLIKELY(loop->wake == NULL)) {
        loop->wake = pyc_watcher_open_own(loop, pyc_wake_open(), on_wake);
        if (loop->wake == NULL) {
            return nap();
        }
    }
    return 1;
}

/* Signal handlers of Python run between callbacks where they can, since what
 * they raise inside of one would be taken for its failure. */
static void
check_signals(pyc_loop *loop)
{
    if (PYC_UNLIKELY(PyErr_CheckSignals() < 0)) {
        pyc_loop_fail(loop, pyc_take_exception());
    }
}

void
pyc_loop_wake_up(pyc_loop *loop)
{
    atomic_store_explicit(&loop->polling, 0, memory_order_relaxed);
    PyEval_RestoreThread(loop->saved);
    loop->saved = NULL;
    if (PYC_UNLIKELY(loop->watchdog != NULL)) {
        pyc_watchdog_rise(loop->watchdog);
    }
    if (PYC_UNLIKELY(!pyc_link_alone(&loop->late))) {
        pyc_watcher_catch_up(loop);
    }
    check_signals(loop);
}

/* ---- events ------------------------------------------------------------ */

/* Has to be called before each uv_run(), with the GIL. */
static void
before_uv_run(pyc_loop *loop)
{
    pyc_watcher_check_fresh(loop);
    loop->uv_wanted = 0;
}

/* Whose event it is; NULL when it is for libuv: one of its own descriptors, or
 * an error. (Should it ever put something else than the descriptor into an
 * event, that is no small number.) */
static pyc_watcher *
watcher_of(const pyc_loop *loop, const struct epoll_event *event)
{
    if (event->data.u64 >= loop->watchers_size ||
        (event->events & ~(uint32_t)(EPOLLIN | EPOLLOUT)) != 0) {
        return NULL;
    }
    return loop->watchers[event->data.u64];
}

static void
dispatch(pyc_loop *loop, const struct epoll_event *events, int count)
{
    pyc_watcher *watchers[EVENTS_MAX];
    int rest = 0;
    for (int i = 0; i < count; i++) {
        watchers[i] = watcher_of(loop, &events[i]);
        rest |= watchers[i] == NULL;
    }
    for (int i = 0; i < count; i++) {
        /* One callback may close the watcher of another, whose memory libuv
         * keeps until it runs, or start it anew: the event is of before. */
        if (watchers[i] != NULL &&
            watchers[i] == loop->watchers[events[i].data.u64] &&
            pyc_link_alone(&watchers[i]->fresh)) {
            int readable = events[i].events & EPOLLIN ? UV_READABLE : 0;
            int writable = events[i].events & EPOLLOUT ? UV_WRITABLE : 0;
            pyc_watcher_ready(watchers[i], readable | writable);
        }
    }
    if (PYC_UNLIKELY(rest) && !pyc_loop_forked(loop)) {
        before_uv_run(loop);
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
}

/* Waits for events, at most `timeout` milliseconds (-1: until there are some),
 * and handles them; how many there were. */
static int
poll_set(pyc_loop *loop, int timeout)
{
    struct epoll_event events[EVENTS_MAX];
    int count =
        epoll_wait(uv_backend_fd(&loop->uv), events, EVENTS_MAX, timeout);
    pyc_loop_enter(loop);
    if (count > 0) {
        dispatch(loop, events, count);
    }
    return count;
}

static int
poll_awake(pyc_loop *loop)
{
    check_signals(loop);
    if (!loop->uv_wanted) {
        return poll_set(loop, 0) > 0;
    }
    before_uv_run(loop);
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    return 0;
}

static void
poll_asleep(pyc_loop *loop)
{
    atomic_store(&loop->polling, 1);
    if (atomic_load(&loop->inbox.len) > 0) {
        atomic_store(&loop->polling, 0);
        (void)poll_awake(loop);
        return;
    }
    int uv_wanted = loop->uv_wanted;
    if (uv_wanted) {
        before_uv_run(loop);
    }
    if (PYC_UNLIKELY(loop->watchdog != NULL)) {
        pyc_watchdog_rest(loop->watchdog);
    }
    loop->saved = PyThreadState_Get(); /* while we have the GIL still */
    PyEval_SaveThread();
    if (uv_wanted) {
        uv_run(&loop->uv, UV_RUN_ONCE);
        pyc_loop_enter(loop);
        return;
    }
    int count = poll_set(loop, -1);
    if (count > 1 || ++loop->polls_asleep >= POLLS_ASLEEP) {
        loop->polls_asleep = 0;
        loop->poll_awake = 1;
    }
}

void
pyc_poll(pyc_loop *loop)
{
    pyc_poll_flush(loop);
    if (PYC_FREE_THREADED && !pyc_link_alone(&loop->late)) {
        pyc_watcher_catch_up(loop); /* asked for while it was awake, too */
    }
    loop->poll_wanted = 0;
    int sleep = nothing_to_run(loop);
    if (sleep) {
        pyc_handle_forget_contexts(loop);
        sleep = nothing_to_run(loop); /* what was in them may have a __del__ */
    }
    if (sleep && loop->poll_awake && !loop->uv_wanted && pyc_only_thread()) {
        /* Giving the GIL away and taking it back costs more than a look. */
        if (poll_awake(loop)) {
            return;
        }
        loop->poll_awake = 0;
        sleep = nothing_to_run(loop);
    }
    if (sleep && timers_allow_sleep(loop) && can_be_woken(loop)) {
        poll_asleep(loop);
    }
    else {
        (void)poll_awake(loop);
    }
}
