/* SPDX-License-Identifier: MIT */
/* queue.Queue, LifoQueue, PriorityQueue and SimpleQueue.
 *
 * A queue is open when its parts (mutex, conditions, items) are in Python's
 * hands, because somebody asked for one of them or a subclass overrides how
 * items are kept: then pyconc/queue.py does what is asked of it. */
#ifndef PYC_SYNC_QUEUE_QUEUE_H
#define PYC_SYNC_QUEUE_QUEUE_H

#include "sync/mutex.h"
#include "sync/object.h"
#include "sync/queue/store.h"
#include "sync/wait.h"

typedef enum { PYC_FIFO, PYC_LIFO, PYC_PRIORITY } pyc_order;

typedef struct {
    PYC_SYNC_HEAD
    pyc_store store;
    Py_ssize_t maxsize;
    Py_ssize_t unfinished;
    pyc_waiters getters;
    pyc_waiters putters;
    pyc_waiters joiners;
    pyc_mutex heap; /* held while a heap compares */
    pyc_lock guard;
    char order;
    char is_shutdown;
    char is_open;
} pyc_thread_queue;

extern const pyc_operation pyc_thread_queue_getting;
extern const pyc_operation pyc_thread_queue_putting;
extern const pyc_operation pyc_thread_queue_joining;

/* One attempt, without waiting: 1, 0, PYC_OPEN or -1 with an exception. */
int pyc_thread_queue_try_get(pyc_thread_queue *self, PyObject **item);
int pyc_thread_queue_try_put(pyc_thread_queue *self, PyObject *item);

/* As an operation that is blocked for: 1, 0 when the deadline has passed,
 * PYC_OPEN or -1. */
int pyc_thread_queue_block(pyc_thread_queue *self,
                           const pyc_operation *operation, PyObject **item,
                           int64_t deadline);

/* 1, PYC_OPEN or -1 with ValueError. */
int pyc_thread_queue_task_done(pyc_thread_queue *self);

/* How many items there are: 1 or PYC_OPEN. */
int pyc_thread_queue_size(pyc_thread_queue *self, Py_ssize_t *size);

/* Ends it; `immediate`: without its items. 1, PYC_OPEN or -1 with an exception
 * set. */
int pyc_thread_queue_shutdown(pyc_thread_queue *self, int immediate);

/* Opens it: its items, as a list in the order in which they lay there. */
PyObject *pyc_thread_queue_open(pyc_thread_queue *self);

int pyc_simple_queue_register(PyObject *module, pyc_state *state);
int pyc_thread_queue_register(PyObject *module, pyc_state *state);

#endif
