/* SPDX-License-Identifier: MIT */
/* Blocks: taken, let go, sent and received. */
#include "ipc/layout.h"
#include "ipc/memory.h"
#include "ipc/guard.h"

#include <string.h>
#include <unistd.h>

#define HEADER ((uint32_t)sizeof(pyc_block_header))

static uint64_t
word_of(pyc_block_header *block)
{
    return atomic_load(&block->word);
}

static bool
change(pyc_block_header *block, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong(&block->word, &from, to);
}

static uint32_t *
held_here(const pyc_block *block)
{
    return &block->arena->held_here[block->offset / PYC_LEAST_BLOCK];
}

static void
fill(pyc_block *block, pyc_arena *arena, uint32_t offset)
{
    pyc_block_header *header = pyc_header_at(arena, offset);
    block->arena = arena;
    block->offset = offset;
    block->generation = atomic_load(&header->generation);
    block->memory = header + 1;
    ++*held_here(block);
    arena->held++;
}

/* The offset of a block of the page that is this process's now; 0: all are
 * taken. */
static uint32_t
take_in_page(pyc_arena *arena, uint32_t page, uint32_t size)
{
    uint64_t bit = pyc_place_bit(arena->place);
    uint32_t start = page * PYC_PAGE_SIZE;
    for (uint32_t at = 0; at + size <= PYC_PAGE_SIZE; at += size) {
        pyc_block_header *block = pyc_header_at(arena, start + at);
        if (word_of(block) == 0 && change(block, 0, bit | PYC_UNREADY)) {
            return start + at;
        }
    }
    return 0;
}

static bool
page_has(pyc_arena *arena, uint32_t page, uint32_t size)
{
    _Atomic uint32_t *slot = &pyc_arena_head(arena)->page_sizes[page];
    uint32_t free_page = 0;
    return atomic_load(slot) == size ||
           (atomic_load(slot) == 0 &&
            (atomic_compare_exchange_strong(slot, &free_page, size) ||
             free_page == size));
}

static uint32_t
take_in_arena(pyc_arena *arena, uint32_t size)
{
    size_t hint = arena->hint;
    for (uint32_t i = 0; i < PYC_PAGES - PYC_FIRST_PAGE; i++) {
        uint32_t page = PYC_FIRST_PAGE +
                        (uint32_t)((hint + i) % (PYC_PAGES - PYC_FIRST_PAGE));
        uint32_t offset =
            page_has(arena, page, size) ? take_in_page(arena, page, size) : 0;
        if (offset != 0) {
            arena->hint = page - PYC_FIRST_PAGE;
            return offset;
        }
    }
    return 0;
}

/* From the newest arena, or else from any, after a look for the dead. */
static uint32_t
take(pyc_ipc *state, uint32_t size, pyc_arena **arena)
{
    uint32_t offset = 0;
    *arena = state->newest;
    if (*arena != NULL) {
        offset = take_in_arena(*arena, size);
    }
    for (pyc_link *at = state->arenas.next; offset == 0 && at != &state->arenas;
         at = at->next) {
        *arena = pyc_container(at, pyc_arena, link);
        pyc_table_reap(*arena);
        offset = take_in_arena(*arena, size);
    }
    return offset;
}

/* Whether there was one. `more` is a new arena, or NULL. */
static bool
take_new(pyc_ipc *state, uint32_t size, uint32_t kind, pyc_arena *more,
         pyc_block *block)
{
    pyc_arena *arena;
    pyc_guard_take(state);
    if (more != NULL) {
        pyc_arena_enter(state, more);
        state->newest = more;
    }
    uint32_t offset = take(state, size, &arena);
    if (offset != 0) {
        pyc_block_header *header = pyc_header_at(arena, offset);
        atomic_fetch_add(&header->generation, 1);
        atomic_store(&header->kind, kind);
        memset(header + 1, 0, size - HEADER);
        atomic_fetch_and(&header->word, ~PYC_UNREADY);
        fill(block, arena, offset);
        state->newest = arena;
    }
    pyc_guard_give(state);
    return offset != 0;
}

int
pyc_block_new(pyc_ipc *state, size_t size, uint32_t kind, pyc_block *block)
{
    uint32_t with_header = PYC_LEAST_BLOCK;
    while (with_header - HEADER < size) {
        with_header *= 2;
    }
    pyc_arena *more = NULL;
    while (!take_new(state, with_header, kind, more, block)) {
        more = pyc_arena_create();
        if (more == NULL) {
            return -1;
        }
    }
    return 0;
}

static void
count_sent(pyc_arena *arena, pyc_block_header *block, uint32_t offset,
           int place)
{
    if (PYC_SENT(word_of(block)) != 0) {
        arena->hint = SIZE_MAX;
    }
}

/* Others may want to open the arena here when something is on its way. */
static bool
is_wanted(pyc_arena *arena)
{
    arena->hint = 0;
    pyc_arena_each_block(arena, count_sent, 0);
    bool wanted = arena->hint != 0;
    arena->hint = 0;
    return wanted;
}

void
pyc_block_drop(pyc_block *block)
{
    pyc_arena *arena = block->arena;
    if (arena == NULL) {
        return;
    }
    pyc_ipc *state = arena->state;
    pyc_guard_take(state);
    uint64_t bit = pyc_place_bit(arena->place);
    if (--*held_here(block) == 0 && bit != PYC_FOR_GOOD) {
        atomic_fetch_and(&pyc_header_at(arena, block->offset)->word, ~bit);
    }
    arena->held--;
    if (arena->held == 0 && arena != state->newest && !arena->adopted &&
        !is_wanted(arena)) {
        pyc_arena_leave(arena);
    }
    pyc_guard_give(state);
    block->arena = NULL;
}

static void
add_sent(pyc_block_header *header)
{
    uint64_t word = word_of(header);
    while (PYC_SENT(word) < PYC_SENT_MOST &&
           !change(header, word, word + PYC_SENT_ONE)) {
        word = word_of(header);
    }
}

/* A count that was full once stays so. */
static uint64_t
less_one_sent(uint64_t word)
{
    return PYC_SENT(word) == 0 || PYC_SENT(word) == PYC_SENT_MOST
               ? word
               : word - PYC_SENT_ONE;
}

PyObject *
pyc_block_send(const pyc_block *block)
{
    pyc_arena *arena = block->arena;
    PyObject *sent =
        Py_BuildValue("(y#iiII)", pyc_arena_head(arena)->cookie, (Py_ssize_t)16,
                      (int)getpid(), arena->fd, (unsigned)block->offset,
                      (unsigned)block->generation);
    if (sent != NULL) {
        add_sent(pyc_header_at(arena, block->offset));
    }
    return sent;
}

static bool
is_block(pyc_arena *arena, uint32_t offset)
{
    uint32_t page = offset / PYC_PAGE_SIZE;
    if (page < PYC_FIRST_PAGE || page >= PYC_PAGES) {
        return false;
    }
    uint32_t size = atomic_load(&pyc_arena_head(arena)->page_sizes[page]);
    return size >= PYC_LEAST_BLOCK && offset % PYC_PAGE_SIZE % size == 0;
}

/* Whether the block was there still, and is this process's now, too. */
static bool
hold(pyc_arena *arena, uint32_t offset, uint32_t generation, uint32_t kind)
{
    pyc_block_header *header = pyc_header_at(arena, offset);
    uint64_t bit = pyc_place_bit(arena->place);
    uint64_t word = word_of(header);
    for (;;) {
        if (word == 0 || (word & PYC_UNREADY) ||
            atomic_load(&header->generation) != generation ||
            atomic_load(&header->kind) != kind) {
            return false;
        }
        if (change(header, word, less_one_sent(word) | bit)) {
            break;
        }
        word = word_of(header);
    }
    /* It may have been freed and taken again in between. */
    if (atomic_load(&header->generation) == generation) {
        return true;
    }
    if (less_one_sent(word) != word) {
        add_sent(header);
    }
    if (!(word & bit)) {
        atomic_fetch_and(&header->word, ~bit);
    }
    return false;
}

typedef struct {
    const char *cookie;
    int pid, fd;
    unsigned offset, generation, kind;
} sent_block;

enum outcome { RECEIVED, ARENA_UNKNOWN, NO_BLOCK, GONE };

/* `opened` is the arena, if it was not known before; it may be another's. */
static enum outcome
find_sent(pyc_ipc *state, const sent_block *sent, pyc_arena *opened,
          pyc_block *block)
{
    pyc_arena *arena = pyc_arena_find(state, sent->cookie);
    if (arena == NULL) {
        if (opened == NULL ||
            memcmp(pyc_arena_head(opened)->cookie, sent->cookie, 16) != 0) {
            return ARENA_UNKNOWN;
        }
        arena = opened;
        pyc_arena_enter(state, arena);
    }
    enum outcome outcome = NO_BLOCK;
    if (is_block(arena, sent->offset)) {
        outcome = hold(arena, sent->offset, sent->generation, sent->kind)
                      ? RECEIVED
                      : GONE;
    }
    if (outcome == RECEIVED) {
        fill(block, arena, sent->offset);
    }
    else if (arena == opened) {
        pyc_table_leave(arena);
        pyc_link_remove(&arena->link);
        arena->state = NULL;
    }
    return outcome;
}

static int
receive(pyc_ipc *state, const sent_block *sent, PyObject *tuple,
        pyc_block *block)
{
    pyc_arena *opened = NULL;
    enum outcome outcome;
    for (;;) {
        pyc_guard_take(state);
        outcome = find_sent(state, sent, opened, block);
        pyc_guard_give(state);
        if (outcome != ARENA_UNKNOWN || opened != NULL) {
            break;
        }
        int fd = pyc_memory_open_of(sent->pid, sent->fd);
        opened = fd < 0 ? NULL : pyc_arena_open(fd);
        if (opened == NULL) {
            return -1;
        }
    }
    if (opened != NULL && opened->state == NULL) {
        pyc_arena_discard(opened);
    }
    if (outcome == NO_BLOCK) {
        PyErr_Format(PyExc_ValueError, "no shared object: %R", tuple);
    }
    else if (outcome != RECEIVED) {
        PyErr_SetString(PyExc_FileNotFoundError,
                        "the shared object is gone: no process had it any "
                        "longer when it arrived");
    }
    return outcome == RECEIVED ? 0 : -1;
}

int
pyc_block_receive(pyc_ipc *state, PyObject *tuple, uint32_t kind,
                  pyc_block *block)
{
    Py_ssize_t length;
    sent_block sent = {.kind = kind};
    if (!PyTuple_Check(tuple)) {
        PyErr_Format(PyExc_TypeError, "a tuple of send(), not %R", tuple);
        return -1;
    }
    if (!PyArg_ParseTuple(tuple, "y#iiII", &sent.cookie, &length, &sent.pid,
                          &sent.fd, &sent.offset, &sent.generation)) {
        return -1;
    }
    if (length != 16) {
        PyErr_Format(PyExc_ValueError, "no shared object: %R", tuple);
        return -1;
    }
    return receive(state, &sent, tuple, block);
}

void
pyc_block_arrived(const pyc_block *block)
{
    pyc_block_header *header = pyc_header_at(block->arena, block->offset);
    uint64_t word = word_of(header);
    while (!change(header, word, less_one_sent(word))) {
        word = word_of(header);
    }
}

void
pyc_block_recall(const pyc_block *block)
{
    atomic_fetch_and(&pyc_header_at(block->arena, block->offset)->word,
                     PYC_SENT_ONE - 1);
}

bool
pyc_block_is_sent(const pyc_block *block)
{
    return PYC_SENT(word_of(pyc_header_at(block->arena, block->offset))) != 0;
}

bool
pyc_block_is_shared(const pyc_block *block)
{
    uint64_t bit = pyc_place_bit(block->arena->place);
    return (word_of(pyc_header_at(block->arena, block->offset)) & ~bit) != 0;
}

int
pyc_block_fd(const pyc_block *block)
{
    return block->arena->fd;
}

int
pyc_arena_adopt(pyc_ipc *state, int fd)
{
    pyc_guard_take(state);
    bool known = false;
    for (pyc_link *at = state->arenas.next; at != &state->arenas;
         at = at->next) {
        known |= pyc_container(at, pyc_arena, link)->fd == fd;
    }
    pyc_guard_give(state);
    if (known) {
        return 0;
    }
    pyc_arena *arena = pyc_arena_open(fd);
    if (arena == NULL) {
        return -1;
    }
    pyc_guard_take(state);
    known =
        pyc_arena_find(state, (char *)pyc_arena_head(arena)->cookie) != NULL;
    if (!known) {
        pyc_arena_enter(state, arena);
        arena->adopted = true;
    }
    pyc_guard_give(state);
    if (known) {
        pyc_arena_discard(arena);
    }
    return 0;
}

void
pyc_arenas_before_fork(pyc_ipc *state)
{
    for (pyc_link *at = state->arenas.next; at != &state->arenas;
         at = at->next) {
        pyc_table_reserve(pyc_container(at, pyc_arena, link));
    }
}

void
pyc_arenas_after_fork_in_child(pyc_ipc *state)
{
    for (pyc_link *at = state->arenas.next; at != &state->arenas;
         at = at->next) {
        pyc_table_adopt(state, pyc_container(at, pyc_arena, link));
    }
}

void
pyc_arenas_free(pyc_ipc *state)
{
    while (!pyc_link_alone(&state->arenas)) {
        pyc_arena_leave(pyc_container(state->arenas.next, pyc_arena, link));
    }
}
