/* SPDX-License-Identifier: MIT */
/* Threads that work through jobs and never touch the interpreter. A job is a
 * number of items, which the workers take in chunks and steal from one
 * another. While there are several jobs a worker turns to the next one after
 * each chunk, so that a long job cannot starve a short one. Jobs whose calls
 * may wait have workers of their own. */
#ifndef PYC_BASE_CREW_H
#define PYC_BASE_CREW_H

#include "base/futex.h"
#include "base/steal.h"

typedef struct pyc_crew pyc_crew;
typedef struct pyc_crew_job pyc_crew_job;
typedef struct pyc_crew_listener pyc_crew_listener;

/* Who wants to know that a job is over. The owner keeps it until it was told or
 * taken back. */
struct pyc_crew_listener {
    /* Called once by a thread of the crew, with the crew's lock held: it may
     * do no more than wake somebody, and may let go of the listener. */
    void (*tell)(pyc_crew_listener *self);
    pyc_crew_listener *after;
};

/* Why an item failed, in the words of the job's owner; 0: it did not. */
typedef uint64_t pyc_fault;

struct pyc_crew_job {
    /* The owner sets these, the rest is 0, before it submits the job. */

    /* Works through the items from `begin` to `end` and returns how many it
     * did: fewer when one failed, with *fault set, or when the job was cut.
     * *scratch is NULL at first and the worker's to keep. */
    size_t (*run)(pyc_crew_job *job, size_t begin, size_t end, void **scratch,
                  pyc_fault *fault);
    size_t total;
    size_t chunk;   /* items a worker takes at once; more when there are many */
    size_t width;   /* workers on this job at most */
    size_t threads; /* workers busy at most, on this job and on those beside
                       it; where they differ the most counts */
    bool waits; /* its calls may wait for what other jobs do: those that do are
                   counted by themselves */

    /* The rest is the crew's: guarded by its lock unless it is atomic. */

    /* Items from `end` on are not begun, and 0 makes the running ones stop. */
    _Atomic size_t end;
    _Atomic uint32_t finished; /* a futex; never 0 again */
    pyc_fault fault;           /* of item number `end`, the first that failed */
    bool cut;                  /* it was cancelled before it was over */
    size_t running;
    size_t done_here;
    pyc_shares shares;
    pyc_crew_listener *listeners;
    pyc_crew *crew;
    pyc_crew_job *before, *after;
};

/* A crew without threads (they come with the first job), or NULL. The function
 * frees what a worker kept in *scratch. */
pyc_crew *pyc_crew_new(void (*free_scratch)(void *));
/* The crew in *slot, a new one if there is none or it is a parent process's,
 * whose threads are gone and whose locks may be in any state; NULL without
 * memory. */
pyc_crew *pyc_crew_get(_Atomic(pyc_crew *) *slot, void (*free_scratch)(void *));
/* True in a child of the process that made the crew. */
bool pyc_crew_is_orphan(const pyc_crew *crew);
/* Ends all jobs and joins all threads. The crew takes no jobs any more. */
void pyc_crew_stop(pyc_crew *crew);
void pyc_crew_free(pyc_crew *crew);

/* 0; ECANCELED when the crew was stopped, ENOMEM, or why no thread could be
 * started: there are none for jobs of this kind then. */
int pyc_crew_submit(pyc_crew *crew, pyc_crew_job *job);
/* Works through the job in the calling thread; no crew is involved. False if
 * items were left over without a fault: the job can be submitted still. */
bool pyc_crew_run_here(pyc_crew_job *job, void (*free_scratch)(void *));

/* Has the listener told when the job is over; false if it is already. Can be
 * called before the job is submitted. */
bool pyc_crew_listen(pyc_crew_job *job, pyc_crew_listener *listener);
/* Takes it back; false if it has been told. */
bool pyc_crew_unlisten(pyc_crew_job *job, pyc_crew_listener *listener);

/* For a job that a crew took: waits until it is over, or for that many
 * milliseconds; negative: for ever. Whether it is over. */
bool pyc_crew_wait(pyc_crew_job *job, int milliseconds);
/* False if the job is over already. */
bool pyc_crew_cancel(pyc_crew_job *job);
/* Whether the job is a parent process's, so that nobody works on it here. */
static inline bool
pyc_crew_is_lost(const pyc_crew_job *job)
{
    return job->crew != NULL && pyc_crew_is_orphan(job->crew);
}
/* Whether no worker will touch the job any more. */
bool pyc_crew_is_over(pyc_crew_job *job);
/* Items that were worked through. */
size_t pyc_crew_done(pyc_crew_job *job);
/* Frees what the job has of its own; it is over or was never submitted. */
void pyc_crew_clear(pyc_crew_job *job);

/* For run functions: whether item `index` need not be finished. */
static inline bool
pyc_crew_is_cut(pyc_crew_job *job, size_t index)
{
    return index >= atomic_load_explicit(&job->end, memory_order_relaxed);
}

#endif
