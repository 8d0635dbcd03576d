/* SPDX-License-Identifier: MIT */
/* How a queue takes, gives and waits. */
#include "sync/queue/queue.h"

static int
raise_shutdown(pyc_thread_queue *self)
{
    PyErr_SetNone(self->module->queue_ShutDown);
    return -1;
}

static inline int
has_room(pyc_thread_queue *self)
{
    return self->maxsize <= 0 || self->store.count < self->maxsize;
}

static int
heap_attempt(pyc_wait *wait, int join)
{
    pyc_thread_queue *self = (pyc_thread_queue *)wait->subject;
    return pyc_mutex_attempt(&self->heap, &wait->waiter, join);
}

static int
heap_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    pyc_mutex_leave(&((pyc_thread_queue *)wait->subject)->heap, &wait->waiter);
    return 0;
}

/* Keeps all others from the heap: 0, or -1 when a signal handler raised. */
static int
enter_heap(pyc_thread_queue *self)
{
    static const pyc_operation entering = {
        .attempt = heap_attempt,
        .leave = heap_leave,
        .steps_aside = 1,
    };
    if (PYC_LIKELY(pyc_mutex_try(&self->heap))) {
        return 0;
    }
    pyc_wait wait = {.operation = &entering,
                     .module = self->module,
                     .subject = (PyObject *)self};
    return pyc_wait_block(&wait, PYC_NO_DEADLINE) < 0 ? -1 : 0;
}

static inline int
is_heap(pyc_thread_queue *self)
{
    return pyc_load(self->order) == PYC_PRIORITY;
}

static inline int
enter(pyc_thread_queue *self)
{
    return is_heap(self) ? enter_heap(self) : 0;
}

static inline void
leave(pyc_thread_queue *self)
{
    if (is_heap(self)) {
        pyc_mutex_release(&self->heap);
    }
}

/* Under the guard: who is to be woken, if what it waits for is there. */
static pyc_wakeup
next_getter(void *op, pyc_waiter *Py_UNUSED(missed))
{
    pyc_thread_queue *self = op;
    return self->store.count > 0
               ? pyc_waiters_pop(&self->getters, PYC_TRY_AGAIN)
               : (pyc_wakeup){NULL, NULL, NULL};
}

static pyc_wakeup
next_putter(void *op, pyc_waiter *Py_UNUSED(missed))
{
    pyc_thread_queue *self = op;
    return has_room(self) ? pyc_waiters_pop(&self->putters, PYC_TRY_AGAIN)
                          : (pyc_wakeup){NULL, NULL, NULL};
}

static void
wake(pyc_thread_queue *self, pyc_waiters *waiters, pyc_redirect next)
{
    pyc_lock_take(&self->guard);
    pyc_wakeup wakeup = next(self, NULL);
    pyc_lock_give(&self->guard);
    pyc_wakeup_send(&wakeup, waiters, &self->guard, next, self);
}

static void
wake_getter(pyc_thread_queue *self)
{
    wake(self, &self->getters, next_getter);
}

static void
wake_putter(pyc_thread_queue *self)
{
    wake(self, &self->putters, next_putter);
}

/* Stands in no queue any more, and passes its wake on. */
static void
give_up(pyc_thread_queue *self, pyc_waiter *waiter,
        void (*wake_next)(pyc_thread_queue *))
{
    pyc_lock_take(&self->guard);
    int stood = pyc_waiter_leave(waiter);
    pyc_lock_give(&self->guard);
    if (!stood) {
        wake_next(self);
    }
}

/* enter() for an attempt of `waiter`, which may be NULL. */
static inline int
enter_for(pyc_thread_queue *self, pyc_waiter *waiter,
          void (*wake_next)(pyc_thread_queue *))
{
    if (PYC_LIKELY(enter(self) == 0)) {
        return 0;
    }
    if (waiter != NULL) {
        give_up(self, waiter, wake_next);
    }
    return -1;
}

/* Under the guard: 1 when there is an item, 0, PYC_OPEN or -1 (without an
 * exception) when it was shut down. */
static inline int
look(pyc_thread_queue *self)
{
    return PYC_UNLIKELY(self->is_open)         ? PYC_OPEN
           : PYC_LIKELY(self->store.count > 0) ? 1
           : self->is_shutdown                 ? -1
                                               : 0;
}

/* In the heap: NULL when a comparison raises. */
static PyObject *
pop_least(pyc_thread_queue *self)
{
    pyc_heap_way way;
    if (pyc_store_heap_way(&self->store, &way) < 0) {
        return NULL;
    }
    pyc_lock_take(&self->guard);
    PyObject *least = pyc_store_heap_remove(&self->store, &way);
    pyc_lock_give(&self->guard);
    return least;
}

/* With `waiter`, which may be NULL, standing in the queue if it must. */
static inline int
get(pyc_thread_queue *self, PyObject **item, pyc_waiter *waiter, int join)
{
    PyObject *got = NULL;
    if (enter_for(self, waiter, wake_getter) < 0) {
        return -1;
    }
    pyc_lock_take(&self->guard);
    if (waiter != NULL) {
        pyc_waiter_leave(waiter);
    }
    int rc = look(self);
    if (PYC_LIKELY(rc == 1)) {
        int order = pyc_load(self->order);
        if (order == PYC_FIFO) {
            got = pyc_store_pop_first(&self->store);
        }
        else if (order == PYC_LIFO) {
            got = pyc_store_pop_last(&self->store);
        }
    }
    else if (rc == 0 && join) {
        pyc_waiters_join(&self->getters, waiter);
    }
    int wakes = rc == 1 && self->putters.length > 0;
    pyc_lock_give(&self->guard);
    if (rc == 1 && got == NULL) {
        got = pop_least(self);
        if (got == NULL) {
            leave(self);
            return -1;
        }
    }
    leave(self);
    *item = got;
    if (PYC_UNLIKELY(wakes)) {
        wake_putter(self);
    }
    return rc < 0 ? raise_shutdown(self) : rc;
}

/* Under the guard, as look(). */
static inline int
look_for_room(pyc_thread_queue *self)
{
    return PYC_UNLIKELY(self->is_open)       ? PYC_OPEN
           : PYC_UNLIKELY(self->is_shutdown) ? -1
                                             : has_room(self);
}

/* In the heap: 0, or -1 with an exception set. */
static int
push_sorted(pyc_thread_queue *self, PyObject *item)
{
    Py_ssize_t place = pyc_store_heap_place(&self->store, item);
    if (place < 0) {
        return -1;
    }
    pyc_lock_take(&self->guard);
    int failed = pyc_store_heap_insert(&self->store, item, place);
    /* Only now, or a join() could wait for what is never put. */
    pyc_store(self->unfinished, self->unfinished + !failed);
    pyc_lock_give(&self->guard);
    if (failed) {
        PyErr_NoMemory();
    }
    return failed;
}

static inline int
put(pyc_thread_queue *self, PyObject *item, pyc_waiter *waiter, int join)
{
    int failed = 0;
    if (enter_for(self, waiter, wake_putter) < 0) {
        return -1;
    }
    pyc_lock_take(&self->guard);
    if (waiter != NULL) {
        pyc_waiter_leave(waiter);
    }
    int rc = look_for_room(self);
    if (PYC_LIKELY(rc == 1)) {
        if (!is_heap(self)) {
            failed = pyc_store_push(&self->store, item);
            pyc_store(self->unfinished, self->unfinished + !failed);
        }
    }
    else if (rc == 0 && join) {
        pyc_waiters_join(&self->putters, waiter);
    }
    int wakes = rc == 1 && self->getters.length > 0;
    pyc_lock_give(&self->guard);
    if (PYC_UNLIKELY(failed)) {
        PyErr_NoMemory();
    }
    else if (rc == 1 && is_heap(self)) {
        failed = push_sorted(self, item);
    }
    leave(self);
    if (PYC_UNLIKELY(failed)) {
        return -1;
    }
    if (PYC_UNLIKELY(wakes)) {
        wake_getter(self);
    }
    return rc < 0 ? raise_shutdown(self) : rc;
}

int
pyc_thread_queue_try_get(pyc_thread_queue *self, PyObject **item)
{
    return get(self, item, NULL, 0);
}

int
pyc_thread_queue_try_put(pyc_thread_queue *self, PyObject *item)
{
    return put(self, item, NULL, 0);
}

static int
getting_attempt(pyc_wait *wait, int join)
{
    return get((pyc_thread_queue *)wait->subject, &wait->result, &wait->waiter,
               join);
}

static int
getting_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    give_up((pyc_thread_queue *)wait->subject, &wait->waiter, wake_getter);
    return 0;
}

static int
putting_attempt(pyc_wait *wait, int join)
{
    int rc =
        put((pyc_thread_queue *)wait->subject, wait->item, &wait->waiter, join);
    if (rc == 1) {
        wait->result = Py_NewRef(Py_None);
    }
    return rc;
}

static int
putting_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    give_up((pyc_thread_queue *)wait->subject, &wait->waiter, wake_putter);
    return 0;
}

static int
joining_attempt(pyc_wait *wait, int join)
{
    pyc_thread_queue *self = (pyc_thread_queue *)wait->subject;
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(&wait->waiter);
    int rc = self->is_open                                   ? PYC_OPEN
             : self->unfinished <= 0 || wait->waiter.granted ? 1
                                                             : 0;
    if (rc == 0 && join) {
        pyc_waiters_join(&self->joiners, &wait->waiter);
    }
    pyc_lock_give(&self->guard);
    if (rc == 1) {
        wait->result = Py_NewRef(Py_None);
    }
    return rc;
}

static int
joining_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    pyc_thread_queue *self = (pyc_thread_queue *)wait->subject;
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(&wait->waiter);
    pyc_lock_give(&self->guard);
    return 0;
}

const pyc_operation pyc_thread_queue_getting = {
    .attempt = getting_attempt,
    .leave = getting_leave,
    .steps_aside = 1,
    .elsewhere = "_open_get_async",
};
const pyc_operation pyc_thread_queue_putting = {
    .attempt = putting_attempt,
    .leave = putting_leave,
    .steps_aside = 1,
    .elsewhere = "_open_put_async",
};
const pyc_operation pyc_thread_queue_joining = {
    .attempt = joining_attempt,
    .leave = joining_leave,
    .elsewhere = "_open_join_async",
};

int
pyc_thread_queue_block(pyc_thread_queue *self, const pyc_operation *operation,
                       PyObject **item, int64_t deadline)
{
    pyc_wait wait = {.operation = operation,
                     .module = self->module,
                     .subject = (PyObject *)self,
                     .item = *item};
    if (deadline == PYC_TOO_LONG) {
        PyErr_SetString(PyExc_OverflowError, "timeout value is too large");
        return -1;
    }
    int rc = pyc_wait_block(&wait, deadline);
    if (operation == &pyc_thread_queue_getting) {
        *item = wait.result;
    }
    else {
        Py_XDECREF(wait.result);
    }
    return rc;
}

/* Wakes all who stand in the queue now. */
static void
wake_all(pyc_thread_queue *self, pyc_waiters *waiters, pyc_verdict verdict)
{
    pyc_lock_take(&self->guard);
    Py_ssize_t n = waiters->length;
    pyc_lock_give(&self->guard);
    for (; n > 0; n--) {
        pyc_lock_take(&self->guard);
        pyc_wakeup wakeup = pyc_waiters_pop(waiters, verdict);
        pyc_lock_give(&self->guard);
        pyc_wakeup_send(&wakeup, waiters, &self->guard, NULL, NULL);
    }
}

int
pyc_thread_queue_task_done(pyc_thread_queue *self)
{
    pyc_lock_take(&self->guard);
    int rc = self->is_open ? PYC_OPEN : self->unfinished > 0 ? 1 : -1;
    if (rc == 1) {
        pyc_store(self->unfinished, self->unfinished - 1);
    }
    int all_done = rc == 1 && self->unfinished == 0;
    pyc_lock_give(&self->guard);
    if (rc < 0) {
        PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
    }
    if (all_done) {
        wake_all(self, &self->joiners, PYC_GRANTED);
    }
    return rc;
}

int
pyc_thread_queue_size(pyc_thread_queue *self, Py_ssize_t *size)
{
    pyc_lock_take(&self->guard);
    int rc = self->is_open ? PYC_OPEN : 1;
    *size = self->store.count;
    pyc_lock_give(&self->guard);
    return rc;
}

int
pyc_thread_queue_shutdown(pyc_thread_queue *self, int immediate)
{
    pyc_store dropped = {0};
    if (immediate && enter(self) < 0) {
        return -1;
    }
    pyc_lock_take(&self->guard);
    int rc = self->is_open ? PYC_OPEN : 1;
    if (rc == 1) {
        pyc_store(self->is_shutdown, 1);
    }
    if (rc == 1 && immediate) {
        dropped = self->store;
        self->store = (pyc_store){0};
        pyc_store(self->unfinished,
                  Py_MAX(self->unfinished - dropped.count, 0));
    }
    pyc_lock_give(&self->guard);
    if (immediate) {
        leave(self);
    }
    if (rc == PYC_OPEN) {
        return rc;
    }
    wake_all(self, &self->joiners, PYC_TRY_AGAIN);
    wake_all(self, &self->getters, PYC_TRY_AGAIN);
    wake_all(self, &self->putters, PYC_TRY_AGAIN);
    while (dropped.count > 0) {
        Py_DECREF(pyc_store_pop_first(&dropped));
    }
    pyc_store_free(&dropped);
    return rc;
}

/* Moves the items to the list, and opens the queue, if the list has the right
 * length. */
static int
hand_over(pyc_thread_queue *self, PyObject *items)
{
    pyc_lock_take(&self->guard);
    int fits = PyList_GET_SIZE(items) == self->store.count;
    for (Py_ssize_t i = 0; fits && self->store.count > 0; i++) {
        PyList_SET_ITEM(items, i, pyc_store_pop_first(&self->store));
    }
    pyc_store(self->is_open, (char)(self->is_open | fits));
    pyc_lock_give(&self->guard);
    return fits;
}

PyObject *
pyc_thread_queue_open(pyc_thread_queue *self)
{
    if (enter(self) < 0) {
        return NULL;
    }
    PyObject *items = NULL;
    Py_ssize_t size;
    do {
        pyc_thread_queue_size(self, &size);
        Py_XSETREF(items, PyList_New(size));
    } while (items != NULL && !hand_over(self, items));
    leave(self);
    wake_all(self, &self->joiners, PYC_TRY_AGAIN);
    wake_all(self, &self->getters, PYC_TRY_AGAIN);
    wake_all(self, &self->putters, PYC_TRY_AGAIN);
    return items;
}
