/* SPDX-License-Identifier: MIT */
/* Arenas made, found and mapped. */
#include "ipc/layout.h"
#include "ipc/memory.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* Takes the descriptor over. */
static pyc_arena *
map(int fd)
{
    pyc_arena *arena = PyMem_RawCalloc(1, sizeof(*arena));
    if (arena == NULL) {
        PyErr_NoMemory();
        close(fd);
        return NULL;
    }
    arena->held_here = PyMem_RawCalloc(PYC_ARENA_SIZE / PYC_LEAST_BLOCK,
                                       sizeof(*arena->held_here));
    if (arena->held_here == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    arena->memory = mmap(NULL, PYC_ARENA_SIZE, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_POPULATE, fd, 0);
    if (arena->memory == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto fail;
    }
    arena->fd = fd;
    return arena;
fail:
    PyMem_RawFree(arena->held_here);
    PyMem_RawFree(arena);
    close(fd);
    return NULL;
}

static void
unmap(pyc_arena *arena)
{
    munmap(arena->memory, PYC_ARENA_SIZE);
    PyMem_RawFree(arena->held_here);
    PyMem_RawFree(arena);
}

void
pyc_arena_discard(pyc_arena *arena)
{
    close(arena->fd);
    unmap(arena);
}

pyc_arena *
pyc_arena_create(void)
{
    int fd = pyc_memory_open("pyconc-arena", PYC_ARENA_SIZE, 0);
    pyc_arena *arena = fd < 0 ? NULL : map(fd);
    if (arena == NULL) {
        return NULL;
    }
    pyc_arena_header *head = pyc_arena_head(arena);
    if (getrandom(head->cookie, sizeof(head->cookie), 0) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        pyc_arena_discard(arena);
        return NULL;
    }
    head->magic = PYC_ARENA_MAGIC;
    return arena;
}

pyc_arena *
pyc_arena_find(pyc_ipc *state, const char *cookie)
{
    for (pyc_link *at = state->arenas.next; at != &state->arenas;
         at = at->next) {
        pyc_arena *arena = pyc_container(at, pyc_arena, link);
        if (memcmp(pyc_arena_head(arena)->cookie, cookie, 16) == 0) {
            return arena;
        }
    }
    return NULL;
}

pyc_arena *
pyc_arena_open(int fd)
{
    if (pyc_memory_check(fd, PYC_ARENA_SIZE) < 0) {
        close(fd);
        return NULL;
    }
    pyc_arena *arena = map(fd);
    if (arena != NULL && pyc_arena_head(arena)->magic != PYC_ARENA_MAGIC) {
        PyErr_Format(PyExc_ValueError,
                     "descriptor %d is no arena of this version of pyconc", fd);
        pyc_arena_discard(arena);
        return NULL;
    }
    return arena;
}

void
pyc_arena_enter(pyc_ipc *state, pyc_arena *arena)
{
    arena->state = state;
    pyc_table_enter(state, arena);
    pyc_link_insert(&state->arenas, &arena->link);
}

void
pyc_arena_leave(pyc_arena *arena)
{
    pyc_table_leave(arena);
    pyc_link_remove(&arena->link);
    if (arena->state->newest == arena) {
        arena->state->newest = NULL;
    }
    pyc_arena_discard(arena);
}
