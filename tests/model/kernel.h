/* SPDX-License-Identifier: MIT */
/* What the models have in place of the kernel and of the arena's table: for
 * the end of a file that includes the sources of csrc/ipc. */
#ifndef MODEL_KERNEL_H
#define MODEL_KERNEL_H

#include "ipc/sleep.h"

#include <errno.h>

/* Time stands still: a sleep until a slice is over ends when the explorer says
 * so, one with an earlier deadline can be too late at any moment. */
#define MODEL_SOON 1
static int64_t model_time;

int64_t
pyc_clock_now(void)
{
    return model_time;
}

static bool model_signalled; /* the handler raises */

int
PyErr_CheckSignals(void)
{
    bool raises = model_signalled;
    model_signalled = false;
    return raises ? -1 : 0;
}

int
pyc_futex_wait_shared(_Atomic uint32_t *word, uint32_t expected,
                      int64_t deadline)
{
    model_patience patience = deadline < PYC_SLICE          ? MODEL_TIMED
                              : deadline == PYC_NO_DEADLINE ? MODEL_ENDLESS
                                                            : MODEL_SLICED;
    switch (model_sleep(MODEL_SITE("until it changes"), word, expected,
                        patience)) {
    case PYC_INTERRUPTED:
        model_signalled = true;
        return -EINTR;
    case PYC_SLICE_OVER:
    case PYC_TOO_LATE:
        return -ETIMEDOUT;
    default:
        return 0;
    }
}

int
pyc_futex_wake_shared(_Atomic uint32_t *word, int count)
{
    return model_wake(MODEL_SITE("its sleepers"), word, count);
}

/* Of the threads of one process. */
int
pyc_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    return pyc_futex_wait_shared(word, expected, deadline);
}

void
pyc_futex_wake(_Atomic uint32_t *word, int count)
{
    pyc_futex_wake_shared(word, count);
}

#ifndef MODEL_REAL_TABLE
/* Another process than the model's may be meant, where two of these are
 * threads of one. */
#    ifndef MODEL_OWNER
#        define MODEL_OWNER ((pyc_owner)model_me + 1)
#    endif

pyc_owner
pyc_arena_me(const pyc_arena *arena)
{
    return MODEL_OWNER;
}

bool
pyc_arena_owner_is_dead(pyc_arena *arena, pyc_owner owner)
{
    return model_is_dead(MODEL_SITE("the owner"), (int)owner - 1);
}
#endif

#endif
