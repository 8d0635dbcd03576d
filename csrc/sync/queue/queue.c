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
    static const pyc_operation entering = {heap_attempt, heap_leave, NULL, 0,
                                           NULL};
    if (PYC_LIKELY(pyc_mutex_try(&self->heap))) {
        return 0;
    }
    pyc_wait wait = {.operation = &entering,
                     .module = self->module,
                     .subject = (PyObject *)self};
    return pyc_wait_block(&wait, PYC_NO_DEADLINE) < 0 ? -1 : 0;
}

static inline int
enter(pyc_thread_queue *self)
{
    return self->order == PYC_PRIORITY ? enter_heap(self) : 0;
}

static inline void
leave(pyc_thread_queue *self)
{
    if (self->order == PYC_PRIORITY) {
        pyc_mutex_release(&self->heap);
    }
}

/* Wakes the first of `waiters` if what it waits for is there. */
static void
wake_getter(pyc_thread_queue *self)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    pyc_lock_take(&self->guard);
    if (self->store.count > 0) {
        wakeup = pyc_waiters_pop(&self->getters, PYC_TRY_AGAIN);
    }
    pyc_lock_give(&self->guard);
    pyc_wakeup_send(&wakeup);
}

static void
wake_putter(pyc_thread_queue *self)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    pyc_lock_take(&self->guard);
    if (has_room(self)) {
        wakeup = pyc_waiters_pop(&self->putters, PYC_TRY_AGAIN);
    }
    pyc_lock_give(&self->guard);
    pyc_wakeup_send(&wakeup);
}

/* Stands in no queue any more, and passes its wake on. */
static void
give_up(pyc_thread_queue *self, pyc_waiter *waiter,
        void (*wake)(pyc_thread_queue *))
{
    pyc_lock_take(&self->guard);
    int stood = pyc_waiter_leave(waiter);
    pyc_lock_give(&self->guard);
    if (!stood) {
        wake(self);
    }
}

/* enter() for an attempt of `waiter`, which may be NULL. */
static inline int
enter_for(pyc_thread_queue *self, pyc_waiter *waiter,
          void (*wake)(pyc_thread_queue *))
{
    if (PYC_LIKELY(enter(self) == 0)) {
        return 0;
    }
    if (waiter != NULL) {
        give_up(self, waiter, wake);
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
        if (self->order == PYC_FIFO) {
            got = pyc_store_pop_first(&self->store);
        }
        else if (self->order == PYC_LIFO) {
            got = pyc_store_pop_last(&self->store);
        }
    }
    else if (rc == 0 && join) {
        pyc_waiters_join(&self->getters, waiter);
    }
    int wakes = rc == 1 && self->putters.length > 0;
    pyc_lock_give(&self->guard);
    if (rc == 1 && got == NULL) {
        got = pyc_store_heap_pop(&self->store);
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
        if (self->order != PYC_PRIORITY) {
            failed = pyc_store_push(&self->store, item);
            self->unfinished += !failed;
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
    else if (rc == 1 && self->order == PYC_PRIORITY) {
        failed = pyc_store_heap_push(&self->store, item);
        /* Only now, or a join() could wait for what is never put; and nobody
         * gets it before we leave. */
        pyc_lock_take(&self->guard);
        self->unfinished += !failed;
        pyc_lock_give(&self->guard);
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

const pyc_operation pyc_thread_queue_getting = {getting_attempt, getting_leave,
                                                NULL, 0, "_open_get_async"};
const pyc_operation pyc_thread_queue_putting = {putting_attempt, putting_leave,
                                                NULL, 0, "_open_put_async"};
const pyc_operation pyc_thread_queue_joining = {joining_attempt, joining_leave,
                                                NULL, 0, "_open_join_async"};

int
pyc_thread_queue_block(pyc_thread_queue *self, const pyc_operation *operation,
                       PyObject **item, int64_t deadline)
{
    pyc_wait wait = {.operation = operation,
                     .module = self->module,
                     .subject = (PyObject *)self,
                     .item = *item};
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
    for (Py_ssize_t n = waiters->length; n > 0; n--) {
        pyc_lock_take(&self->guard);
        pyc_wakeup wakeup = pyc_waiters_pop(waiters, verdict);
        pyc_lock_give(&self->guard);
        pyc_wakeup_send(&wakeup);
    }
}

int
pyc_thread_queue_task_done(pyc_thread_queue *self)
{
    pyc_lock_take(&self->guard);
    Py_ssize_t left = self->unfinished - 1;
    if (left >= 0) {
        self->unfinished = left;
    }
    pyc_lock_give(&self->guard);
    if (left < 0) {
        PyErr_SetString(PyExc_ValueError, "task_done() called too many times");
        return -1;
    }
    if (left == 0) {
        wake_all(self, &self->joiners, PYC_GRANTED);
    }
    return 0;
}

void
pyc_thread_queue_shutdown(pyc_thread_queue *self, int immediate)
{
    pyc_store dropped = {0};
    int entered = immediate && enter(self) == 0;
    pyc_lock_take(&self->guard);
    self->is_shutdown = 1;
    if (immediate && (entered || self->order != PYC_PRIORITY)) {
        dropped = self->store;
        self->store = (pyc_store){0};
        self->unfinished -= Py_MIN(dropped.count, self->unfinished);
    }
    pyc_lock_give(&self->guard);
    if (entered) {
        leave(self);
    }
    wake_all(self, &self->joiners, PYC_TRY_AGAIN);
    wake_all(self, &self->getters, PYC_TRY_AGAIN);
    wake_all(self, &self->putters, PYC_TRY_AGAIN);
    while (dropped.count > 0) {
        Py_DECREF(pyc_store_pop_first(&dropped));
    }
    pyc_store_free(&dropped);
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
    self->is_open |= (char)fits;
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
    do {
        Py_XSETREF(items, PyList_New(self->store.count));
    } while (items != NULL && !hand_over(self, items));
    leave(self);
    wake_all(self, &self->joiners, PYC_TRY_AGAIN);
    wake_all(self, &self->getters, PYC_TRY_AGAIN);
    wake_all(self, &self->putters, PYC_TRY_AGAIN);
    return items;
}
