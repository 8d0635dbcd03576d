/* SPDX-License-Identifier: MIT */
/* Timers: a heap in which a cancelled one stays until it reaches the top or
 * the cancelled are the majority. */
#include "py/compat.h"
#include "base/deadline.h"
#include "loop/cycle.h"

#include <math.h>

#define CANCELLED_MIN 64 /* fewer are not worth a clean-up */

double
pyc_loop_time(void)
{
    return pyc_clock();
}

static void
let_go(pyc_timer_handle *timer)
{
    timer->handle.scheduled = 0;
    if (Py_REFCNT(timer) > 1) {
        pyc_handle_track(&timer->handle);
    }
    Py_DECREF(timer);
}

static void
drop(pyc_loop *loop, pyc_timer_handle *timer)
{
    if (loop->timers_cancelled > 0) {
        loop->timers_cancelled--;
    }
    let_go(timer);
}

static void
drop_cancelled(pyc_loop *loop)
{
    pyc_heap *heap = &loop->timers;
    size_t kept = 0, dropped = 0;
    pyc_timer_handle **cancelled = malloc(heap->len * sizeof(*cancelled));
    if (cancelled == NULL) {
        return; /* they leave one by one instead */
    }
    for (size_t i = 0; i < heap->len; i++) {
        pyc_timer_handle *timer = heap->items[i].what;
        if (timer->handle.cancelled) {
            cancelled[dropped++] = timer;
        }
        else {
            heap->items[kept++] = heap->items[i];
        }
    }
    heap->len = kept;
    pyc_heap_rebuild(heap);
    loop->timers_cancelled = 0;
    /* Last, since a handle that dies may run Python code that adds timers. */
    while (dropped > 0) {
        let_go(cancelled[--dropped]);
    }
    free(cancelled);
}

int
pyc_timers_add(pyc_loop *loop, pyc_timer_handle *timer)
{
    if (pyc_heap_push(&loop->timers, timer->when, timer) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    timer->handle.scheduled = 1;
    Py_INCREF(timer);
    return 0;
}

void
pyc_timers_take_due(pyc_loop *loop, double now)
{
    pyc_heap *heap = &loop->timers;
    if (loop->timers_cancelled > CANCELLED_MIN &&
        loop->timers_cancelled > heap->len / 2) {
        drop_cancelled(loop);
    }
    while (heap->len > 0) {
        pyc_timer_handle *timer = heap->items[0].what;
        if (timer->when > now && !timer->handle.cancelled) {
            break;
        }
        pyc_heap_pop(heap);
        if (timer->handle.cancelled) {
            drop(loop, timer);
            continue;
        }
        timer->handle.scheduled = 0;
        if (pyc_ring_push(&loop->ready, NULL, timer) < 0) {
            PyErr_NoMemory();
            pyc_loop_fail(loop, pyc_take_exception());
            Py_DECREF(timer);
            break;
        }
    }
}

double
pyc_timers_next(pyc_loop *loop)
{
    return loop->timers.len == 0 ? NAN : loop->timers.items[0].when;
}

static void
on_deadline(pyc_watcher *watcher, int events)
{
    pyc_deadline_clear(watcher->fd);
    watcher->loop->deadline_armed = 0;
}

int
pyc_timers_wake_at(pyc_loop *loop, double when)
{
    if (loop->deadline_armed != 0 && loop->deadline_armed <= when) {
        return 0; /* it wakes us too early at most: cheaper than setting it */
    }
    if (loop->deadline == NULL) {
        loop->deadline =
            pyc_watcher_open_own(loop, pyc_deadline_open(), on_deadline);
        if (loop->deadline == NULL) {
            return -1;
        }
    }
    if (pyc_deadline_arm(loop->deadline->fd, when) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    loop->deadline_armed = when;
    return 0;
}

/* After the loop's watchers are closed, or in tp_clear. */
void
pyc_timers_clear(pyc_loop *loop)
{
    pyc_heap heap = loop->timers;
    loop->timers = (pyc_heap){0};
    loop->timers_cancelled = 0;
    for (size_t i = 0; i < heap.len; i++) {
        pyc_timer_handle *timer = heap.items[i].what;
        timer->handle.scheduled = 0;
        Py_DECREF(timer);
    }
    pyc_heap_free(&heap);
}
