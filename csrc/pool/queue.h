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
    pyc_link jobs; /* the oldest first */
    Py_ssize_t count;
    pyc_link workers;     /* every pyc_worker */
    pyc_link idle;        /* those asleep, the latest to fall asleep first */
    Py_ssize_t nidle;     /* asleep, or woken and not yet at work */
    Py_ssize_t nworkers;  /* threads started or being started */
    Py_ssize_t nstarting; /* those of them that have not come to work() */
    Py_ssize_t max_workers;
    int waking;               /* a worker was woken and has not come yet */
    _Atomic unsigned cancels; /* how often cancel() was called */
    unsigned forks;           /* how often this process is a forked child */
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

/* The worker could not be started: takes the job out again, if there is one and
 * no other worker has it; without any worker the others fail. Keeps the
 * exception that is set. */
void pyc_queue_withdraw(pyc_queue *self, PyObject *future);

/* The workers leave when all jobs are done; no job is taken any more. */
void pyc_queue_close(pyc_queue *self, pyc_queue_status status);

/* How long one of a pool's workers waits for the others before it looks again
 * whether it must help. */
#define PYC_HELP_AFTER (5 * 1000 * 1000) /* ns */

int pyc_queue_in_worker(pyc_state *module);

/* Who waits in a worker for a job of the same pool may keep it from being run
 * at all: 1 when this is such a worker and no other is free, -1 when others
 * are by now, 0 in any other thread. */
int pyc_queue_must_help(pyc_queue *self);

/* To be called before one sleeps until the future is done: a worker that is on
 * its way to its job gets the GIL soon. */
void pyc_queue_hurry(pyc_future *future);

/* Runs the job of `future` here if so: 1; -1 if others are free to run it, 0
 * when it does not wait in the queue for which this thread works. Leaves the
 * exception that is set as it is. */
int pyc_queue_help(pyc_future *future);

/* To be called in a worker after each call of many: jobs that are no Python
 * code never come to where the interpreter hands the GIL over to whoever asks
 * for it, so a line of Python is run now and then. */
void pyc_queue_breathe(void);

/* Frees the jobs that wait. */
void pyc_queue_drop(pyc_queue *self);

/* What the workers and the executor call from Python. */
extern PyMethodDef pyc_queue_methods[];

int pyc_queue_register(PyObject *module, pyc_state *state);

#endif
