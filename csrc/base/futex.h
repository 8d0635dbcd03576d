/* SPDX-License-Identifier: MIT */
/* A thread sleeps on a 32-bit word until another one wakes it. */
#ifndef PYC_BASE_FUTEX_H
#define PYC_BASE_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

#define PYC_NO_DEADLINE INT64_MAX

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t pyc_clock_now(void);

/* Sleeps while *word is `expected`, until `deadline` at most (a reading of
 * pyc_clock_now, or PYC_NO_DEADLINE). 0 when woken or when the word has
 * another value, perhaps for no reason at all; -ETIMEDOUT; -EINTR after a
 * signal. */
int pyc_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline);

/* Wakes up to `count` sleepers. */
void pyc_futex_wake(_Atomic uint32_t *word, int count);

/* The same for a word in memory that several processes have mapped; how many
 * were woken. */
int pyc_futex_wait_shared(_Atomic uint32_t *word, uint32_t expected,
                          int64_t deadline);
int pyc_futex_wake_shared(_Atomic uint32_t *word, int count);

#endif
