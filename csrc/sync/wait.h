/* SPDX-License-Identifier: MIT */
/* One wait for one thing, as a thread or as a coroutine: what is waited for is
 * an operation, which both drive in the same way. */
#ifndef PYC_SYNC_WAIT_H
#define PYC_SYNC_WAIT_H

#include "sync/timeout.h"
#include "sync/waiter.h"

typedef struct pyc_wait pyc_wait;

typedef struct {
    /* Takes what is wanted and returns 1; 0 when it has to be waited for: then
     * self->waiter stands in a queue if `join`, and in none if not; -1 with an
     * exception set. */
    int (*attempt)(pyc_wait *self, int join);
    /* Gives up: takes the waiter out of its queue, and if it was woken already,
     * passes on what it was woken for. 1 when attempts must go on before the
     * exception that ended the wait may be raised (never for `good`). */
    int (*leave)(pyc_wait *self, int good);
    /* The thread that holds what is waited for, or 0; NULL: nobody does. */
    uintptr_t (*holder)(PyObject *subject);
    int by_task; /* coroutines ask in the name of their task */
    /* A thread stands in no queue while it handles signals: a handler that
     * waits for the same thing would wait for the thread it interrupts. */
    int steps_aside;
    /* The method of the subject's, a coroutine function of `item` if there is
     * one, that goes on where an attempt returned PYC_OPEN. */
    const char *elsewhere;
} pyc_operation;

/* An attempt's answer: not here any more. */
#define PYC_OPEN 2

struct pyc_wait {
    const pyc_operation *operation;
    pyc_state *module;
    PyObject *subject;
    uintptr_t who;    /* the thread or the task that asks */
    PyObject *task;   /* of a coroutine */
    PyObject *result; /* owned; NULL: True */
    PyObject *item;
    Py_ssize_t number;
    int phase;
    pyc_waiter waiter;
};

/* Has this thread wait: 1, 0 when the deadline passed, -1 with an exception
 * set. `self` is a template; its result, number and item are brought back.
 * The waiter itself is not on the stack, which ends with a daemon thread while
 * the interpreter is still calling us. */
int pyc_wait_block(pyc_wait *self, int64_t deadline);

/* The same, but signals wait too: never -1. */
void pyc_wait_deaf(pyc_wait *self);

/* An awaitable that waits: a new reference. It owns references to the
 * template's subject and item. */
PyObject *pyc_wait_async(const pyc_wait *self);

/* An awaitable that has ended already, with None; NULL if `ok` is false. */
PyObject *pyc_wait_none(pyc_state *module, int ok);

/* The task that this thread is running, or NULL; never an exception. */
PyObject *pyc_current_task(pyc_state *module);

int pyc_awaitable_register(PyObject *module, pyc_state *state);

#endif
