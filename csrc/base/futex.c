/* SPDX-License-Identifier: MIT */
#include "base/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t
pyc_clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int
wait_on(_Atomic uint32_t *word, int operation, uint32_t expected,
        int64_t deadline)
{
    struct timespec until, *limit = NULL;
    if (deadline != PYC_NO_DEADLINE) {
        until.tv_sec = deadline / 1000000000;
        until.tv_nsec = deadline % 1000000000;
        limit = &until;
    }
    long rc = syscall(SYS_futex, word, operation, expected, limit, NULL,
                      FUTEX_BITSET_MATCH_ANY);
    if (rc == 0 || errno == EAGAIN) {
        return 0;
    }
    return -errno;
}

/* The bitset forms are the ones whose timeout is absolute. */

int
pyc_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    return wait_on(word, FUTEX_WAIT_BITSET_PRIVATE, expected, deadline);
}

int
pyc_futex_wait_shared(_Atomic uint32_t *word, uint32_t expected,
                      int64_t deadline)
{
    return wait_on(word, FUTEX_WAIT_BITSET, expected, deadline);
}

void
pyc_futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

int
pyc_futex_wake_shared(_Atomic uint32_t *word, int count)
{
    return (int)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}
