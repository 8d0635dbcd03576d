/* SPDX-License-Identifier: MIT */
/* Whether a way of waiting pays, as an object remembers in each process: not
 * for a while when it was in vain the last times, and for longer each time.
 *
 * One such way is to let others have this CPU. Where the one who is waited for
 * runs on it, too, he goes on at once and neither has to sleep or to wake. */
#ifndef PYC_IPC_PATIENCE_H
#define PYC_IPC_PATIENCE_H

#include "base/futex.h"

#include "py/compat.h"
#include "py/lock.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint32_t skip;
    uint32_t failures; /* in a row */
    uint32_t dear;     /* how often it was dear lately */
    uint32_t times;    /* it was not dear since */
} pyc_patience;

/* How a way of waiting ended. */
enum { PYC_READY, PYC_IN_VAIN, PYC_DEAR };

/* More than others look for something before they sleep, and less than what
 * computes has the CPU for. */
#define PYC_YIELD_DEAR INT64_C(250000) /* ns */

/* Whether to try it this time. */
static inline bool
pyc_patience_allows(pyc_patience *self)
{
    uint32_t skip = pyc_load(self->skip);
    if (skip > 0) {
        pyc_store(self->skip, skip - 1);
    }
    return skip == 0;
}

/* What is dear costs as much as a thousand waits save. */
static inline void
pyc_patience_is_dear(pyc_patience *self)
{
    uint32_t dear = pyc_load(self->dear);
    dear += dear < 3;
    pyc_store(self->dear, dear);
    pyc_store(self->times, 0);
    pyc_store(self->skip, 1u << (2 + 4 * dear));
}

static inline void
pyc_patience_learn(pyc_patience *self, int how)
{
    uint32_t failures = pyc_load(self->failures),
             times = pyc_load(self->times) + 1;
    if (how == PYC_DEAR) {
        pyc_patience_is_dear(self);
        return;
    }
    failures = how == PYC_READY ? 0 : failures + (failures < 10);
    pyc_store(self->failures, failures);
    pyc_store(self->skip, (1u << failures) - 1);
    pyc_store(self->times, times);
    if (times == 256) {
        pyc_store(self->dear, 0);
    }
}

static inline void
pyc_yield_now(void)
{
    if (pyc_only_thread()) {
        sched_yield();
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
    }
}

/* Whether it was cheap. Dear is what something else had that wanted this CPU
 * for milliseconds: a sleeper that is woken has it back at once. As long as it
 * works it is measured now and then, as looking at the clock twice costs a
 * tenth of it. */
static inline bool
pyc_yield(pyc_patience *self)
{
    if (pyc_load(self->times) % 4 != 0 && pyc_load(self->dear) == 0) {
        pyc_yield_now();
        return true;
    }
    int64_t start = pyc_clock_now();
    pyc_yield_now();
    return pyc_clock_now() - start < PYC_YIELD_DEAR;
}

#endif
