/* SPDX-License-Identifier: MIT */
#include "base/crew.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

/* Unfinished jobs. Those that wait for others have a line of their own, so that
 * neither kind can take all the workers the other needs. */
typedef struct {
    pyc_crew_job *first, *last;
    size_t demand; /* the sum of their widths */
    size_t most;   /* what one of them gave as `threads` */
    size_t busy;   /* workers that work on an item */
} line;

struct pyc_crew {
    pthread_mutex_t lock;
    line lines[2];       /* of jobs that wait, and of all others */
    _Atomic size_t jobs; /* unfinished; read without the lock, too */
    size_t live;         /* workers */
    pthread_t *leaving;  /* workers that are to be joined */
    size_t leaving_count;
    pthread_cond_t left; /* live became 0 */
    bool stopping;
    pid_t pid;
    void (*free_scratch)(void *);
};

static line *
line_of(pyc_crew *crew, const pyc_crew_job *job)
{
    return &crew->lines[job->waits ? 0 : 1];
}

static void
append(line *self, pyc_crew_job *job)
{
    job->before = self->last;
    job->after = NULL;
    *(self->last != NULL ? &self->last->after : &self->first) = job;
    self->last = job;
}

static void
unlink_job(line *self, pyc_crew_job *job)
{
    *(job->before != NULL ? &job->before->after : &self->first) = job->after;
    *(job->after != NULL ? &job->after->before : &self->last) = job->before;
}

static void
tell_listeners(pyc_crew_job *job)
{
    pyc_crew_listener *after;
    for (pyc_crew_listener *one = job->listeners; one != NULL; one = after) {
        after = one->after;
        one->tell(one);
    }
    job->listeners = NULL;
}

/* The functions from here to pick() are called with the lock held. */

/* Whether there is a chunk that somebody should take. */
static bool
has_more(pyc_crew_job *job)
{
    size_t end = job->end;
    for (size_t i = 0; i < job->shares.count; i++) {
        uint64_t left = atomic_load(&job->shares.shares[i].left);
        if (pyc_share_size(left) > 0 &&
            pyc_share_first(left) * job->chunk < end) {
            return true;
        }
    }
    return false;
}

static void
settle(pyc_crew *crew, pyc_crew_job *job)
{
    if (job->finished || job->running > 0 || has_more(job)) {
        return;
    }
    line *own = line_of(crew, job);
    unlink_job(own, job);
    atomic_fetch_sub(&crew->jobs, 1);
    own->demand -= job->width;
    own->most = own->first != NULL ? own->most : 0;
    /* Inside the lock, which is taken by all who then let go of the job or of
     * a listener. */
    atomic_store(&job->finished, 1);
    tell_listeners(job);
    pyc_futex_wake(&job->finished, INT_MAX);
}

/* The next job to work on, moved to the end of the line; or NULL. */
static pyc_crew_job *
pick(pyc_crew *crew)
{
    for (size_t i = 0; i < 2; i++) {
        line *from = &crew->lines[i];
        pyc_crew_job *job = from->busy < from->most ? from->first : NULL;
        for (; job != NULL; job = job->after) {
            if (job->running < job->width && has_more(job)) {
                unlink_job(from, job);
                append(from, job);
                return job;
            }
        }
    }
    return NULL;
}

/* A share that no worker is on: there are as many as workers at most. One with
 * chunks, if there is one. */
static size_t
free_share(pyc_crew_job *job)
{
    size_t found = 0;
    for (size_t i = 0; i < job->shares.count; i++) {
        pyc_share *share = &job->shares.shares[i];
        if (!share->used) {
            found = i;
            if (pyc_share_size(atomic_load(&share->left)) > 0) {
                break;
            }
        }
    }
    return found;
}

/* Without the lock, as run_turn(). Items before a failed one are still worked
 * on, so that the fault that is left is the one a serial run would meet. */
static void
fail(pyc_crew *crew, pyc_crew_job *job, size_t item, pyc_fault fault)
{
    pthread_mutex_lock(&crew->lock);
    if (item < job->end) {
        job->end = item;
        job->fault = fault;
    }
    pthread_mutex_unlock(&crew->lock);
}

/* Takes chunks of the job, of share number `mine` first, until there are none
 * left or another job waits, too. */
static void
run_turn(pyc_crew *crew, pyc_crew_job *job, size_t mine, void **scratch)
{
    size_t chunk;
    pyc_share *share = &job->shares.shares[mine];
    do {
        if (!pyc_shares_take(&job->shares, mine, &chunk)) {
            return;
        }
        size_t begin = chunk * job->chunk, limit = job->total;
        size_t end = limit - begin > job->chunk ? begin + job->chunk : limit;
        if (pyc_crew_is_cut(job, begin)) {
            /* And so is what follows in the share. */
            pyc_shares_drop(&job->shares, mine);
            continue;
        }
        pyc_fault fault = 0;
        size_t count = job->run(job, begin, end, scratch, &fault);
        atomic_store_explicit(&share->done, share->done + count,
                              memory_order_relaxed);
        if (fault != 0) {
            fail(crew, job, begin + count, fault);
        }
    } while (atomic_load_explicit(&crew->jobs, memory_order_relaxed) == 1);
}

/* A worker leaves when there is nothing to do: starting one costs little more
 * than waking one, and a process whose crew is idle can fork as if it had no
 * threads. */
static void *
work(void *arg)
{
    pyc_crew *crew = arg;
    void *scratch = NULL;
    pyc_crew_job *job;
    pthread_mutex_lock(&crew->lock);
    while ((job = pick(crew)) != NULL) {
        size_t mine = free_share(job), *busy = &line_of(crew, job)->busy;
        job->shares.shares[mine].used = true;
        job->running++;
        ++*busy;
        pthread_mutex_unlock(&crew->lock);
        run_turn(crew, job, mine, &scratch);
        pthread_mutex_lock(&crew->lock);
        --*busy;
        job->running--;
        job->shares.shares[mine].used = false;
        settle(crew, job);
    }
    crew->leaving[crew->leaving_count++] = pthread_self();
    if (--crew->live == 0) {
        pthread_cond_broadcast(&crew->left);
    }
    pthread_mutex_unlock(&crew->lock);
    if (scratch != NULL) {
        crew->free_scratch(scratch);
    }
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
pyc_crew_new(void (*free_scratch)(void *))
{
    pyc_crew *crew = calloc(1, sizeof(*crew));
    if (crew == NULL) {
        return NULL;
    }
    if (pthread_mutex_init(&crew->lock, NULL) != 0) {
        goto fail;
    }
    if (pthread_cond_init(&crew->left, NULL) != 0) {
        pthread_mutex_destroy(&crew->lock);
        goto fail;
    }
    crew->pid = getpid();
    crew->free_scratch = free_scratch;
    return crew;

fail:
    free(crew);
    return NULL;
}

pyc_crew *
pyc_crew_get(_Atomic(pyc_crew *) *slot, void (*free_scratch)(void *))
{
    pyc_crew *crew = atomic_load(slot);
    if (crew != NULL && !pyc_crew_is_orphan(crew)) {
        return crew;
    }
    pyc_crew *fresh = pyc_crew_new(free_scratch);
    if (fresh != NULL && !atomic_compare_exchange_strong(slot, &crew, fresh)) {
        pyc_crew_free(fresh);
        return crew;
    }
    return fresh;
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
    for (size_t i = 0; i < 2; i++) {
        pyc_crew_job *after;
        for (pyc_crew_job *job = crew->lines[i].first; job != NULL;
             job = after) {
            after = job->after;
            job->end = 0;
            job->cut = true;
            settle(crew, job);
        }
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

/* Cuts the job into chunks. 0 or ENOMEM. */
static int
share_out(pyc_crew_job *job)
{
    size_t least = job->total / PYC_MOST_CHUNKS + 1;
    job->chunk = job->chunk > least ? job->chunk : least;
    size_t chunks = job->total / job->chunk + (job->total % job->chunk != 0);
    job->width = job->width < chunks ? job->width : chunks;
    job->width = job->width > 0 ? job->width : 1;
    atomic_store(&job->end, job->total);
    return pyc_shares_init(&job->shares, chunks, job->width) < 0 ? ENOMEM : 0;
}

static size_t
workers_wanted(const line *self)
{
    return self->demand < self->most ? self->demand : self->most;
}

int
pyc_crew_submit(pyc_crew *crew, pyc_crew_job *job)
{
    int err = share_out(job);
    if (err != 0) {
        return err;
    }
    pthread_mutex_lock(&crew->lock);
    join_leaving(crew);
    line *own = line_of(crew, job), before = *own;
    const line *other = &crew->lines[job->waits ? 1 : 0];
    own->demand += job->width;
    own->most = own->most > job->threads ? own->most : job->threads;
    size_t wanted = workers_wanted(own) + workers_wanted(other);
    while (!crew->stopping && err == 0 && crew->live < wanted) {
        err = add_worker(crew);
    }
    if (crew->stopping) {
        err = ECANCELED;
    }
    else if (crew->live > workers_wanted(other)) {
        /* Fewer threads than asked for will do as well, but not those that the
         * other line may keep until this job is done. */
        err = 0;
        job->crew = crew;
        append(own, job);
        atomic_fetch_add(&crew->jobs, 1);
        settle(crew, job); /* it may be empty */
    }
    if (err != 0) {
        *own = before;
    }
    pthread_mutex_unlock(&crew->lock);
    return err;
}

bool
pyc_crew_run_here(pyc_crew_job *job, void (*free_scratch)(void *))
{
    void *scratch = NULL;
    pyc_fault fault = 0;
    atomic_store(&job->end, job->total);
    size_t count = job->run(job, 0, job->total, &scratch, &fault);
    if (scratch != NULL) {
        free_scratch(scratch);
    }
    if (fault == 0 && count < job->total) {
        return false;
    }
    job->done_here = count;
    if (fault != 0) {
        job->end = count;
        job->fault = fault;
    }
    atomic_store(&job->finished, 1);
    tell_listeners(job);
    return true;
}

static void
lock_job(pyc_crew_job *job)
{
    if (job->crew != NULL) {
        pthread_mutex_lock(&job->crew->lock);
    }
}

static void
unlock_job(pyc_crew_job *job)
{
    if (job->crew != NULL) {
        pthread_mutex_unlock(&job->crew->lock);
    }
}

bool
pyc_crew_listen(pyc_crew_job *job, pyc_crew_listener *listener)
{
    lock_job(job);
    bool over = job->finished != 0;
    if (!over) {
        listener->after = job->listeners;
        job->listeners = listener;
    }
    unlock_job(job);
    return !over;
}

bool
pyc_crew_unlisten(pyc_crew_job *job, pyc_crew_listener *listener)
{
    lock_job(job);
    pyc_crew_listener **at = &job->listeners;
    while (*at != NULL && *at != listener) {
        at = &(*at)->after;
    }
    bool found = *at != NULL;
    if (found) {
        *at = listener->after;
    }
    unlock_job(job);
    return found;
}

bool
pyc_crew_wait(pyc_crew_job *job, int milliseconds)
{
    int64_t deadline = milliseconds < 0
                           ? PYC_NO_DEADLINE
                           : pyc_clock_now() + (int64_t)milliseconds * 1000000;
    while (!atomic_load(&job->finished)) {
        if (pyc_futex_wait(&job->finished, 0, deadline) == -ETIMEDOUT &&
            !atomic_load(&job->finished)) {
            return false;
        }
    }
    pthread_mutex_lock(&job->crew->lock);
    join_leaving(job->crew);
    pthread_mutex_unlock(&job->crew->lock);
    return true;
}

bool
pyc_crew_is_over(pyc_crew_job *job)
{
    if (!atomic_load(&job->finished)) {
        return false;
    }
    /* Who finished it may still hold the lock, and look at it. */
    lock_job(job);
    unlock_job(job);
    return true;
}

bool
pyc_crew_cancel(pyc_crew_job *job)
{
    lock_job(job);
    bool over = job->finished != 0;
    if (!over) {
        job->end = 0;
        job->cut = true;
    }
    if (!over && job->crew != NULL) {
        settle(job->crew, job);
    }
    unlock_job(job);
    return !over;
}

size_t
pyc_crew_done(pyc_crew_job *job)
{
    size_t done = job->done_here;
    for (size_t i = 0; job->shares.shares != NULL && i < job->shares.count;
         i++) {
        done += atomic_load_explicit(&job->shares.shares[i].done,
                                     memory_order_relaxed);
    }
    return done;
}

void
pyc_crew_clear(pyc_crew_job *job)
{
    job->listeners = NULL;
    pyc_shares_free(&job->shares);
}
