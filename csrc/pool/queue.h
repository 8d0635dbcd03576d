/* SPDX-License-Identifier: MIT */
/* The jobs of one thread pool and the workers that take them. It outlives the
 * executor, for workers hold on to it and not to the executor. */
#ifndef PYC_POOL_QUEUE_H
#define PYC_POOL_QUEUE_H

#include "py/compat.h"

#include "base/list.h"
#include "pool/job.h"

typedef enum {
    PYC_QUEUE_OPEN,
    PYC_QUEUE_CLOSED, /* shut down, or the executor is gone */
    PYC_QUEUE_EXIT,   /* the interpreter ends */
    PYC_QUEUE_BROKEN, /* a worker's initializer failed */
} pyc_queue_status;

typedef struct {
    PyObject_HEAD
    pyc_job *first;
    pyc_job *last;
    Py_ssize_t count;
    pyc_link workers;    /* every pyc_worker */
    pyc_link idle;       /* those asleep, the latest to fall asleep first */
    Py_ssize_t nidle;    /* asleep, or woken and not yet at work */
    Py_ssize_t nworkers; /* threads started or being started */
    Py_ssize_t max_workers;
    int waking;               /* a worker was woken and has not come yet */
    _Atomic unsigned cancels; /* how often cancel() was called */
    pyc_queue_status status;
    pyc_lock lock;
    PyObject *broken;     /* the exception, when status is BROKEN */
    pyc_mailbox *mailbox; /* of the loop that submitted last */
    pyc_state *module;
} pyc_queue;

/* Appends the job and wakes a worker if one sleeps. Stores in *number the
 * number of a worker the caller is to start, or -1. Steals the job; on -1,
 * with RuntimeError set, it is freed. */
int pyc_queue_put(pyc_queue *self, pyc_job *job, Py_ssize_t *number);

/* The worker could not be started: takes the job out again, if no other
 * worker has it. Keeps the exception that is set. */
void pyc_queue_withdraw(pyc_queue *self, PyObject *future);

/* The workers leave when all jobs are done; no job is taken any more. */
void pyc_queue_close(pyc_queue *self, pyc_queue_status status);

/* The queue that this thread works for, borrowed, or NULL. */
pyc_queue *pyc_queue_of_thread(void);

/* Runs the job of `future` here if this thread works for the queue in which
 * it waits: who waits for it in a worker may keep it from being run at all.
 * 1 if it ran. Leaves the exception that is set as it is. */
int pyc_queue_help(PyObject *future);

/* To be called in a worker after each call of many: jobs that are no Python
 * code never come to where the interpreter hands the GIL over to whoever asks
 * for it, so a line of Python is run now and then. */
void pyc_queue_breathe(void);

int pyc_queue_register(PyObject *module, pyc_state *state);

#endif
