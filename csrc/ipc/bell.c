/* SPDX-License-Identifier: MIT */
#include "ipc/bell.h"

#include "ipc/layout.h"
#include "ipc/guard.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Processes of later places share the last bit. */
#define SHARED_BIT 63

static uint64_t
bit_of(int place)
{
    return UINT64_C(1) << (place <= SHARED_BIT ? place - 1 : SHARED_BIT);
}

/* What arrives with a ring: which object's bells they are. */
static uint64_t
key_of(pyc_arena *arena, const pyc_bells *bells)
{
    uint32_t start;
    memcpy(&start, pyc_arena_head(arena)->cookie, sizeof(start));
    return (uint64_t)start << 32 | (uint64_t)((char *)bells - arena->memory);
}

uint64_t
pyc_bells_arm(pyc_arena *arena, pyc_bells *bells)
{
    atomic_fetch_or(&bells->waiting, bit_of(arena->place));
    return key_of(arena, bells);
}

static int
open_socket(void)
{
    return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* A name in the abstract namespace, so that nothing is left in a folder. */
static socklen_t
address_of(const unsigned char *name, struct sockaddr_un *address)
{
    static const char prefix[] = "\0pyconc-";
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, prefix, sizeof(prefix) - 1);
    memcpy(address->sun_path + sizeof(prefix) - 1, name, 16);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof(prefix) -
                       1 + 16);
}

static int
ringer_of(pyc_ipc *state)
{
    pyc_guard_take(state);
    if (state->ringer < 0) {
        state->ringer = open_socket();
    }
    int fd = state->ringer;
    pyc_guard_give(state);
    return fd;
}

/* A queue that is full is told of by `missed`, before the last try: who empties
 * it looks there afterwards. */
static void
ring_one(int ringer, pyc_place *place, uint64_t key)
{
    struct sockaddr_un address;
    socklen_t length = address_of(place->bell, &address);
    for (int i = 0; i < 2; i++) {
        ssize_t n =
            sendto(ringer, &key, sizeof(key), MSG_DONTWAIT | MSG_NOSIGNAL,
                   (struct sockaddr *)&address, length);
        if (n >= 0 || (errno != EAGAIN && errno != EINTR && errno != ENOBUFS)) {
            return;
        }
        atomic_store(&place->missed, 1);
    }
}

void
pyc_bells_ring_now(pyc_ipc *state, pyc_arena *arena, pyc_bells *bells)
{
    uint64_t waiting = atomic_exchange(&bells->waiting, 0);
    uint64_t key = key_of(arena, bells);
    pyc_place *places = pyc_arena_places(arena);
    int ringer = ringer_of(state);
    for (int i = 1; waiting != 0 && i < PYC_NOBODY; i++) {
        uint32_t live = atomic_load(&places[i].state);
        if ((waiting & bit_of(i)) && PYC_PLACE_STATUS(live) == PYC_PLACE_LIVE) {
            ring_one(ringer, &places[i], key);
        }
        if (i <= SHARED_BIT) {
            waiting &= ~bit_of(i);
        }
    }
}

static int
open_bell(pyc_ipc *state)
{
    struct sockaddr_un address;
    int fd = open_socket();
    if (fd < 0) {
        return -1;
    }
    socklen_t length = address_of(state->bell_name, &address);
    if (bind(fd, (struct sockaddr *)&address, length) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

PyObject *
pyc_bell_descriptor(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    pyc_ipc *state = pyc_ipc_of_module(module);
    pyc_guard_take(state);
    if (state->bell < 0) {
        state->bell = open_bell(state);
    }
    int fd = state->bell;
    pyc_guard_give(state);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

static bool
any_missed(pyc_ipc *state)
{
    bool missed = false;
    pyc_guard_take(state);
    for (pyc_link *at = state->arenas.next; at != &state->arenas;
         at = at->next) {
        pyc_arena *arena = pyc_container(at, pyc_arena, link);
        pyc_place *place = &pyc_arena_places(arena)[arena->place];
        missed |= atomic_exchange(&place->missed, 0) != 0;
    }
    pyc_guard_give(state);
    return missed;
}

PyObject *
pyc_bell_rung(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    pyc_ipc *state = pyc_ipc_of_module(module);
    PyObject *keys = PySet_New(NULL);
    uint64_t key;
    while (keys != NULL && recv(state->bell, &key, sizeof(key), MSG_DONTWAIT) ==
                               (ssize_t)sizeof(key)) {
        PyObject *number = PyLong_FromUnsignedLongLong(key);
        if (number == NULL || PySet_Add(keys, number) < 0) {
            Py_CLEAR(keys);
        }
        Py_XDECREF(number);
    }
    if (keys != NULL && any_missed(state)) {
        Py_DECREF(keys);
        Py_RETURN_NONE;
    }
    return keys;
}

void
pyc_bell_close(pyc_ipc *state)
{
    if (state->bell >= 0) {
        close(state->bell);
    }
    if (state->ringer >= 0) {
        close(state->ringer);
    }
    state->bell = state->ringer = -1;
}
