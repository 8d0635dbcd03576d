/* SPDX-License-Identifier: MIT */
/* The descriptor under a pipe transport, which others may use too: the shell
 * that started us, our children, another transport.
 *
 * A transport must not block, but O_NONBLOCK belongs to what all of them share.
 * A program that leaves its terminal so breaks the shell and those beside it,
 * and print() in itself: stdin, stdout and stderr are one. */
#include "py/compat.h"
#include "net/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a terminal anew: nobody else is affected then, not even when we are
 * killed. A pipe is not opened anew: its end of file could be missed. Nor is
 * the master of a terminal, which would be another one. -1 when it cannot be
 * (after su, for one): then the mode is set, and put back at the end. */
static int
reopen_terminal(const pyc_pipe *self, const struct stat *status)
{
    unsigned number;
    char path[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
    struct stat opened;
    if (!isatty(self->fileno) || ioctl(self->fileno, TIOCGPTN, &number) == 0) {
        return -1;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", self->fileno);
    int fd = open(path, (self->writes ? O_WRONLY : O_RDONLY) | O_NONBLOCK |
                            O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &opened) < 0 || opened.st_dev != status->st_dev ||
                    opened.st_ino != status->st_ino)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Whether it passes bytes on as a stream. Devices and sockets of messages see
 * each write by itself, and so do pipes in packet mode. */
static int
is_stream(const pyc_pipe *self, int flags)
{
    int type;
    socklen_t size = sizeof(type);
    if (self->is_socket) {
        return getsockopt(self->fileno, SOL_SOCKET, SO_TYPE, &type, &size) ==
                   0 &&
               type == SOCK_STREAM;
    }
    return self->is_fifo && !(flags & O_DIRECT);
}

int
pyc_pipe_take_fd(pyc_pipe *self)
{
    struct stat status;
    if (fstat(self->fileno, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->is_fifo = S_ISFIFO(status.st_mode);
    self->is_socket = S_ISSOCK(status.st_mode);
    if (!self->is_fifo && !self->is_socket && !S_ISCHR(status.st_mode)) {
        PyErr_Format(PyExc_ValueError,
                     "Pipe transport is only for pipes, sockets and character "
                     "devices, not %R",
                     self->pipe);
        return -1;
    }
    int flags = fcntl(self->fileno, F_GETFL);
    self->dev = status.st_dev;
    self->ino = status.st_ino;
    self->gathers = is_stream(self, flags);
    self->ends = self->writes && (self->is_fifo || self->is_socket);
    self->fd = S_ISCHR(status.st_mode) ? reopen_terminal(self, &status) : -1;
    if (self->fd < 0) {
        self->fd = self->fileno;
        /* Who has set it may put it back. (Calls on sockets do not depend on
         * it.) */
        self->guarded = (flags & O_NONBLOCK) != 0 && !self->is_socket;
        pyc_pipe_set_nonblocking(self);
    }
    return 0;
}

void
pyc_pipe_set_nonblocking(pyc_pipe *self)
{
    int flags = fcntl(self->fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK) &&
        fcntl(self->fd, F_SETFL, flags | O_NONBLOCK) == 0) {
        self->lent = 1;
    }
}

void
pyc_pipe_give_fd_back(pyc_pipe *self)
{
    struct stat status;
    if (self->fd != self->fileno) {
        close(self->fd);
        self->fd = self->fileno;
    }
    /* Not when it is our parent's to do, nor to another file that has got the
     * number since. */
    if (self->lent && !pyc_loop_forked(self->loop) &&
        fstat(self->fileno, &status) == 0 && status.st_dev == self->dev &&
        status.st_ino == self->ino) {
        int flags = fcntl(self->fileno, F_GETFL);
        if (flags >= 0) {
            fcntl(self->fileno, F_SETFL, flags & ~O_NONBLOCK);
        }
    }
    self->lent = 0;
}

/* The poll knows each number once, but a terminal or a socket may well be read
 * and written by one number. */
int
pyc_pipe_part_fd(pyc_pipe *self)
{
    const pyc_loop *loop = self->loop;
    if ((size_t)self->fd >= loop->watchers_size ||
        loop->watchers[self->fd] == NULL) {
        return 0;
    }
    int fd = fcntl(self->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (self->fd != self->fileno) {
        close(self->fd);
    }
    self->fd = fd;
    return 0;
}
