/* SPDX-License-Identifier: MIT */
/* What the processes of a channel see of its tasks, in shared memory: a claim
 * for each task in flight, and a record for each worker.
 *
 * A task is a slot and how often that was used. Its claim is one word: queued,
 * begun by a worker, or over. Who changes it does so by one compare-and-swap,
 * so that a task is begun by one worker at most, and not after it was revoked.
 * No Python here. */
#ifndef PYC_IPC_BOARD_H
#define PYC_IPC_BOARD_H

#include "ipc/gate.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PYC_SLOT_BITS 16
#define PYC_SLOTS_MOST (1u << PYC_SLOT_BITS)
#define PYC_WORKERS_MOST 4096u

/* Generations begin with 1, so no task is 0. */
#define PYC_TASK(generation, slot)                                             \
    ((uint64_t)(generation) << PYC_SLOT_BITS | (slot))
#define PYC_TASK_SLOT(task) ((uint32_t)((task) & (PYC_SLOTS_MOST - 1)))
#define PYC_TASK_GENERATION(task) ((uint32_t)((task) >> PYC_SLOT_BITS))

/* A claim's word: a generation and one of these, or PYC_BEGUN + the worker. */
enum { PYC_OVER, PYC_QUEUED, PYC_BEGUN };
#define PYC_CLAIM(generation, what)                                            \
    ((uint64_t)(generation) << 32 | (uint32_t)(what))
#define PYC_CLAIM_IS(word) ((uint32_t)(word))

typedef struct {
    _Alignas(64) _Atomic uint64_t word;
    _Atomic int64_t began; /* clock, once it has */
} pyc_claim;

/* Written by the worker, but `asked` and `unwanted`. */
typedef struct {
    _Alignas(64) _Atomic uint32_t pid; /* 0: there is none */
    _Atomic uint32_t asked;            /* to end */
    _Atomic uint64_t task;             /* that it works on; 0: none */
    _Atomic int64_t began;             /* clock: with the task; else to wait */
    _Atomic uint64_t tasks;            /* done */
    _Atomic uint64_t busy;             /* ns, with tasks that are done */
    _Atomic uint64_t peak;             /* memory: bytes, as seen last */
    _Atomic uint64_t unwanted; /* the task that a signal is to end; 0: none */
    _Atomic uint64_t bytes_in, bytes_out;
} pyc_worker;

typedef struct {
    uint32_t slots, workers;
    uint32_t parent; /* its owner in the arena of the jobs */
    /* Of the parent's threads: a driver, who is there while `driven` and sleeps
     * at the gate of the results; and the collector, for when there is none. */
    _Alignas(64) _Atomic uint32_t driven;
    pyc_gate collector;
} pyc_board;

size_t pyc_board_size(uint32_t slots, uint32_t workers);
/* In memory that is all 0. */
void pyc_board_begin(pyc_board *self, uint32_t slots, uint32_t workers,
                     uint32_t parent);
/* Whether memory of `size` bytes holds such a board. */
bool pyc_board_check(const pyc_board *self, size_t size);

static inline pyc_worker *
pyc_board_worker(pyc_board *self, uint32_t worker)
{
    return (pyc_worker *)(self + 1) + worker;
}

static inline pyc_claim *
pyc_board_claim(pyc_board *self, uint32_t slot)
{
    return (pyc_claim *)pyc_board_worker(self, self->workers) + slot;
}

static inline uint32_t
pyc_board_state(pyc_board *self, uint64_t task)
{
    uint64_t word =
        atomic_load(&pyc_board_claim(self, PYC_TASK_SLOT(task))->word);
    return word >> 32 == PYC_TASK_GENERATION(task) ? PYC_CLAIM_IS(word)
                                                   : PYC_OVER;
}

/* From one state to another: whether it was in the first. */
static inline bool
pyc_board_move(pyc_board *self, uint64_t task, uint32_t from, uint32_t to)
{
    pyc_claim *claim = pyc_board_claim(self, PYC_TASK_SLOT(task));
    uint64_t expected = PYC_CLAIM(PYC_TASK_GENERATION(task), from);
    return atomic_compare_exchange_strong(
        &claim->word, &expected, PYC_CLAIM(PYC_TASK_GENERATION(task), to));
}

/* For the parent alone. */
static inline void
pyc_board_set(pyc_board *self, uint64_t task, uint32_t what)
{
    atomic_store(&pyc_board_claim(self, PYC_TASK_SLOT(task))->word,
                 PYC_CLAIM(PYC_TASK_GENERATION(task), what));
}

#endif
