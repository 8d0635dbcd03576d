/* SPDX-License-Identifier: MIT */
/* How another process wakes the event loops of this one.
 *
 * Each process has one datagram socket with a name nobody can guess, which the
 * table of each arena gives. An object has a word of bells: the processes in
 * which a coroutine waits for it. Who changes the object rings them, which
 * empties the word; the coroutine looks again and, if need be, arms again. */
#ifndef PYC_IPC_BELL_H
#define PYC_IPC_BELL_H

#include "ipc/arena.h"

typedef struct {
    _Atomic uint64_t waiting; /* a bit for each place in the table */
} pyc_bells;

/* From now on a ring of the bells reaches this process. What is waited for must
 * be looked at once more afterwards. The key that will arrive, which the type's
 * method arm() returns as an int. */
uint64_t pyc_bells_arm(pyc_arena *arena, pyc_bells *bells);

void pyc_bells_ring_now(pyc_ipc *state, pyc_arena *arena, pyc_bells *bells);

/* Rings: call it after the change, with or without the GIL. */
static inline void
pyc_bells_ring(pyc_ipc *state, pyc_arena *arena, pyc_bells *bells)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (PYC_UNLIKELY(
            atomic_load_explicit(&bells->waiting, memory_order_relaxed) != 0)) {
        pyc_bells_ring_now(state, arena, bells);
    }
}

/* bell() of the module: the socket's descriptor, opened when it is first asked
 * for. */
PyObject *pyc_bell_descriptor(PyObject *module, PyObject *ignored);
/* rung() of the module: the set of keys that have arrived; None: some were
 * lost, as too many came, so that all may be meant. */
PyObject *pyc_bell_rung(PyObject *module, PyObject *ignored);
void pyc_bell_close(pyc_ipc *state);

#endif
