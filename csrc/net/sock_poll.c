/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/sock_op.h"
#include "net/sock_poll.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BULK = 32 * 1024 };

typedef struct {
    PyObject *ref; /* the socket, weakly; NULL: never used */
    PyObject *waiters[2];
    uint32_t generation; /* of the socket, in its events */
    uint32_t registered; /* events; 0: not in the set */
    char ready;          /* PYC_SOCK_READ | PYC_SOCK_WRITE */
    char ended;          /* its reads may never block again */
    char is_tcp;
    char bulk; /* its last read got much */
} entry;

typedef struct {
    PyObject_HEAD
    pyc_watcher *watcher;
    entry *entries; /* by descriptor */
    size_t size;
    int epoll_fd;
} sock_poll;

static inline sock_poll *
poll_of(pyc_loop *loop)
{
    return (sock_poll *)loop->sock_poll;
}

static inline PyObject **
waiter_of(entry *self, int kind)
{
    return &self->waiters[kind == PYC_SOCK_WRITE];
}

/* What is known of this very socket; NULL when nothing is. */
static entry *
known(pyc_loop *loop, int fd, PyObject *sock)
{
    sock_poll *self = poll_of(loop);
    if (self == NULL || (size_t)fd >= self->size ||
        self->entries[fd].ref == NULL) {
        return NULL;
    }
    PyObject *target = pyc_weakref_get(self->entries[fd].ref);
    Py_XDECREF(target);
    return target == sock ? &self->entries[fd] : NULL;
}

/* ---- what is known ----------------------------------------------------- */

static const uint32_t events_of[] = {
    [PYC_SOCK_READ] = EPOLLIN | EPOLLRDHUP | EPOLLPRI,
    [PYC_SOCK_WRITE] = EPOLLOUT,
};

int
pyc_sock_may_be_ready(pyc_loop *loop, int fd, PyObject *sock, int kind)
{
    entry *self = known(loop, fd, sock);
    return self == NULL || self->ended || self->ready & kind ||
           (self->registered & events_of[kind]) != events_of[kind];
}

void
pyc_sock_is_drained(pyc_loop *loop, int fd, PyObject *sock, int kind)
{
    entry *self = known(loop, fd, sock);
    if (self != NULL) {
        self->ready &= (char)~kind;
    }
}

void
pyc_sock_has_read(pyc_loop *loop, int fd, PyObject *sock, size_t got,
                  size_t asked)
{
    entry *self = known(loop, fd, sock);
    /* Elsewhere there may be more behind the end of a message. */
    if (self == NULL || !self->is_tcp) {
        return;
    }
    self->bulk = got >= BULK;
    if (got > 0 && got < asked) {
        self->ready &= ~PYC_SOCK_READ;
    }
}

int
pyc_sock_reads_bulk(pyc_loop *loop, int fd, PyObject *sock)
{
    entry *self = known(loop, fd, sock);
    return self != NULL && self->bulk;
}

/* ---- the set ----------------------------------------------------------- */

static int
control(sock_poll *self, int operation, int fd, uint32_t events)
{
    struct epoll_event event = {
        .events = events | EPOLLET,
        .data.u64 = (uint64_t)self->entries[fd].generation << 32 | (uint32_t)fd,
    };
    int code = epoll_ctl(self->epoll_fd, operation, fd, &event);
    if (code == 0) {
        self->entries[fd].registered = events;
    }
    return code;
}

static void
take_event(sock_poll *self, uint64_t data, uint32_t events)
{
    size_t fd = (uint32_t)data;
    if (fd >= self->size || self->entries[fd].generation != data >> 32) {
        return; /* of a socket closed here that another process has open */
    }
    entry *socket = &self->entries[fd];
    int failed = (events & (EPOLLERR | EPOLLHUP)) != 0;
    socket->ended |= failed || (events & (EPOLLRDHUP | EPOLLPRI)) != 0;
    if (failed || events & events_of[PYC_SOCK_READ]) {
        socket->ready |= PYC_SOCK_READ;
    }
    if (failed || events & EPOLLOUT) {
        socket->ready |= PYC_SOCK_WRITE;
    }
    for (int kind = PYC_SOCK_READ; kind <= PYC_SOCK_WRITE; kind++) {
        socket = &self->entries[fd]; /* callbacks may move it */
        PyObject *waiter = *waiter_of(socket, kind);
        if (waiter != NULL && socket->ready & kind) {
            Py_INCREF(waiter);
            pyc_sock_op_ready(waiter);
            Py_DECREF(waiter);
        }
    }
    socket = &self->entries[fd];
    if (events & EPOLLOUT && !socket->is_tcp &&
        *waiter_of(socket, PYC_SOCK_WRITE) == NULL) {
        /* Any but TCP reports each time that some room gets free. */
        control(self, EPOLL_CTL_MOD, (int)fd, events_of[PYC_SOCK_READ]);
    }
}

static void
on_ready(pyc_watcher *watcher, int events)
{
    enum { BATCH = 64 };
    struct epoll_event batch[BATCH];
    sock_poll *self = watcher->owner;
    Py_INCREF(self);
    int n = epoll_wait(self->epoll_fd, batch, BATCH, 0);
    for (int i = 0; i < n; i++) {
        take_event(self, batch[i].data.u64, batch[i].events);
    }
    Py_DECREF(self);
}

static int
make(pyc_loop *loop)
{
    PyTypeObject *type = loop->state->sock_poll_type;
    sock_poll *self = (sock_poll *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return -1;
    }
    self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (self->epoll_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto fail;
    }
    self->watcher = pyc_watcher_open(loop, self->epoll_fd, on_ready, self);
    if (self->watcher == NULL ||
        pyc_watcher_set(self->watcher, UV_READABLE) < 0) {
        goto fail;
    }
    loop->sock_poll = (PyObject *)self;
    return 0;
fail:
    Py_DECREF(self);
    return -1;
}

static int
make_room(sock_poll *self, size_t fd)
{
    size_t size = self->size == 0 ? 64 : self->size;
    if (fd < self->size) {
        return 0;
    }
    while (size <= fd) {
        size *= 2;
    }
    entry *entries = PyMem_Realloc(self->entries, size * sizeof(entry));
    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(entries + self->size, 0, (size - self->size) * sizeof(entry));
    self->entries = entries;
    self->size = size;
    return 0;
}

/* Forgets the socket that had the number before, with those who wait for it in
 * vain. */
static entry *
renew(sock_poll *self, int fd, PyObject *sock)
{
    PyObject *ref = PyWeakref_NewRef(sock, NULL);
    if (ref == NULL) {
        return NULL;
    }
    entry old = self->entries[fd];
    int protocol = 0;
    socklen_t len = sizeof(protocol);
    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len);
    self->entries[fd] = (entry){.ref = ref,
                                .generation = old.generation + 1,
                                .is_tcp = protocol == IPPROTO_TCP};
    Py_XDECREF(old.ref);
    Py_XDECREF(old.waiters[0]);
    Py_XDECREF(old.waiters[1]);
    return &self->entries[fd];
}

/* Registers for `events` with all that is ready now reported again. */
static int
watch(sock_poll *self, int fd, uint32_t events)
{
    int code = control(self, EPOLL_CTL_MOD, fd, events);
    if (code < 0 && errno == ENOENT) {
        code = control(self, EPOLL_CTL_ADD, fd, events);
    }
    if (code < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return code;
}

/* As in asyncio's loop an operation takes the place of a callback. */
static int
displace_callback(pyc_loop *loop, int fd, PyObject *sock, int kind)
{
    if ((size_t)fd >= loop->watchers_size || loop->watchers[fd] == NULL) {
        return 0;
    }
    PyObject *done = PyObject_CallMethodOneArg(
        (PyObject *)loop,
        kind == PYC_SOCK_READ ? loop->state->str_remove_reader
                              : loop->state->str_remove_writer,
        sock);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int
pyc_sock_wait(pyc_loop *loop, int fd, PyObject *sock, int kind,
              PyObject *waiter, int anew)
{
    if (displace_callback(loop, fd, sock, kind) < 0 ||
        (loop->sock_poll == NULL && make(loop) < 0) ||
        make_room(poll_of(loop), (size_t)fd) < 0) {
        return -1;
    }
    sock_poll *self = poll_of(loop);
    entry *socket = known(loop, fd, sock);
    if (socket == NULL) {
        socket = renew(self, fd, sock);
        if (socket == NULL) {
            return -1;
        }
    }
    uint32_t events = socket->registered | events_of[kind];
    if ((anew || events != socket->registered) && watch(self, fd, events) < 0) {
        return -1;
    }
    Py_XSETREF(*waiter_of(socket, kind), Py_NewRef(waiter));
    return 0;
}

void
pyc_sock_forget(pyc_loop *loop, int fd, int kind, PyObject *waiter)
{
    sock_poll *self = poll_of(loop);
    if (self == NULL || (size_t)fd >= self->size ||
        *waiter_of(&self->entries[fd], kind) != waiter) {
        return;
    }
    *waiter_of(&self->entries[fd], kind) = NULL;
    Py_DECREF(waiter);
}

/* ---- the object, seen by the collector alone --------------------------- */

static int
sock_poll_traverse(sock_poll *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (size_t fd = 0; fd < self->size; fd++) {
        Py_VISIT(self->entries[fd].ref);
        Py_VISIT(self->entries[fd].waiters[0]);
        Py_VISIT(self->entries[fd].waiters[1]);
    }
    return 0;
}

static int
sock_poll_clear(sock_poll *self)
{
    for (size_t fd = 0; fd < self->size; fd++) {
        entry old = self->entries[fd];
        self->entries[fd] = (entry){.generation = old.generation + 1};
        Py_XDECREF(old.ref);
        Py_XDECREF(old.waiters[0]);
        Py_XDECREF(old.waiters[1]);
    }
    return 0;
}

static void
sock_poll_dealloc(sock_poll *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    sock_poll_clear(self);
    PyMem_Free(self->entries);
    if (self->watcher != NULL) {
        pyc_watcher_close(self->watcher);
    }
    if (self->epoll_fd >= 0) {
        close(self->epoll_fd);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot sock_poll_slots[] = {
    {Py_tp_dealloc, sock_poll_dealloc},
    {Py_tp_traverse, sock_poll_traverse},
    {Py_tp_clear, sock_poll_clear},
    {0, NULL},
};

static PyType_Spec sock_poll_spec = {
    .name = "pyconc._core._SockPoll",
    .basicsize = sizeof(sock_poll),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sock_poll_slots,
};

int
pyc_sock_poll_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &sock_poll_spec, NULL, &state->sock_poll_type);
}
