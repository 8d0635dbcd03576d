/* SPDX-License-Identifier: MIT */
/* The monotonic clock, and a descriptor that becomes readable at a time. */
#ifndef PYC_BASE_DEADLINE_H
#define PYC_BASE_DEADLINE_H

#include <errno.h>
#include <stdint.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Seconds, as time.monotonic() gives them. */
static inline double
pyc_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)((int64_t)now.tv_sec * 1000000000 + now.tv_nsec) * 1e-9;
}

/* A descriptor, or -1 with errno set. */
static inline int
pyc_deadline_open(void)
{
    return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
}

/* Has `fd` become readable when the clock shows `when` seconds, never before;
 * 0, or -1 with errno set. */
static inline int
pyc_deadline_arm(int fd, double when)
{
    struct itimerspec spec = {{0, 0}, {0, 0}};
    double limit = 4e9; /* further away than any clock will come */
    spec.it_value.tv_sec = (time_t)(when < limit ? when : limit);
    if (when < limit) {
        double fraction = when - (double)spec.it_value.tv_sec;
        /* Rounded up, and one more for what the double has lost. */
        spec.it_value.tv_nsec = (long)(fraction * 1e9) + 2;
        if (spec.it_value.tv_nsec >= 1000000000) {
            spec.it_value.tv_sec++;
            spec.it_value.tv_nsec -= 1000000000;
        }
    }
    return timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* Makes `fd` unreadable after it has become readable. */
static inline void
pyc_deadline_clear(int fd)
{
    uint64_t expirations;
    while (read(fd, &expirations, sizeof(expirations)) < 0 && errno == EINTR) {
    }
}

#endif
