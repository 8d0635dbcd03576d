/* SPDX-License-Identifier: MIT */
#ifndef PYC_IPC_CONDITION_H
#define PYC_IPC_CONDITION_H

#include "ipc/lock.h"
#include "ipc/luck.h"
#include "ipc/seats.h"

extern PyType_Spec pyc_condition_spec;

typedef struct {
    pyc_shared shared; /* extra: the Lock or RLock */
    int64_t looked;    /* when owners were last asked whether they are alive */
    pyc_luck luck;
} pyc_condition;

#define PYC_CONDITION_SEATS(self) PYC_MEMORY(self, pyc_seats)
#define PYC_CONDITION_LOCK(self) ((pyc_ipc_lock *)(self)->shared.extra)

/* One wait. */
typedef struct {
    pyc_condition *condition;
    uint64_t who;
    uint32_t depth;  /* of the lock, for afterwards */
    uint32_t number; /* its own, or how many calls there had been */
    int32_t at;      /* its seat, -1: in the crowd */
    int32_t heir;    /* the seat of a dead one whose notification it got */
    pyc_rest rest;   /* of a thread */
} pyc_condition_wait;

/* Takes a seat and lets go of the lock, which the caller has. */
void pyc_condition_begin(pyc_condition_wait *wait);
/* Whether it was notified. */
bool pyc_condition_heard(pyc_condition_wait *wait);
/* Looks whether somebody died in his seat. */
void pyc_condition_look(pyc_condition_wait *wait);
/* No longer waits: whether it was notified nevertheless. */
bool pyc_condition_leave(pyc_condition_wait *wait);
/* With the lock, at last. `passes_on`: another one is to be notified in its
 * seat. */
void pyc_condition_end(pyc_condition_wait *wait, bool passes_on);
/* Without the lock, for ever: what it was notified of, another one inherits. */
void pyc_condition_desert(pyc_condition_wait *wait);

/* Notifies up to `count` of those who wait; the caller has the lock. */
void pyc_condition_notify(pyc_condition *self, size_t count);

#endif
