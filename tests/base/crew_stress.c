/* SPDX-License-Identifier: MIT */
/* Jobs of all kinds submitted to one crew from several threads: each item of a
 * whole job runs once, the fault that is left is the first, a listener is told
 * when it may look, and cancelled jobs end. Exits with 0 when all of it holds;
 * built with -fsanitize=thread it looks for data races as well. */
#include "base/crew.h"
#include "base/wake.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define SUBMITTERS 4
#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);            \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

typedef struct {
    pyc_crew_job job;
    unsigned char *seen; /* how often each item ran: written without a lock,
                            since nobody else may have the item */
    size_t bad;          /* items from here on fail when they are multiples */
    unsigned spin;
    pyc_crew_listener listener;
    int fd;
} counted;

static pyc_crew *crew;
static int rounds;

static size_t
run(pyc_crew_job *job, size_t begin, size_t end, void **scratch,
    pyc_fault *fault)
{
    counted *self = (counted *)job;
    if (*scratch == NULL) {
        *scratch = malloc(16);
    }
    size_t i = begin;
    for (; i < end && !pyc_crew_is_cut(job, i); i++) {
        if (i >= self->bad && i % self->bad == 0) {
            *fault = i;
            break;
        }
        self->seen[i]++;
        for (volatile unsigned spin = self->spin; spin > 0; spin--) {
        }
    }
    return i - begin;
}

static void
tell(pyc_crew_listener *listener)
{
    pyc_wake_set(
        ((counted *)((char *)listener - offsetof(counted, listener)))->fd);
}

static void
check_whole(counted *self)
{
    CHECK(pyc_crew_done(&self->job) == self->job.total);
    CHECK(self->job.fault == 0);
    for (size_t i = 0; i < self->job.total; i++) {
        CHECK(self->seen[i] == 1);
    }
}

static void
check_failed(counted *self)
{
    CHECK(self->job.fault == self->bad && self->job.end == self->bad);
    for (size_t i = 0; i < self->job.total; i++) {
        CHECK(i < self->bad ? self->seen[i] == 1 : self->seen[i] <= 1);
    }
}

static void
one_round(unsigned *random)
{
    counted one = {.bad = SIZE_MAX};
    enum { WHOLE, FAILED, CANCELLED, LISTENED } kind = rand_r(random) % 4;
    one.job.run = run;
    one.job.total = (size_t)rand_r(random) % 3000;
    one.job.chunk = (size_t)rand_r(random) % 20;
    one.job.threads = 1 + (size_t)rand_r(random) % 4;
    one.job.width = 1 + (size_t)rand_r(random) % one.job.threads;
    one.job.waits = rand_r(random) % 3 == 0;
    one.spin = (unsigned)rand_r(random) % 200;
    one.seen = calloc(one.job.total + 1, 1);
    if (kind == FAILED && one.job.total > 2) {
        one.bad = 1 + (size_t)rand_r(random) % (one.job.total - 1);
    }
    one.fd = kind == LISTENED ? pyc_wake_open() : -1;
    one.listener.tell = tell;
    int fd = one.fd,
        early = rand_r(random) % 2;
    if (fd >= 0 && early) {
        CHECK(pyc_crew_listen(&one.job, &one.listener));
    }
    CHECK(pyc_crew_submit(crew, &one.job) == 0);
    if (fd >= 0 && (early || pyc_crew_listen(&one.job, &one.listener))) {
        struct timespec nap = {0, 100000};
        uint64_t told;
        while (read(fd, &told, sizeof(told)) < 0) {
            nanosleep(&nap, NULL);
        }
        CHECK(pyc_crew_is_over(&one.job));
    }
    if (kind == CANCELLED) {
        pyc_crew_cancel(&one.job);
    }
    while (!pyc_crew_wait(&one.job, 10)) {
    }
    if (kind != CANCELLED) {
        (one.bad == SIZE_MAX ? check_whole : check_failed)(&one);
    }
    if (fd >= 0) {
        close(fd);
    }
    pyc_crew_clear(&one.job);
    free(one.seen);
}

static void *
submitter(void *arg)
{
    unsigned random = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < rounds; i++) {
        one_round(&random);
    }
    return NULL;
}

int
main(int argc, char **argv)
{
    rounds = argc > 1 ? atoi(argv[1]) : 100;
    crew = pyc_crew_new(free);
    CHECK(crew != NULL);
    pthread_t threads[SUBMITTERS];
    for (size_t i = 0; i < SUBMITTERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, submitter,
                             (void *)(uintptr_t)(i + 1)) == 0);
    }
    for (size_t i = 0; i < SUBMITTERS; i++) {
        pthread_join(threads[i], NULL);
    }
    /* What is in flight when the crew stops ends as well. */
    counted last = {.bad = SIZE_MAX, .spin = 1000};
    last.job = (pyc_crew_job){
        .run = run, .total = 100000, .chunk = 1, .width = 2, .threads = 2};
    last.seen = calloc(last.job.total, 1);
    CHECK(pyc_crew_submit(crew, &last.job) == 0);
    pyc_crew_stop(crew);
    CHECK(pyc_crew_is_over(&last.job));
    counted late = {.job = {.run = run, .width = 1, .threads = 1}};
    CHECK(pyc_crew_submit(crew, &late.job) == ECANCELED);
    pyc_crew_clear(&late.job);
    pyc_crew_clear(&last.job);
    free(last.seen);
    pyc_crew_free(crew);
    return 0;
}
