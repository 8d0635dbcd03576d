/* SPDX-License-Identifier: MIT */
/* From the pipe to the protocol: one read each time that it is ready. */
#include "py/compat.h"
#include "net/streams/streams.h"
#include "net/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A read of this size makes the next direct: all that a pipe holds unless it is
 * told otherwise. */
#define BULK (64 * 1024)
#define BULK_MAX (256 * 1024 - 256)

static ssize_t
receive(int fd, void *memory, size_t len)
{
    return recv(fd, memory, len, MSG_DONTWAIT);
}

/* How much a direct read asks for: as much as there can be, so that the bytes
 * object need not be made smaller. */
static size_t
bulk_size(const pyc_pipe *self)
{
    int size = self->is_fifo ? fcntl(self->fd, F_GETPIPE_SZ) : 2 * BULK - 256;
    return size < BULK ? BULK : size > BULK_MAX ? BULK_MAX : (size_t)size;
}

static void
read_end_of_file(pyc_pipe *self)
{
    self->closing = 1;
    pyc_pipe_log(self, "info", "%r was closed by peer");
    pyc_pipe_update(self);
    pyc_transport_tell(&self->base, self->state->str_eof_received, NULL,
                       "Exception in callback eof_received()");
    if (!self->lost && pyc_pipe_finish(self, NULL) < 0) {
        pyc_transport_report(&self->base, "Exception in closing a transport");
    }
}

static void
give(pyc_pipe *self, PyObject *data)
{
    PyObject *context = Py_NewRef(self->context);
    int entered = pyc_stream_enter(context);
    PyObject *result = pyc_callback_tell_data(&self->receive, self->state,
                                              self->protocol, data);
    pyc_stream_leave(context, entered);
    Py_DECREF(context);
    if (PYC_UNLIKELY(result == NULL)) {
        pyc_transport_report(&self->base,
                             "Exception in callback data_received()");
    }
    Py_XDECREF(result);
}

void
pyc_pipe_read(pyc_pipe *self)
{
    PyObject *data = NULL;
    size_t size = self->bulk ? self->bulk : PYC_SCRATCH_SIZE;
    pyc_pipe_guard(self);
    ssize_t n = pyc_receive(self->loop, self->is_socket ? receive : read,
                            self->fd, size, self->bulk != 0, &data);
    if (PYC_LIKELY(n > 0)) {
        if (PYC_UNLIKELY((n >= BULK) != (self->bulk != 0))) {
            self->bulk = n >= BULK ? bulk_size(self) : 0;
        }
        give(self, data);
        Py_DECREF(data);
    }
    else if (n == 0) {
        read_end_of_file(self);
    }
    else if (n == -2 ||
             (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        if (n == -1) {
            PyErr_SetFromErrno(PyExc_OSError);
        }
        pyc_pipe_fatal(self, "Fatal read error on pipe transport");
    }
}
