/* SPDX-License-Identifier: MIT */
/* Threads that work through jobs and never touch the interpreter. A job is a
 * number of items; the workers take them in chunks, in order, and turn to the
 * next job after each chunk, so that a long job cannot starve a short one. */
#ifndef PYC_HASH_CREW_H
#define PYC_HASH_CREW_H

#include "py/compat.h"
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PYC_BLOCK_SIZE ((size_t)256 << 10)

typedef struct pyc_crew pyc_crew;
typedef struct pyc_job pyc_job;

/* What a worker keeps from one item to the next; made by who needs it. */
typedef struct {
    EVP_MD_CTX *context;
    unsigned char *block; /* PYC_BLOCK_SIZE bytes */
} pyc_scratch;

/* What became of an item: 0, or a kind of failure with its code below it. */
typedef uint64_t pyc_fault;
#define PYC_FAULT_STOPPED ((pyc_fault)1 << 40) /* the job was cut short */
#define PYC_FAULT_SYSTEM ((pyc_fault)2 << 40)  /* + errno */
#define PYC_FAULT_CRYPTO ((pyc_fault)3 << 40)  /* + a code of libcrypto */
#define PYC_FAULT_KIND(fault) ((fault) & ~(PYC_FAULT_STOPPED - 1))
#define PYC_FAULT_CODE(fault) ((unsigned long)(uint32_t)(fault))

struct pyc_job {
    /* The caller sets these before it submits the job. */
    pyc_fault (*item)(pyc_job *job, size_t index, pyc_scratch *scratch);
    size_t total;
    size_t chunk;   /* items a worker takes at once */
    size_t width;   /* workers on this job at most */
    size_t threads; /* workers busy in the whole crew at most */
    int fd;         /* a byte is written here when the job is over, or -1 */

    /* The rest is guarded by the crew's lock, and only `end` is read without:
     * items from `end` on are not begun, and 0 makes the running ones stop. */
    _Atomic size_t end;
    size_t next;
    size_t done;
    size_t running;
    bool finished;
    pyc_fault fault; /* of item number `end`, the first that failed */
    pyc_crew *crew;
    pthread_cond_t over;
    pyc_job *before, *after;
};

/* A crew without threads (they come with the first job), or NULL. */
pyc_crew *pyc_crew_new(void);
/* True in a child of the process that made the crew: its threads are gone. */
bool pyc_crew_is_orphan(const pyc_crew *crew);
/* Ends all jobs and joins all threads. The crew takes no jobs any more. */
void pyc_crew_stop(pyc_crew *crew);
void pyc_crew_free(pyc_crew *crew);

/* 0, ECANCELED when the crew was stopped, or why no thread could be started. */
int pyc_crew_submit(pyc_crew *crew, pyc_job *job);

/* Works through the job in the calling thread; no crew is involved. */
void pyc_job_run_here(pyc_job *job);
/* The functions below are for jobs that a crew took. Waits until the job is
 * over, or for that many milliseconds; negative: for ever. True if it is. */
bool pyc_job_wait(pyc_job *job, int milliseconds);
void pyc_job_cancel(pyc_job *job);
size_t pyc_job_done(pyc_job *job);

/* For item functions: whether item `index` need not be finished. */
static inline bool
pyc_job_is_cut(pyc_job *job, size_t index)
{
    return index >= atomic_load_explicit(&job->end, memory_order_relaxed);
}

#endif
