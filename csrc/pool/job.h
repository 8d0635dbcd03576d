/* SPDX-License-Identifier: MIT */
/* A call that waits for a worker, and the future that gets its outcome: one
 * of ours, or one of an event loop. */
#ifndef PYC_POOL_JOB_H
#define PYC_POOL_JOB_H

#include "py/compat.h"

#include "base/list.h"
#include "pool/future.h"
#include "sync/mailbox.h"

typedef struct pyc_job {
    pyc_link link;         /* in its queue */
    struct pyc_job *outer; /* what its worker is in the middle of */
    PyObject *future;
    pyc_mailbox *mailbox; /* how to reach the loop's future, NULL for ours */
    PyObject *context;    /* the submitter's, a copy */
    PyObject *func;
    PyObject *kwnames; /* NULL or the names of the last arguments */
    Py_ssize_t nargs;  /* positional */
    PyObject *args[];  /* one unused, as vectorcall likes it, then all */
} pyc_job;

/* Takes new references to all it is given; NULL with an exception set. */
pyc_job *pyc_job_new(PyObject *future, pyc_mailbox *mailbox, PyObject *func,
                     PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames);

/* Each of these three ends the job's future, frees the job and leaves no
 * exception set. The first gives a new reference to the future if a thread
 * slept until that, or else NULL. */
pyc_future *pyc_job_run(pyc_job *job);
void pyc_job_cancel(pyc_job *job);
void pyc_job_fail(pyc_job *job, PyObject *exception);

void pyc_job_free(pyc_job *job);
int pyc_job_traverse(pyc_job *job, visitproc visit, void *arg);

#endif
