/* SPDX-License-Identifier: MIT */
/* A word on which processes sleep until something has changed. Who changes it
 * makes no system call while nobody sleeps, and one while somebody does.
 *
 * The lowest bit says that somebody may sleep; the rest changes with each that
 * announces it and with each wake, so that nobody falls asleep after the wake
 * that was for him. */
#ifndef PYC_IPC_GATE_H
#define PYC_IPC_GATE_H

#include "py/compat.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct {
    _Atomic uint32_t word;
} pyc_gate;

/* What to sleep on; look whether it is open after that, before the sleep. */
uint32_t pyc_gate_announce(pyc_gate *self);

void pyc_gate_wake(pyc_gate *self, int count);

/* Wakes up to `count` sleepers; after the change and a full barrier. */
static inline void
pyc_gate_open(pyc_gate *self, int count)
{
    if (PYC_UNLIKELY(atomic_load_explicit(&self->word, memory_order_relaxed) &
                     1)) {
        pyc_gate_wake(self, count);
    }
}

#endif
