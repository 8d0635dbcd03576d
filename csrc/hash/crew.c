/* SPDX-License-Identifier: MIT */
#include "hash/crew.h"
#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

struct pyc_crew {
    pthread_mutex_t lock;
    pyc_job *first, *last; /* all unfinished jobs */
    size_t demand;         /* the sum of their widths */
    size_t live;           /* workers */
    size_t busy;           /* those that work on an item */
    pthread_t *leaving;    /* workers that are to be joined */
    size_t leaving_count;
    pthread_cond_t left; /* live became 0 */
    bool stopping;
    pid_t pid;
};

static int
init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int err = pthread_condattr_init(&attr);
    if (err != 0) {
        return err;
    }
#ifndef __APPLE__
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
#endif
    err = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return err;
}

static struct timespec
deadline_in(int milliseconds)
{
    struct timespec t;
#ifndef __APPLE__
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    clock_gettime(CLOCK_REALTIME, &t);
#endif
    t.tv_sec += milliseconds / 1000;
    t.tv_nsec += milliseconds % 1000 * 1000000L;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000L;
    }
    return t;
}

static void
append(pyc_crew *crew, pyc_job *job)
{
    job->before = crew->last;
    job->after = NULL;
    *(crew->last != NULL ? &crew->last->after : &crew->first) = job;
    crew->last = job;
}

static void
unlink_job(pyc_crew *crew, pyc_job *job)
{
    *(job->before != NULL ? &job->before->after : &crew->first) = job->after;
    *(job->after != NULL ? &job->after->before : &crew->last) = job->before;
}

/* The functions from here to pick() are called with the lock held. */

static void
settle(pyc_crew *crew, pyc_job *job)
{
    if (job->finished || job->running > 0 || job->next < job->end) {
        return;
    }
    unlink_job(crew, job);
    crew->demand -= job->width;
    job->finished = true;
    /* Inside the lock: once the job is seen finished, fd may be closed. */
    while (job->fd >= 0 && write(job->fd, "", 1) < 0 && errno == EINTR) {
    }
    pthread_cond_broadcast(&job->over);
}

/* The next job to take a chunk of, moved to the end of the line; or NULL. */
static pyc_job *
pick(pyc_crew *crew)
{
    for (pyc_job *job = crew->first; job != NULL; job = job->after) {
        if (job->next < job->end && job->running < job->width &&
            crew->busy < job->threads) {
            unlink_job(crew, job);
            append(crew, job);
            return job;
        }
    }
    return NULL;
}

/* Without the lock. How many of the items were done; *fault says why not all
 * of them. */
static size_t
run_items(pyc_job *job, size_t begin, size_t end, pyc_scratch *scratch,
          pyc_fault *fault)
{
    size_t i = begin;
    *fault = 0;
    while (i < end && !pyc_job_is_cut(job, i)) {
        *fault = job->item(job, i, scratch);
        if (*fault != 0) {
            break;
        }
        i++;
    }
    return i - begin;
}

/* Since items are taken in order and those before a failed one are still
 * worked on, the fault that is left is the one a serial run would meet. */
static void
account(pyc_job *job, size_t begin, size_t count, pyc_fault fault)
{
    job->done += count;
    if (fault != 0 && fault != PYC_FAULT_STOPPED && begin + count < job->end) {
        job->end = begin + count;
        job->fault = fault;
    }
}

static void
run_chunk(pyc_crew *crew, pyc_job *job, pyc_scratch *scratch)
{
    size_t begin = job->next, limit = job->end;
    size_t end = limit - begin > job->chunk ? begin + job->chunk : limit;
    job->next = end;
    job->running++;
    crew->busy++;
    pthread_mutex_unlock(&crew->lock);

    pyc_fault fault;
    size_t count = run_items(job, begin, end, scratch, &fault);

    pthread_mutex_lock(&crew->lock);
    crew->busy--;
    job->running--;
    account(job, begin, count, fault);
    settle(crew, job);
}

static void
free_scratch(pyc_scratch *scratch)
{
    EVP_MD_CTX_free(scratch->context);
    free(scratch->block);
}

/* A worker leaves when there is nothing to do: starting one costs little more
 * than waking one, and a process that does not hash can fork as if it had no
 * threads. */
static void *
work(void *arg)
{
    pyc_crew *crew = arg;
    pyc_scratch scratch = {NULL, NULL};
    pyc_job *job;
    pthread_mutex_lock(&crew->lock);
    while ((job = pick(crew)) != NULL) {
        run_chunk(crew, job, &scratch);
    }
    crew->leaving[crew->leaving_count++] = pthread_self();
    if (--crew->live == 0) {
        pthread_cond_broadcast(&crew->left);
    }
    pthread_mutex_unlock(&crew->lock);
    free_scratch(&scratch);
    return NULL;
}

/* With the lock held, which it lets go of meanwhile. */
static void
join_leaving(pyc_crew *crew)
{
    while (crew->leaving_count > 0) {
        pthread_t worker = crew->leaving[--crew->leaving_count];
        pthread_mutex_unlock(&crew->lock);
        pthread_join(worker, NULL);
        pthread_mutex_lock(&crew->lock);
    }
}

/* With the lock held. 0, or an errno. */
static int
add_worker(pyc_crew *crew)
{
    size_t most = crew->live + crew->leaving_count + 1;
    pthread_t *leaving = realloc(crew->leaving, most * sizeof(*leaving));
    if (leaving == NULL) {
        return ENOMEM;
    }
    crew->leaving = leaving;
    /* Signals are the business of the interpreter's threads. */
    sigset_t all, old;
    pthread_t worker;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&worker, NULL, work, crew);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    crew->live += err == 0;
    return err;
}

pyc_crew *
pyc_crew_new(void)
{
    pyc_crew *crew = calloc(1, sizeof(*crew));
    if (crew == NULL) {
        return NULL;
    }
    if (pthread_mutex_init(&crew->lock, NULL) != 0) {
        goto fail;
    }
    if (init_cond(&crew->left) != 0) {
        pthread_mutex_destroy(&crew->lock);
        goto fail;
    }
    crew->pid = getpid();
    return crew;

fail:
    free(crew);
    return NULL;
}

bool
pyc_crew_is_orphan(const pyc_crew *crew)
{
    return crew->pid != getpid();
}

void
pyc_crew_stop(pyc_crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    crew->stopping = true;
    pyc_job *after;
    for (pyc_job *job = crew->first; job != NULL; job = after) {
        after = job->after;
        job->end = 0;
        settle(crew, job);
    }
    while (crew->live > 0) {
        pthread_cond_wait(&crew->left, &crew->lock);
    }
    join_leaving(crew);
    pthread_mutex_unlock(&crew->lock);
}

void
pyc_crew_free(pyc_crew *crew)
{
    pyc_crew_stop(crew);
    pthread_cond_destroy(&crew->left);
    pthread_mutex_destroy(&crew->lock);
    free(crew->leaving);
    free(crew);
}

int
pyc_crew_submit(pyc_crew *crew, pyc_job *job)
{
    int err = init_cond(&job->over);
    if (err != 0) {
        return err;
    }
    pthread_mutex_lock(&crew->lock);
    size_t wanted = crew->demand + job->width;
    wanted = wanted < job->threads ? wanted : job->threads;
    while (!crew->stopping && err == 0 && crew->live < wanted) {
        err = add_worker(crew);
    }
    if (crew->stopping) {
        err = ECANCELED;
    }
    else if (crew->live > 0) {
        err = 0; /* fewer threads than asked for will do as well */
        job->crew = crew;
        crew->demand += job->width;
        append(crew, job);
        settle(crew, job); /* it may be empty */
    }
    pthread_mutex_unlock(&crew->lock);
    if (err != 0) {
        pthread_cond_destroy(&job->over);
    }
    return err;
}

void
pyc_job_run_here(pyc_job *job)
{
    pyc_scratch scratch = {NULL, NULL};
    pyc_fault fault;
    size_t count = run_items(job, 0, job->total, &scratch, &fault);
    account(job, 0, count, fault);
    job->finished = true;
    free_scratch(&scratch);
}

bool
pyc_job_wait(pyc_job *job, int milliseconds)
{
    pyc_crew *crew = job->crew;
    struct timespec deadline = deadline_in(milliseconds < 0 ? 0 : milliseconds);
    int err = 0;
    pthread_mutex_lock(&crew->lock);
    while (!job->finished && err != ETIMEDOUT) {
        err = milliseconds < 0
                  ? pthread_cond_wait(&job->over, &crew->lock)
                  : pthread_cond_timedwait(&job->over, &crew->lock, &deadline);
    }
    bool finished = job->finished;
    if (finished) {
        join_leaving(crew);
    }
    pthread_mutex_unlock(&crew->lock);
    return finished;
}

void
pyc_job_cancel(pyc_job *job)
{
    pthread_mutex_lock(&job->crew->lock);
    job->end = 0;
    settle(job->crew, job);
    pthread_mutex_unlock(&job->crew->lock);
}

size_t
pyc_job_done(pyc_job *job)
{
    pthread_mutex_lock(&job->crew->lock);
    size_t done = job->done;
    pthread_mutex_unlock(&job->crew->lock);
    return done;
}
