/* SPDX-License-Identifier: MIT */
/* Sleeping until another process changes a word.
 *
 * No sleep is longer than a slice: a process that was killed after it had been
 * woken, or before it woke others, costs them a slice and not for ever. Who
 * sleeps looks at the whole state again after each. */
#ifndef PYC_IPC_SLEEP_H
#define PYC_IPC_SLEEP_H

#include "ipc/arena.h"

#include "base/futex.h"

#define PYC_SLICE INT64_C(40000000) /* ns */

/* What became of a sleep. */
enum { PYC_INTERRUPTED = -1, PYC_WOKEN, PYC_SLICE_OVER, PYC_TOO_LATE };

/* Sleeps without the GIL while *word is `expected`. PYC_INTERRUPTED: with an
 * exception of a signal's handler set; PYC_TOO_LATE: the deadline has passed;
 * PYC_SLICE_OVER: look whether somebody died. A deadline that has passed
 * before gives PYC_TOO_LATE at once. */
int pyc_sleep(_Atomic uint32_t *word, uint32_t expected, int64_t deadline);

/* Wakes up to `count` processes or threads that sleep on the word. */
void pyc_wake(_Atomic uint32_t *word, int count);

/* The deadline of arguments (block=True, timeout=None) as multiprocessing takes
 * them: None for ever, less than nothing is nothing. *deadline is 0 when there
 * is no time at all. 0, or -1 with an exception set. */
int pyc_sleep_deadline(PyObject *block, PyObject *timeout, int64_t *deadline);

#endif
