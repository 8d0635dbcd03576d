/* SPDX-License-Identifier: MIT */
/* One end of a pipe, FIFO, terminal, other character device or socket:
 * asyncio.ReadTransport and asyncio.WriteTransport in C. */
#ifndef PYC_NET_PIPE_H
#define PYC_NET_PIPE_H

#include "net/transport.h"

#include <sys/types.h>

typedef struct pyc_pipe {
    PYC_TRANSPORT_HEAD;
    PyObject *pipe; /* owns `fileno`; NULL once it is closed */
    size_t bulk;    /* what a direct read asks for; 0: none is made */
    dev_t dev;      /* what `fileno` was to begin with */
    ino_t ino;
    int fileno;       /* `fd` is this, or one of our own for the same file */
    unsigned dropped; /* writes after the end */
    char writes;      /* a WritePipeTransport */
    char is_fifo;
    char is_socket;
    char lent;       /* blocking mode is to be put back */
    char guarded;    /* somebody else may put it back */
    char unpollable; /* a device that is always ready */
    char due;        /* then: pipe_turn() is to run */
    char ends;       /* watched for its reader going away */
    char lost;       /* connection_lost() is due, or was called */
} pyc_pipe;

/* ---- pipe_fd.c --------------------------------------------------------- */

/* Puts self->fileno into the mode it is used in. 0, or -1 with ValueError for
 * what is no pipe, or OSError. */
int pyc_pipe_take_fd(pyc_pipe *self);
/* Leaves it as it was. Does not close it. */
void pyc_pipe_give_fd_back(pyc_pipe *self);
/* Makes sure that self->fd can be watched beside other users' watchers. 0, or
 * -1 with OSError. */
int pyc_pipe_part_fd(pyc_pipe *self);
void pyc_pipe_set_nonblocking(pyc_pipe *self);

/* Before each system call that could block. */
static inline void
pyc_pipe_guard(pyc_pipe *self)
{
    if (PYC_UNLIKELY(self->guarded)) {
        pyc_pipe_set_nonblocking(self);
    }
}

/* ---- pipe.c ------------------------------------------------------------ */

extern const pyc_transport_kind pyc_pipe_kind;
/* Watches for what the state now asks for, and holds or releases the
 * transport: needs a reference of the caller. */
void pyc_pipe_update(pyc_pipe *self);
/* In debug mode: format % self, by asyncio's logger. */
void pyc_pipe_log(pyc_pipe *self, const char *level, const char *format);
/* Ends it for the exception that is set. */
void pyc_pipe_fatal(pyc_pipe *self, const char *message);
/* connection_lost(exc) follows in the next turn; exc may be NULL. 0, or -1 with
 * an exception. */
int pyc_pipe_finish(pyc_pipe *self, PyObject *exc);
/* The same, without sending what is queued, or nothing if it is lost. */
int pyc_pipe_force_close(pyc_pipe *self, PyObject *exc);
int pyc_pipe_close(pyc_pipe *self);
/* Gives back all that is outside of Python. 0, or -1 with an exception from the
 * file object. */
int pyc_pipe_release(pyc_pipe *self);

/* ---- pipe_read.c ------------------------------------------------------- */

void pyc_pipe_read(pyc_pipe *self);

static inline int
pyc_pipe_reading(const pyc_pipe *self)
{
    return !self->writes && self->started && !self->paused && !self->closing;
}

/* ---- pipe_write.c ------------------------------------------------------ */

PyObject *pyc_pipe_write(pyc_pipe *self, PyObject *data);
PyObject *pyc_pipe_writelines(pyc_pipe *self, PyObject *lines);

/* For pyc_transport_kind. */
ssize_t pyc_pipe_send_pieces(pyc_transport *self, struct iovec *iov,
                             unsigned len);
void pyc_pipe_emptied(pyc_transport *self);

#endif
