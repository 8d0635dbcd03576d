/* SPDX-License-Identifier: MIT */
#include "ipc/gate.h"

#include "base/futex.h"

uint32_t
pyc_gate_announce(pyc_gate *self)
{
    uint32_t word = atomic_load(&self->word);
    while (!atomic_compare_exchange_weak(&self->word, &word, (word + 2) | 1)) {
    }
    atomic_thread_fence(memory_order_seq_cst);
    return (word + 2) | 1;
}

/* Who is woken may leave others asleep, so the bit stays as long as there were
 * as many sleepers as were asked for: one system call too many, once. */
void
pyc_gate_wake(pyc_gate *self, int count)
{
    uint32_t word = atomic_load(&self->word);
    while ((word & 1) &&
           !atomic_compare_exchange_weak(&self->word, &word, word + 2)) {
    }
    if (!(word & 1)) {
        return;
    }
    word += 2;
    if (pyc_futex_wake_shared(&self->word, count) < count) {
        atomic_compare_exchange_strong(&self->word, &word, word & ~1u);
    }
}
