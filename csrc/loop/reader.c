/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "loop/cycle.h"
#include "loop/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

/* The callbacks of one descriptor. Its watcher stays after the last is gone,
 * idle, for the next time the descriptor is used. */
typedef struct {
    pyc_watcher *watcher;
    pyc_handle *callbacks[2]; /* reader, writer; NULL when there is none */
} pyc_reader;

enum { READER, WRITER };

static const int event_of[] = {UV_READABLE, UV_WRITABLE};

static void on_ready(pyc_watcher *watcher, int events);

static pyc_reader *
reader_of(pyc_loop *loop, int fd)
{
    if ((size_t)fd >= loop->watchers_size || loop->watchers[fd] == NULL ||
        loop->watchers[fd]->ready != on_ready) {
        return NULL;
    }
    return loop->watchers[fd]->owner;
}

static int
wanted(pyc_reader *self)
{
    return (self->callbacks[READER] != NULL ? UV_READABLE : 0) |
           (self->callbacks[WRITER] != NULL ? UV_WRITABLE : 0);
}

static void
on_ready(pyc_watcher *watcher, int events)
{
    pyc_loop *loop = watcher->loop;
    pyc_reader *self = watcher->owner;
    pyc_handle *handles[2];
    int fd = watcher->fd;
    /* What the first adds in the place of the second is not for these events:
     * the descriptor may be another by then. */
    for (int kind = READER; kind <= WRITER; kind++) {
        handles[kind] = events & event_of[kind] ? self->callbacks[kind] : NULL;
        Py_XINCREF(handles[kind]);
    }
    for (int kind = READER; kind <= WRITER; kind++) {
        if (handles[kind] != NULL) {
            pyc_handle_run(handles[kind]);
            Py_DECREF(handles[kind]);
        }
    }
    self = reader_of(loop, fd); /* a callback may have changed anything */
    if (self != NULL && pyc_watcher_set(self->watcher, wanted(self)) < 0) {
        pyc_loop_report(loop, "Exception while watching a descriptor", NULL,
                        NULL);
    }
}

static void
close_reader(pyc_reader *self)
{
    pyc_watcher_close(self->watcher);
    Py_XDECREF(self->callbacks[READER]);
    Py_XDECREF(self->callbacks[WRITER]);
    free(self);
}

static void
on_gone(pyc_watcher *watcher)
{
    close_reader(watcher->owner);
}

/* ---- descriptors as arguments ------------------------------------------ */

/* The descriptor behind an argument; -1 with ValueError or TypeError. */
static int
descriptor(PyObject *object)
{
    int fd;
    if (PyLong_Check(object)) {
        fd = pyc_as_int(object);
    }
    else {
        PyObject *number = PyObject_CallMethod(object, "fileno", NULL);
        fd = number == NULL ? -1 : pyc_as_int(number);
        Py_XDECREF(number);
        if (fd == -1 && PyErr_Occurred()) {
            if (PyErr_ExceptionMatches(PyExc_AttributeError) ||
                PyErr_ExceptionMatches(PyExc_TypeError) ||
                PyErr_ExceptionMatches(PyExc_ValueError)) {
                PyErr_Clear();
                PyErr_Format(PyExc_ValueError, "Invalid file object: %R",
                             object);
            }
            return -1;
        }
    }
    if (fd == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (fd < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        return -1;
    }
    return fd;
}

static int
watched_for_another(pyc_loop *loop, int fd)
{
    return (size_t)fd < loop->watchers_size && loop->watchers[fd] != NULL &&
           reader_of(loop, fd) == NULL;
}

/* Refuses a descriptor that a transport of ours or of asyncio's uses. */
static int
checked_descriptor(pyc_loop *self, PyObject *object)
{
    int fd = descriptor(object);
    if (fd < 0) {
        return -1;
    }
    if (PYC_FREE_THREADED && watched_for_another(self, fd)) {
        pyc_watcher_catch_up(self); /* it may be closed already */
    }
    if (watched_for_another(self, fd)) {
        PyObject *user = pyc_watcher_user(self->watchers[fd]);
        if (user == NULL) {
            return fd;
        }
        PyObject *done = PyObject_CallMethod(
            (PyObject *)self, "_descriptor_in_use", "OO", object, user);
        Py_DECREF(user);
        if (done == NULL) {
            return -1;
        }
        Py_DECREF(done);
    }
    return fd;
}

PyObject *
pyc_loop_check_descriptor(pyc_loop *self, PyObject *object)
{
    if (checked_descriptor(self, object) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- adding ------------------------------------------------------------ */

static pyc_reader *
new_reader(pyc_loop *loop, int fd)
{
    pyc_reader *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        return (pyc_reader *)PyErr_NoMemory();
    }
    /* libuv makes what it polls non-blocking; the descriptor is the caller's,
     * perhaps a terminal shared with other programs. */
    int flags = fcntl(fd, F_GETFL);
    self->watcher = pyc_watcher_open(loop, fd, on_ready, self);
    if (self->watcher == NULL) {
        free(self);
        return NULL;
    }
    self->watcher->gone = on_gone;
    if (!(flags & O_NONBLOCK)) {
        fcntl(fd, F_SETFL, flags);
    }
    return self;
}

/* Whether the kernel polls `fd` for the loop: not if it has been closed and is
 * another descriptor now. -1 with OSError if that cannot be polled, which libuv
 * would learn at the next poll only, and abort. */
static int
is_registered(pyc_loop *loop, int fd)
{
    struct epoll_event event = {.events = 0};
    if (epoll_ctl(uv_backend_fd(&loop->uv), EPOLL_CTL_ADD, fd, &event) == 0) {
        return 0;
    }
    if (errno != EEXIST) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 1;
}

/* The reader of `fd`, old or new; NULL with an exception. */
static pyc_reader *
reader_for(pyc_loop *loop, int kind, int fd)
{
    pyc_reader *self = reader_of(loop, fd);
    if (self == NULL) {
        return new_reader(loop, fd);
    }
    if (wanted(self) != 0 && self->callbacks[kind] == NULL) {
        return self; /* libuv will register it again anyway */
    }
    int known = is_registered(loop, fd);
    if (known == 0 && pyc_watcher_set(self->watcher, 0) < 0) {
        return NULL;
    }
    return known < 0 ? NULL : self;
}

static PyObject *
add(pyc_loop *self, int kind, int fd, PyObject *const *args, Py_ssize_t nargs)
{
    if (pyc_loop_check_usable(self) < 0 || pyc_loop_check_thread(self) < 0) {
        return NULL;
    }
    pyc_reader *reader = reader_for(self, kind, fd);
    if (reader == NULL) {
        return NULL;
    }
    pyc_handle *handle =
        pyc_handle_new(self, args[0], args + 1, nargs - 1, NULL);
    if (handle == NULL) {
        return NULL;
    }
    pyc_handle_track(handle);
    pyc_handle *old = reader->callbacks[kind];
    reader->callbacks[kind] = handle;
    Py_INCREF(handle);
    if (pyc_watcher_set(reader->watcher, wanted(reader)) < 0) {
        reader->callbacks[kind] = old;
        Py_DECREF(handle);
        Py_DECREF(handle);
        return NULL;
    }
    if (old != NULL) {
        pyc_handle_cancel(old);
        Py_DECREF(old);
    }
    return (PyObject *)handle;
}

static PyObject *
remove_callback(pyc_loop *self, int kind, int fd)
{
    if (pyc_loop_check_thread(self) < 0) {
        return NULL;
    }
    pyc_reader *reader = self->closed ? NULL : reader_of(self, fd);
    if (reader == NULL || reader->callbacks[kind] == NULL) {
        Py_RETURN_FALSE;
    }
    pyc_handle *old = reader->callbacks[kind];
    reader->callbacks[kind] = NULL;
    int failed = pyc_watcher_set(reader->watcher, wanted(reader)) < 0;
    pyc_handle_cancel(old);
    Py_DECREF(old);
    if (failed) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

/* ---- the methods ------------------------------------------------------- */

static int
any_descriptor(pyc_loop *self, PyObject *object)
{
    return descriptor(object);
}

typedef int (*parse_fn)(pyc_loop *, PyObject *);

static PyObject *
add_method(pyc_loop *self, int kind, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames, parse_fn parse)
{
    if (nargs < 2 || kwnames != NULL) {
        return pyc_loop_by_name(self,
                                kind == READER ? "_add_reader_by_name"
                                               : "_add_writer_by_name",
                                args, nargs, kwnames);
    }
    int fd = parse(self, args[0]);
    return fd < 0 ? NULL : add(self, kind, fd, args + 1, nargs - 1);
}

static PyObject *
remove_method(pyc_loop *self, int kind, PyObject *const *args, Py_ssize_t nargs,
              PyObject *kwnames, parse_fn parse)
{
    if (nargs != 1 || kwnames != NULL) {
        return pyc_loop_by_name(self,
                                kind == READER ? "_remove_reader_by_name"
                                               : "_remove_writer_by_name",
                                args, nargs, kwnames);
    }
    int fd = parse(self, args[0]);
    return fd < 0 ? NULL : remove_callback(self, kind, fd);
}

static PyObject *
none_for(PyObject *handle)
{
    if (handle == NULL) {
        return NULL;
    }
    Py_DECREF(handle);
    Py_RETURN_NONE;
}

#define METHOD(name, body)                                                     \
    PyObject *pyc_loop_##name(pyc_loop *self, PyObject *const *args,           \
                              Py_ssize_t nargs, PyObject *kwnames)             \
    {                                                                          \
        return body;                                                           \
    }
#define GIVEN args, nargs, kwnames
METHOD(add_reader,
       none_for(add_method(self, READER, GIVEN, checked_descriptor)))
METHOD(add_writer,
       none_for(add_method(self, WRITER, GIVEN, checked_descriptor)))
METHOD(add_reader_unchecked, add_method(self, READER, GIVEN, any_descriptor))
METHOD(add_writer_unchecked, add_method(self, WRITER, GIVEN, any_descriptor))
METHOD(remove_reader, remove_method(self, READER, GIVEN, checked_descriptor))
METHOD(remove_writer, remove_method(self, WRITER, GIVEN, checked_descriptor))
METHOD(remove_reader_unchecked,
       remove_method(self, READER, GIVEN, any_descriptor))
METHOD(remove_writer_unchecked,
       remove_method(self, WRITER, GIVEN, any_descriptor))
#undef GIVEN
#undef METHOD

/* ---- for the loop ------------------------------------------------------ */

void
pyc_readers_close(pyc_loop *loop)
{
    for (size_t fd = 0; fd < loop->watchers_size; fd++) {
        pyc_reader *self = reader_of(loop, (int)fd);
        if (self != NULL) {
            close_reader(self);
        }
    }
}

int
pyc_readers_traverse(pyc_loop *loop, visitproc visit, void *arg)
{
    for (size_t fd = 0; fd < loop->watchers_size; fd++) {
        pyc_reader *self = reader_of(loop, (int)fd);
        if (self != NULL) {
            Py_VISIT(self->callbacks[READER]);
            Py_VISIT(self->callbacks[WRITER]);
        }
    }
    return 0;
}
