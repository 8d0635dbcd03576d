/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "loop/cycle.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

static void *
raise_uv(int code)
{
    /* libuv's codes are negated errno values on every Unix. */
    errno = -code;
    PyErr_SetFromErrno(PyExc_OSError);
    return NULL;
}

void
pyc_watcher_ready(pyc_watcher *self, int events)
{
    events &= self->events; /* another thread may just have changed it */
    if (PYC_UNLIKELY(events == 0 || pyc_loop_forked(self->loop) ||
                     self->loop->failure != NULL)) {
        return; /* after a failure the next run will be told again */
    }
    self->ready(self, events);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    pyc_watcher *self = pyc_container(poll, pyc_watcher, poll);
    pyc_loop_enter(self->loop);
    int asked = self->events;
    if (PYC_LIKELY(status == 0)) {
        pyc_watcher_ready(self, events);
    }
    else if (asked != 0 && !pyc_loop_forked(self->loop)) {
        /* libuv has stopped the poll: the next system call of the owner tells
         * the error. */
        self->events = 0;
        self->ready(self, asked);
    }
}

static void
on_closed(uv_handle_t *handle)
{
    free(pyc_container(handle, pyc_watcher, poll));
}

/* The loop was closed first: the memory stays until the owner is done too. */
static void
on_closed_by_loop(uv_handle_t *handle)
{
    pyc_container(handle, pyc_watcher, poll)->loop = NULL;
}

/* The descriptor behind a watcher was closed under it and its number is in use
 * again: it may no longer touch that number. */
static void
retire(pyc_watcher *self)
{
    self->loop->uv_wanted = 1;
    uv_poll_stop(&self->poll);
    pyc_link_remove(&self->fresh);
    self->loop->watchers[self->fd] = NULL;
    self->events = 0;
    self->fd = -1;
}

/* To let go of when the watcher is not needed any more: its owner may end with
 * it. */
static PyObject *
take_keep(pyc_watcher *self)
{
    PyObject *keep = self->keep;
    self->keep = NULL;
    return keep;
}

static int
make_room(pyc_loop *loop, int fd)
{
    if ((size_t)fd < loop->watchers_size) {
        return 0;
    }
    size_t size = loop->watchers_size == 0 ? 64 : loop->watchers_size;
    while (size <= (size_t)fd) {
        size *= 2;
    }
    pyc_watcher **watchers =
        realloc(loop->watchers, size * sizeof(*loop->watchers));
    if (watchers == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(watchers + loop->watchers_size, 0,
           (size - loop->watchers_size) * sizeof(*watchers));
    loop->watchers = watchers;
    loop->watchers_size = size;
    return 0;
}

pyc_watcher *
pyc_watcher_open(pyc_loop *loop, int fd, pyc_watcher_fn ready, void *owner)
{
    if (fd < 0) {
        return raise_uv(UV_EBADF);
    }
    /* Before room is made: there is no end to the numbers of those that are not
     * open. */
    if (fcntl(fd, F_GETFD) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError), NULL;
    }
    if (pyc_loop_check_usable(loop) < 0 || make_room(loop, fd) < 0) {
        return NULL;
    }
    pyc_watcher *stale = loop->watchers[fd];
    if (stale != NULL) {
        PyObject *keep = take_keep(stale);
        (stale->gone != NULL ? stale->gone : retire)(stale);
        Py_XDECREF(keep);
    }
    loop->uv_wanted = 1;
    pyc_watcher *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        return (pyc_watcher *)PyErr_NoMemory();
    }
    int code = uv_poll_init(&loop->uv, &self->poll, fd);
    if (code < 0) {
        free(self);
        return raise_uv(code);
    }
    self->loop = loop;
    self->ready = ready;
    self->owner = owner;
    self->fd = fd;
    pyc_link_init(&self->fresh);
    pyc_link_init(&self->late);
    loop->watchers[fd] = self;
    return self;
}

/* We are in another thread than the loop, which is inside of libuv without the
 * GIL: it does what is wanted as soon as it has it. */
static void
do_later(pyc_watcher *self)
{
    if (pyc_link_alone(&self->late)) {
        pyc_link_insert(&self->loop->late, &self->late);
    }
    pyc_wake_set(self->loop->wake->fd);
}

void
pyc_watcher_catch_up(pyc_loop *loop)
{
    while (!pyc_link_alone(&loop->late)) {
        pyc_watcher *self = pyc_container(loop->late.next, pyc_watcher, late);
        pyc_link_remove(&self->late);
        loop->uv_wanted = 1;
        if (self->late_close) {
            uv_poll_stop(&self->poll);
            uv_close((uv_handle_t *)&self->poll, on_closed);
        }
        else if (pyc_watcher_set(self, self->late_events) < 0) {
            pyc_loop_fail(loop, pyc_take_exception());
        }
    }
}

int
pyc_watcher_set(pyc_watcher *self, int events)
{
    if (PYC_UNLIKELY(!pyc_link_alone(&self->late))) {
        self->late_events = events;
        return 0;
    }
    if (events == self->events || self->fd < 0) {
        return 0; /* nothing new, or nothing to watch any more */
    }
    if (PYC_UNLIKELY(pyc_loop_forked(self->loop))) {
        pyc_loop_part(self->loop);
    }
    if (PYC_UNLIKELY(self->loop->saved != NULL)) {
        self->late_events = events;
        do_later(self);
        return 0;
    }
    self->loop->uv_wanted = 1;
    pyc_link_remove(&self->fresh);
    int code = events == 0 ? uv_poll_stop(&self->poll)
                           : uv_poll_start(&self->poll, events, on_poll);
    if (code < 0) {
        raise_uv(code);
        return -1;
    }
    self->events = events;
    if (events != 0) {
        pyc_link_insert(&self->loop->fresh, &self->fresh);
    }
    return 0;
}

void
pyc_watcher_close(pyc_watcher *self)
{
    if (self->loop == NULL) {
        free(self);
        return;
    }
    PyObject *keep = take_keep(self);
    if (PYC_UNLIKELY(pyc_loop_forked(self->loop))) {
        pyc_loop_part(self->loop);
    }
    if (PYC_UNLIKELY(self->loop->saved != NULL)) {
        pyc_link_remove(&self->fresh);
        if (self->fd >= 0) {
            self->loop->watchers[self->fd] = NULL;
        }
        self->events = 0; /* it hears nothing any more */
        self->fd = -1;
        self->late_close = 1;
        do_later(self);
    }
    else {
        pyc_link_remove(&self->late);
        if (self->fd >= 0) {
            retire(self);
        }
        self->loop->uv_wanted = 1;
        uv_close((uv_handle_t *)&self->poll, on_closed);
    }
    Py_XDECREF(keep);
}

pyc_watcher *
pyc_watcher_open_own(pyc_loop *loop, int fd, pyc_watcher_fn ready)
{
    if (fd < 0) {
        return PyErr_SetFromErrno(PyExc_OSError), NULL;
    }
    pyc_watcher *self = pyc_watcher_open(loop, fd, ready, NULL);
    if (self != NULL && pyc_watcher_set(self, UV_READABLE) == 0) {
        return self;
    }
    if (self != NULL) {
        pyc_watcher_close(self);
    }
    close(fd);
    return NULL;
}

void
pyc_watcher_close_own(pyc_watcher **watcher)
{
    if (*watcher != NULL) {
        int fd = (*watcher)->fd;
        pyc_watcher_close(*watcher);
        *watcher = NULL;
        if (fd >= 0) {
            close(fd);
        }
    }
}

/* libuv registers new polls when it polls, and aborts the process when one of
 * their descriptors is not open any more, or is a regular file by now. Those
 * stop being watched here; the kernel would have forgotten them as well. */
void
pyc_watcher_check_fresh(pyc_loop *loop)
{
    while (!pyc_link_alone(&loop->fresh)) {
        pyc_watcher *self = pyc_container(loop->fresh.next, pyc_watcher, fresh);
        pyc_link_remove(&self->fresh);
        /* Just to see the error: libuv has taken it out already. */
        struct epoll_event event = {.events = 0};
        loop->uv_wanted = 1;
        if (epoll_ctl(uv_backend_fd(&loop->uv), EPOLL_CTL_DEL, self->fd,
                      &event) < 0 &&
            errno != ENOENT) {
            uv_poll_stop(&self->poll);
            self->events = 0;
        }
    }
}

static void
close_by_loop(uv_handle_t *handle, void *unused)
{
    if (handle->type == UV_POLL && !uv_is_closing(handle)) {
        pyc_watcher *self = pyc_container(handle, pyc_watcher, poll);
        pyc_link_remove(&self->late);
        if (self->fd >= 0) {
            retire(self);
        }
        uv_close(handle, self->late_close ? on_closed : on_closed_by_loop);
    }
}

int
pyc_watcher_traverse(pyc_loop *loop, visitproc visit, void *arg)
{
    for (size_t fd = 0; fd < loop->watchers_size; fd++) {
        if (loop->watchers[fd] != NULL) {
            Py_VISIT(loop->watchers[fd]->keep);
        }
    }
    return 0;
}

void
pyc_watcher_clear(pyc_loop *loop)
{
    for (size_t fd = 0; fd < loop->watchers_size; fd++) {
        if (loop->watchers[fd] != NULL) {
            Py_XDECREF(take_keep(loop->watchers[fd]));
        }
    }
}

void
pyc_watcher_close_all(pyc_loop *loop)
{
    pyc_watcher_clear(loop);
    uv_walk(&loop->uv, close_by_loop, NULL);
}
