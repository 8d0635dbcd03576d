/* SPDX-License-Identifier: MIT */
/* What an arena's memory looks like, and what each process keeps beside it:
 * for the files that are the arena. */
#ifndef PYC_IPC_LAYOUT_H
#define PYC_IPC_LAYOUT_H

#include "ipc/arena.h"

#define PYC_ARENA_MAGIC                                                        \
    UINT64_C(0x31306e65726170) /* changes with the layout                      \
                                */
#define PYC_ARENA_SIZE (512 * 1024)
#define PYC_PLACES 512 /* processes of one arena, less one */
#define PYC_PAGE_SIZE (16 * 1024)
#define PYC_FIRST_PAGE                                                         \
    3 /* those before it are the header's and the table's                      \
       */
#define PYC_PAGES (PYC_ARENA_SIZE / PYC_PAGE_SIZE)
#define PYC_LEAST_BLOCK 128 /* with its header */

/* An owner is a place in the table and how often that was given away. */
#define PYC_PLACE_BITS 9
#define PYC_OWNER_BITS 30
/* For processes for which there was no place: taken to live for ever. */
#define PYC_NOBODY (PYC_PLACES - 1)

/* A process in the table. */
typedef struct {
    _Atomic uint32_t state; /* 0, or a pid and one of the below */
    _Atomic uint32_t generation;
    _Atomic uint64_t start; /* of the process; of a reservation: its time */
    unsigned char bell[16];
    _Atomic uint32_t missed; /* a ring did not fit into its bell's queue */
    char fill[28];
} pyc_place;

enum {
    PYC_PLACE_BUSY = 1, /* that process fills it in or clears it */
    PYC_PLACE_LIVE,
    PYC_PLACE_RESERVED, /* by that process for a child */
};
#define PYC_PLACE_STATE(pid, status) ((uint32_t)(pid) << 2 | (status))
#define PYC_PLACE_PID(state) ((int)((state) >> 2))
#define PYC_PLACE_STATUS(state) ((state) & 3)

/* What comes before the memory of each block. `word` says who has it: 0 when
 * it is free. */
typedef struct {
    _Atomic uint64_t word;
    _Atomic uint32_t generation;
    _Atomic uint32_t kind;
    char fill[48];
} pyc_block_header;

/* The word's bits: one for each of the first places, */
#define PYC_HOLDERS 46
/* one for good, when a process of another place has it, */
#define PYC_FOR_GOOD (UINT64_C(1) << PYC_HOLDERS)
/* one while who took it gives it a new generation and empties it, so that a
 * pickle of the use before finds nothing, */
#define PYC_UNREADY (UINT64_C(1) << 47)
/* and the number of pickles on their way. */
#define PYC_SENT_ONE (UINT64_C(1) << 48)
#define PYC_SENT_MOST UINT64_C(0xffff)
#define PYC_SENT(word) ((word) >> 48)

typedef struct {
    uint64_t magic;
    unsigned char cookie[16];               /* which arena it is */
    _Atomic uint32_t page_sizes[PYC_PAGES]; /* of the blocks in it; 0: none */
} pyc_arena_header;

struct pyc_arena {
    pyc_link link;  /* in the list of the state */
    pyc_ipc *state; /* NULL: nobody's */
    char *memory;
    pyc_owner me;
    int place;
    int fd;
    int child_place;     /* reserved for the child of the newest fork */
    size_t held;         /* blocks this process has */
    uint32_t *held_here; /* by whom: its objects for each block */
    size_t hint;         /* the page where a block was free last */
    bool adopted;        /* was passed on to stay: objects of it will come */
};

static inline pyc_arena_header *
pyc_arena_head(const pyc_arena *arena)
{
    return (pyc_arena_header *)arena->memory;
}

static inline pyc_place *
pyc_arena_places(const pyc_arena *arena)
{
    return (pyc_place *)(arena->memory + PYC_PAGE_SIZE);
}

static inline pyc_block_header *
pyc_header_at(const pyc_arena *arena, uint32_t offset)
{
    return (pyc_block_header *)(arena->memory + offset);
}

static inline uint64_t
pyc_place_bit(int place)
{
    return place <= PYC_HOLDERS ? UINT64_C(1) << (place - 1) : PYC_FOR_GOOD;
}

/* Calls `visit` with each block of the arena, free or not. */
void pyc_arena_each_block(pyc_arena *arena,
                          void (*visit)(pyc_arena *, pyc_block_header *,
                                        uint32_t offset, int place),
                          int place);

/* table.c: gives this process a place, sets me and place. */
void pyc_table_enter(pyc_ipc *state, pyc_arena *arena);
/* The process lets go of all it has in the arena, and of its place. */
void pyc_table_leave(pyc_arena *arena);
/* Takes from dead processes what they had. Whether there was one. */
bool pyc_table_reap(pyc_arena *arena);
void pyc_table_reserve(pyc_arena *arena);
void pyc_table_adopt(pyc_ipc *state, pyc_arena *arena);

/* map.c. A new arena, and one from a descriptor, which is taken over; NULL with
 * an exception set. They are nobody's yet: pyc_arena_discard, or enter. */
pyc_arena *pyc_arena_create(void);
pyc_arena *pyc_arena_open(int fd);
void pyc_arena_discard(pyc_arena *arena);
/* With the guard taken. Nothing is raised under it: an exception may run code
 * that wants the guard or lets go of the GIL. */
void pyc_arena_enter(pyc_ipc *state, pyc_arena *arena);
void pyc_arena_leave(pyc_arena *arena);
pyc_arena *pyc_arena_find(pyc_ipc *state, const char *cookie);

#endif
