/* SPDX-License-Identifier: MIT */
/* Callbacks from other threads: a ring behind a lock of this loop alone, and
 * one wake for all that arrive while the loop sleeps. */
#include "py/compat.h"
#include "loop/cycle.h"

int
pyc_inbox_init(pyc_inbox *inbox)
{
    if (uv_mutex_init(&inbox->lock) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    atomic_init(&inbox->len, 0);
    return 0;
}

int
pyc_inbox_put(pyc_loop *loop, pyc_handle *handle)
{
    pyc_inbox *inbox = &loop->inbox;
    uv_mutex_lock(&inbox->lock);
    int closed = loop->closed;
    int failed = closed || pyc_ring_push(&inbox->items, NULL, handle) < 0;
    if (!failed) {
        /* Pairs with the loop, which sets `polling` before it looks at `len`
         * for the last time: one of the two sees the other's store. */
        atomic_fetch_add(&inbox->len, 1);
        if (atomic_load(&loop->polling)) {
            atomic_store(&loop->polling, 0);
            pyc_wake_set(loop->wake->fd);
        }
    }
    uv_mutex_unlock(&inbox->lock);
    if (failed) {
        Py_DECREF(handle);
        if (closed) {
            PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        }
        else {
            PyErr_NoMemory();
        }
        return -1;
    }
    return 0;
}

void
pyc_inbox_drain(pyc_loop *loop)
{
    pyc_inbox *inbox = &loop->inbox;
    if (atomic_load_explicit(&inbox->len, memory_order_acquire) == 0) {
        return;
    }
    uv_mutex_lock(&inbox->lock);
    int failed = 0;
    while (pyc_ring_len(&inbox->items) > 0 && !failed) {
        pyc_ring_item item =
            inbox->items.items[inbox->items.head & inbox->items.mask];
        failed = pyc_ring_push(&loop->ready, item.run, item.what) < 0;
        inbox->items.head += !failed;
    }
    atomic_store(&inbox->len, pyc_ring_len(&inbox->items));
    uv_mutex_unlock(&inbox->lock);
    if (failed) {
        PyErr_NoMemory();
        pyc_loop_fail(loop, pyc_take_exception());
    }
}

void
pyc_inbox_free(pyc_inbox *inbox)
{
    pyc_ready_clear(&inbox->items);
    uv_mutex_destroy(&inbox->lock);
}
