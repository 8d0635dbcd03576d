/* SPDX-License-Identifier: MIT */
/* Jobs of a crew as a thread with the GIL deals with them. */
#ifndef PYC_PY_CREW_H
#define PYC_PY_CREW_H

#include "py/compat.h"
#include "base/crew.h"
#include <errno.h>

/* The state of a module that has a crew. */
typedef struct {
    PyTypeObject *job_type;
    _Atomic(pyc_crew *) crew; /* made when it is first needed */
} pyc_crew_state;

/* What each object of job_type begins with. */
typedef struct {
    PyObject_HEAD
    pyc_crew_job job;
} pyc_crew_object;

/* Hands the job to the crew in *slot. 0, or -1 with an exception set. */
static inline int
pyc_job_submit(_Atomic(pyc_crew *) *slot, void (*free_scratch)(void *),
               pyc_crew_job *job)
{
    pyc_crew *crew = pyc_crew_get(slot, free_scratch);
    int err = crew != NULL ? pyc_crew_submit(crew, job) : ENOMEM;
    if (err == ENOMEM) {
        PyErr_NoMemory();
    }
    else if (err != 0) {
        PyErr_Format(PyExc_RuntimeError, "can't start a thread: %s",
                     err == ECANCELED ? "the interpreter is shutting down"
                                      : strerror(err));
    }
    return err == 0 ? 0 : -1;
}

/* pyc_crew_wait without the GIL. */
static inline bool
pyc_job_wait(pyc_crew_job *job, int milliseconds)
{
    bool over;
    Py_BEGIN_ALLOW_THREADS
    over = pyc_crew_wait(job, milliseconds);
    Py_END_ALLOW_THREADS
    return over;
}

/* Cancels a job, if it was submitted, and waits until no thread works on it. */
static inline void
pyc_job_abandon(pyc_crew_job *job)
{
    if (job->crew != NULL && !pyc_crew_is_lost(job)) {
        pyc_crew_cancel(job);
        pyc_job_wait(job, -1);
    }
}

/* Whether the job is over, or will never be because its threads are gone. */
static inline bool
pyc_job_is_over(pyc_crew_job *job)
{
    return pyc_crew_is_lost(job) ? job->finished != 0 : pyc_crew_is_over(job);
}

#endif
