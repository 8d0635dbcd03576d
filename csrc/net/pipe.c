/* SPDX-License-Identifier: MIT */
/* The life of a pipe transport: watched, closed, lost. */
#include "py/compat.h"
#include "net/pipe.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

static void pipe_ready(pyc_watcher *watcher, int events);

/* ---- what goes wrong --------------------------------------------------- */

/* logger.level(format, self, exc_info=exc) */
static void
log_with(pyc_pipe *self, const char *level, PyObject *format, PyObject *exc)
{
    PyObject *result = NULL, *kwargs = NULL;
    PyObject *args = PyTuple_Pack(2, format, self);
    PyObject *method =
        PyObject_GetAttrString(self->state->asyncio_logger, level);
    if (exc != NULL) {
        kwargs = Py_BuildValue("{sO}", "exc_info", exc);
    }
    if (args != NULL && method != NULL && (exc == NULL || kwargs != NULL)) {
        result = PyObject_Call(method, args, kwargs);
    }
    if (result == NULL) {
        pyc_transport_report(&self->base, "Exception in logging");
    }
    Py_XDECREF(result);
    Py_XDECREF(kwargs);
    Py_XDECREF(method);
    Py_XDECREF(args);
}

void
pyc_pipe_log(pyc_pipe *self, const char *level, const char *format)
{
    if (PYC_LIKELY(!self->loop->debug)) {
        return;
    }
    PyObject *text = PyUnicode_FromString(format);
    if (text == NULL) {
        pyc_transport_report(&self->base, "Exception in logging");
        return;
    }
    log_with(self, level, text, NULL);
    Py_DECREF(text);
}

/* What asyncio thinks worth no more than a line in debug mode: a reader that
 * went away, a terminal that did. */
static int
is_usual(const pyc_pipe *self, PyObject *exc)
{
    if (exc == NULL || !PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        return 0;
    }
    PyObject *code = ((PyOSErrorObject *)exc)->myerrno;
    return self->writes || (code != NULL && PyLong_CheckExact(code) &&
                            PyLong_AsLong(code) == EIO);
}

void
pyc_pipe_fatal(pyc_pipe *self, const char *message)
{
    PyObject *exc = pyc_take_exception(), *format;
    if (!is_usual(self, exc)) {
        pyc_put_exception(Py_NewRef(exc));
        pyc_transport_report(&self->base, message);
    }
    else if (self->loop->debug) {
        format = PyUnicode_FromFormat("%%r: %s", message);
        if (format == NULL) {
            pyc_transport_report(&self->base, message);
        }
        else {
            log_with(self, "debug", format, exc);
            Py_DECREF(format);
        }
    }
    if (self->loop != NULL && pyc_pipe_force_close(self, exc) < 0) {
        pyc_transport_report(&self->base, message);
    }
    Py_DECREF(exc);
}

/* ---- watching ---------------------------------------------------------- */

static int
wanted_events(const pyc_pipe *self)
{
    int events = self->blocked ? UV_WRITABLE : 0;
    if (pyc_pipe_reading(self)) {
        events |= UV_READABLE;
    }
    if (self->ends && self->started && !self->lost) {
        /* An error or a hang-up is told whatever is asked for; data for
         * another reader of the same socket is not, so. */
        events |= UV_PRIORITIZED;
    }
    return events;
}

/* One turn of a device that the poll does not take. */
static void
pipe_turn(pyc_loop *loop, PyObject *arg)
{
    pyc_pipe *self = (pyc_pipe *)arg;
    self->due = 0;
    if (pyc_pipe_reading(self)) {
        pyc_pipe_read(self);
    }
    if (self->blocked) {
        pyc_transport_write_ready(&self->base);
    }
    if (self->loop != NULL) {
        pyc_pipe_update(self);
    }
}

static int
watch_by_turns(pyc_pipe *self, int events)
{
    if (events == 0 || self->due) {
        return 0;
    }
    self->due = 1;
    return pyc_loop_soon(self->loop, pipe_turn, (PyObject *)self);
}

static int
pipe_watch(pyc_pipe *self, int events)
{
    if (self->unpollable) {
        return self->loop->closed ? 0 : watch_by_turns(self, events);
    }
    if (self->watcher == NULL && events != 0 && !self->loop->closed &&
        pyc_pipe_part_fd(self) < 0) {
        return -1;
    }
    if (pyc_transport_watch(&self->base, events) == 0) {
        return 0;
    }
    if (self->watcher != NULL ||
        !PyErr_ExceptionMatches(PyExc_PermissionError)) {
        return -1;
    }
    PyErr_Clear(); /* so does the poll refuse what is always ready */
    self->unpollable = 1;
    return watch_by_turns(self, events);
}

void
pyc_pipe_update(pyc_pipe *self)
{
    if (pipe_watch(self, wanted_events(self)) < 0) {
        pyc_pipe_fatal(self, "Fatal error: the pipe cannot be watched");
        return;
    }
    pyc_transport_hold(&self->base);
}

/* The other end of a pipe that is written to: gone? */
static void
look_at_reader(pyc_pipe *self)
{
    struct pollfd other = {.fd = self->fd};
    if (poll(&other, 1, 0) != 1 || !(other.revents & (POLLERR | POLLHUP))) {
        self->ends = 0; /* a socket's urgent data, which stays there */
        pyc_pipe_update(self);
        return;
    }
    PyObject *exc = NULL;
    if (self->outbox != NULL) {
        errno = EPIPE;
        PyErr_SetFromErrno(PyExc_OSError);
        exc = pyc_take_exception();
    }
    pyc_pipe_log(self, "info", "%r was closed by peer");
    if (pyc_pipe_force_close(self, exc) < 0) {
        pyc_transport_report(&self->base, "Exception in closing a transport");
    }
    Py_XDECREF(exc);
}

static void
pipe_ready(pyc_watcher *watcher, int events)
{
    pyc_pipe *self = watcher->owner;
    Py_INCREF(self);
    if (events & UV_READABLE) { /* asked for only while it reads */
        pyc_pipe_read(self);
    }
    if ((events & UV_PRIORITIZED) && !self->lost) {
        look_at_reader(self);
    }
    if ((events & UV_WRITABLE) && self->blocked) {
        pyc_transport_write_ready(&self->base);
    }
    if (PYC_UNLIKELY(self->watcher != NULL && self->watcher->events == 0)) {
        pyc_pipe_update(self); /* an error has ended the poll */
    }
    Py_DECREF(self);
}

/* ---- for the base ------------------------------------------------------ */

static void
pipe_update(pyc_transport *self)
{
    pyc_pipe_update((pyc_pipe *)self);
}

static void
pipe_fatal(pyc_transport *self, const char *message)
{
    pyc_pipe_fatal((pyc_pipe *)self, message);
}

const pyc_transport_kind pyc_pipe_kind = {
    .send = pyc_pipe_send_pieces,
    .emptied = pyc_pipe_emptied,
    .fatal = pipe_fatal,
    .update = pipe_update,
    .ready = pipe_ready,
    .write_failed = "Fatal write error on pipe transport",
};

/* ---- the end ----------------------------------------------------------- */

int
pyc_pipe_release(pyc_pipe *self)
{
    PyObject *pipe = self->pipe, *result;
    pyc_transport_unwatch(&self->base);
    pyc_link_remove(&self->flush.link);
    self->closing = 1;
    self->lost = 1;
    pyc_transport_drop_outbox(&self->base);
    pyc_pipe_give_fd_back(self);
    if (pipe == NULL) {
        return 0;
    }
    Py_INCREF(pipe);
    PYC_FIELD_SET(self, pipe, NULL);
    result = PyObject_CallMethod(pipe, "close", NULL);
    Py_DECREF(pipe);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* asyncio's _call_connection_lost(). */
static void
pipe_lost(pyc_loop *loop, PyObject *arg)
{
    pyc_pipe *self = (pyc_pipe *)arg;
    PyObject *exc = self->lost_exc == NULL ? Py_None : self->lost_exc;
    pyc_transport_tell(&self->base, self->state->str_connection_lost, exc,
                       "Exception in callback connection_lost()");
    if (pyc_pipe_release(self) < 0) {
        pyc_transport_report(&self->base, "Exception in closing a transport");
    }
    Py_CLEAR(self->lost_exc);
    pyc_callback_clear(&self->receive);
    PYC_FIELD_SET(self, protocol, NULL);
    Py_CLEAR(self->context);
    PYC_FIELD_SET(self, loop, NULL);
}

int
pyc_pipe_finish(pyc_pipe *self, PyObject *exc)
{
    self->lost = 1;
    self->closing = 1;
    pyc_pipe_update(self);
    Py_XSETREF(self->lost_exc, Py_XNewRef(exc));
    if (pyc_loop_check_usable(self->loop) < 0) {
        return -1;
    }
    return pyc_loop_soon(self->loop, pipe_lost, (PyObject *)self);
}

int
pyc_pipe_force_close(pyc_pipe *self, PyObject *exc)
{
    if (self->lost) {
        return 0;
    }
    pyc_transport_drop_outbox(&self->base);
    return pyc_pipe_finish(self, exc);
}

int
pyc_pipe_close(pyc_pipe *self)
{
    if (self->closing) {
        return 0;
    }
    self->closing = 1;
    if (self->outbox != NULL && !self->blocked) {
        pyc_transport_flush(&self->base);
    }
    return self->outbox == NULL && !self->lost ? pyc_pipe_finish(self, NULL)
                                               : 0;
}
