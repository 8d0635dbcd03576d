/* SPDX-License-Identifier: MIT */
/* Small objects in memory that processes share.
 *
 * An arena is one memfd, mapped by each process that has an object of it. It
 * holds a table of these processes and blocks of a few sizes. A block is free
 * when no process of the table holds it and no pickle of it is under way, all
 * of which is one word of the block: nothing is left in between when a process
 * is killed, and what a dead process held is taken from it by the next that
 * needs memory. */
#ifndef PYC_IPC_ARENA_H
#define PYC_IPC_ARENA_H

#include "ipc/state.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PYC_BLOCK_MOST 4032 /* bytes of the largest block */

/* One process, in one arena: what a lock's word says of who has it. Never 0;
 * below 2**30; not used again for another process while it may still be read
 * somewhere. */
typedef uint32_t pyc_owner;

/* An arena as this process maps it; shared by its blocks and freed after the
 * last of them. */
typedef struct pyc_arena pyc_arena;

/* A block of an arena that this process holds; it belongs to one object. */
typedef struct {
    pyc_arena *arena; /* NULL: none */
    uint32_t offset;
    uint32_t generation; /* of the use of this place */
    void *memory;        /* aligned to 64 bytes */
} pyc_block;

/* This process. One load. */
pyc_owner pyc_arena_me(const pyc_arena *arena);

/* Whether that process is gone: killed, ended or (its place) given to another
 * one. A few system calls. */
bool pyc_arena_owner_is_dead(pyc_arena *arena, pyc_owner owner);

/* Its pid, as far as it is known, for messages; else 0. */
int pyc_arena_owner_pid(pyc_arena *arena, pyc_owner owner);

/* A new block of `size` bytes, all zero. `kind` says what it is for: see
 * state.h. 0, or -1 with an exception set. */
int pyc_block_new(pyc_ipc *state, size_t size, uint32_t kind, pyc_block *block);

/* Lets go of it. Does nothing without one. */
void pyc_block_drop(pyc_block *block);

/* What another process makes a block from, a tuple of ints and bytes:
 * (cookie, pid, fd, offset, generation). The block stays until somebody has
 * received it, even when this process drops it. NULL with an exception. */
PyObject *pyc_block_send(const pyc_block *block);

/* The block a tuple speaks of. 0, or -1 with an exception set: ValueError when
 * the tuple makes no sense, FileNotFoundError when nobody has held the block
 * for a while. */
int pyc_block_receive(pyc_ipc *state, PyObject *sent, uint32_t kind,
                      pyc_block *block);

/* A pickle of a block that this process holds has arrived here. */
void pyc_block_arrived(const pyc_block *block);

/* No pickle of the block that is on its way will arrive. */
void pyc_block_recall(const pyc_block *block);

/* Whether a pickle of the block is on its way still. */
bool pyc_block_is_sent(const pyc_block *block);
/* Whether another living process holds it, or a pickle is on its way. */
bool pyc_block_is_shared(const pyc_block *block);

/* The descriptor of a block's arena, for spawned children. */
int pyc_block_fd(const pyc_block *block);

/* Maps the arena behind a descriptor that was passed on, which is taken over,
 * unless it is mapped already. 0, or -1 with an exception set. */
int pyc_arena_adopt(pyc_ipc *state, int fd);

/* Around a fork, with the guard. */
void pyc_arenas_before_fork(pyc_ipc *state);
void pyc_arenas_after_fork_in_child(pyc_ipc *state);

/* For the module's end. */
void pyc_arenas_free(pyc_ipc *state);

#endif
