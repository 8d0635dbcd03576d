/* SPDX-License-Identifier: MIT */
/* A descriptor that any thread makes readable. */
#ifndef PYC_BASE_WAKE_H
#define PYC_BASE_WAKE_H

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A descriptor, or -1 with errno set. */
static inline int
pyc_wake_open(void)
{
    return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static inline void
pyc_wake_set(int fd)
{
    uint64_t one = 1;
    while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
}

/* Makes it unreadable again. */
static inline void
pyc_wake_clear(int fd)
{
    uint64_t count;
    while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
}

#endif
