/* SPDX-License-Identifier: MIT */
/* The lock of what a process keeps about its shared memory.
 *
 * A thread that forks has it from before the fork until after it, in the parent
 * and in the child. What runs in that thread meanwhile, for others' hooks and
 * the collector run Python code, finds it taken by itself; and in the child it
 * finds a process that has a place of its own already. */
#ifndef PYC_IPC_GUARD_H
#define PYC_IPC_GUARD_H

#include "ipc/state.h"

void pyc_guard_take(pyc_ipc *state);
void pyc_guard_give(pyc_ipc *state);

void pyc_guard_before_fork(pyc_ipc *state);
void pyc_guard_after_fork_in_parent(pyc_ipc *state);
/* 0, or -1 with an exception set. */
int pyc_guard_after_fork_in_child(pyc_ipc *state);

/* module.c: who this process is, to others. 0, or -1 with an exception set. */
int pyc_ipc_introduce(pyc_ipc *state);

#endif
