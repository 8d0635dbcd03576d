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
    atomic_size_t *served = &self->loop->served;
    atomic_store_explicit(
        served, atomic_load_explicit(served, memory_order_relaxed) + 1,
        memory_order_relaxed);
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
    Py_CLEAR(self->user);
    return keep;
}

/* libuv and the owner are done with a retired watcher in any order. */
static void
done_with(pyc_watcher *self)
{
    if (atomic_exchange(&self->done_by, 1)) {
        free(self);
    }
}

static void
on_retired(uv_handle_t *handle)
{
    done_with(pyc_container(handle, pyc_watcher, poll));
}

PyObject *
pyc_watcher_user(pyc_watcher *self)
{
    PyObject *user = NULL;
    pyc_lock_take(&self->loop->watching);
    if (self->keep != NULL) {
        user = Py_NewRef(self->keep);
    }
    else if (self->user != NULL) {
        user = pyc_weakref_get(self->user);
    }
    else if (!self->late_close) {
        user = Py_NewRef(Py_None);
    }
    pyc_lock_give(&self->loop->watching);
    return user;
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
        return UV_ENOMEM;
    }
    memset(watchers + loop->watchers_size, 0,
           (size - loop->watchers_size) * sizeof(*watchers));
    loop->watchers = watchers;
    loop->watchers_size = size;
    return 0;
}

/* Whether another thread has the loop's libuv side now: with a GIL while it
 * polls, without one while it runs. */
static int
busy_elsewhere(pyc_loop *loop)
{
    return PYC_FREE_THREADED ? pyc_loop_runs_elsewhere(loop)
                             : loop->saved != NULL;
}

/* The loop does what is wanted as soon as it can. */
static void
do_later(pyc_watcher *self)
{
    if (pyc_link_alone(&self->late)) {
        pyc_link_insert(&self->loop->late, &self->late);
    }
    if (self->loop->wake != NULL) { /* else it has never slept */
        pyc_wake_set(self->loop->wake->fd);
    }
}

static int
set_now(pyc_watcher *self, int events)
{
    if (events == self->events || self->fd < 0) {
        return 0;
    }
    self->loop->uv_wanted = 1;
    pyc_link_remove(&self->fresh);
    int code = events == 0 ? uv_poll_stop(&self->poll)
                           : uv_poll_start(&self->poll, events, on_poll);
    if (code < 0) {
        return code;
    }
    self->events = events;
    if (events != 0) {
        pyc_link_insert(&self->loop->fresh, &self->fresh);
    }
    return 0;
}

static void
close_now(pyc_watcher *self)
{
    self->loop->uv_wanted = 1;
    pyc_link_remove(&self->late);
    if (self->fd >= 0) {
        retire(self);
    }
    uv_poll_stop(&self->poll);
    uv_close((uv_handle_t *)&self->poll, on_closed);
}

/* Has the watcher of an earlier descriptor of this number let go of it. */
static void
make_way(pyc_loop *loop, int fd)
{
    PyObject *keep = NULL;
    void (*gone)(pyc_watcher *) = NULL;
    pyc_lock_take(&loop->watching);
    pyc_watcher *stale =
        (size_t)fd < loop->watchers_size ? loop->watchers[fd] : NULL;
    if (stale != NULL) {
        keep = take_keep(stale);
        gone = stale->gone;
        if (stale->late_close) {
            close_now(stale);
            gone = NULL;
        }
        else if (gone == NULL) {
            /* Now: later libuv would touch the number that is another's. */
            pyc_link_remove(&stale->late);
            retire(stale);
            stale->retired = 1;
            uv_close((uv_handle_t *)&stale->poll, on_retired);
        }
    }
    pyc_lock_give(&loop->watching);
    if (gone != NULL) {
        gone(stale);
    }
    Py_XDECREF(keep);
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
    if (pyc_loop_check_usable(loop) < 0) {
        return NULL;
    }
    make_way(loop, fd);
    pyc_watcher *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        return (pyc_watcher *)PyErr_NoMemory();
    }
    self->loop = loop;
    self->ready = ready;
    self->owner = owner;
    self->fd = fd;
    pyc_link_init(&self->fresh);
    pyc_link_init(&self->late);
    pyc_lock_take(&loop->watching);
    loop->uv_wanted = 1;
    int code = make_room(loop, fd);
    if (code == 0) {
        code = uv_poll_init(&loop->uv, &self->poll, fd);
    }
    if (code == 0) {
        loop->watchers[fd] = self;
    }
    pyc_lock_give(&loop->watching);
    if (code < 0) {
        free(self);
        return raise_uv(code);
    }
    return self;
}

void
pyc_watcher_catch_up(pyc_loop *loop)
{
    int code = 0;
    pyc_lock_take(&loop->watching);
    while (!pyc_link_alone(&loop->late) && code == 0 && !busy_elsewhere(loop)) {
        pyc_watcher *self = pyc_container(loop->late.next, pyc_watcher, late);
        pyc_link_remove(&self->late);
        if (self->late_close) {
            close_now(self);
        }
        else {
            code = set_now(self, self->late_events);
        }
    }
    pyc_lock_give(&loop->watching);
    if (code < 0) {
        raise_uv(code);
        pyc_loop_fail(loop, pyc_take_exception());
    }
}

int
pyc_watcher_set(pyc_watcher *self, int events)
{
    pyc_loop *loop = self->loop;
    int code = 0;
    if (self->retired || (pyc_link_alone(&self->late) &&
                          (events == self->events || self->fd < 0))) {
        return 0; /* nothing new, or nothing to watch any more */
    }
    if (PYC_UNLIKELY(pyc_loop_forked(loop))) {
        pyc_loop_part(loop);
    }
    pyc_lock_take(&loop->watching);
    if (PYC_UNLIKELY(!pyc_link_alone(&self->late) || busy_elsewhere(loop))) {
        self->late_events = events;
        do_later(self);
    }
    else {
        code = set_now(self, events);
    }
    pyc_lock_give(&loop->watching);
    if (code < 0) {
        raise_uv(code);
        return -1;
    }
    return 0;
}

int
pyc_watcher_set_for(pyc_watcher *self, int events, PyObject *user)
{
    if (pyc_watcher_set(self, events) < 0) {
        return -1;
    }
    PyObject *kept = self->keep;
    int keep = self->events != 0;
    if (keep != (kept != NULL)) {
        self->keep = keep ? Py_NewRef(user) : NULL;
        if (!keep && self->user == NULL) {
            self->user = PyWeakref_NewRef(user, NULL);
            PyErr_Clear(); /* it is for messages alone */
        }
        Py_XDECREF(kept);
    }
    return 0;
}

/* The part of it that the loop's thread need not do. */
static void
close_later(pyc_watcher *self)
{
    if (!PYC_FREE_THREADED) { /* else that thread is using all of it */
        pyc_link_remove(&self->fresh);
        if (self->fd >= 0) {
            self->loop->watchers[self->fd] = NULL;
        }
        self->events = 0; /* it hears nothing any more */
        self->fd = -1;
    }
    self->late_close = 1;
    do_later(self);
}

void
pyc_watcher_close(pyc_watcher *self)
{
    pyc_loop *loop = self->loop;
    if (loop == NULL) {
        free(self);
        return;
    }
    if (PYC_UNLIKELY(pyc_loop_forked(loop))) {
        pyc_loop_part(loop);
    }
    pyc_lock_take(&loop->watching);
    PyObject *keep = take_keep(self);
    if (PYC_UNLIKELY(self->retired)) {
        done_with(self);
    }
    else if (PYC_UNLIKELY(self->loop == NULL)) {
        free(self); /* closed meanwhile */
    }
    else if (PYC_UNLIKELY(busy_elsewhere(loop))) {
        close_later(self);
    }
    else {
        close_now(self);
    }
    pyc_lock_give(&loop->watching);
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
    uv_walk(&loop->uv, close_by_loop, NULL);
}
