/* SPDX-License-Identifier: MIT */
#include "ipc/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* OSError(err, message), of the class that belongs to the number. */
static void
raise_os_error(int err, PyObject *message)
{
    PyObject *error =
        message == NULL
            ? NULL
            : PyObject_CallFunction(PyExc_OSError, "iN", err, message);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

/* Below, asking costs more than it tells. */
#define ASKED_FOR ((size_t)16 << 20)

/* One part in so many is left to those who ask meanwhile, or never. */
#define SPARED 16

int
pyc_memory_ask(size_t size)
{
    PyObject *module =
        size < ASKED_FOR ? NULL : PyImport_ImportModule("pyconc._limits");
    if (module == NULL) {
        return size < ASKED_FOR ? 0 : -1;
    }
    int rc = -1;
    PyObject *known = PyObject_CallMethod(module, "available_memory", NULL);
    Py_DECREF(module);
    if (known == Py_None) {
        rc = 0;
    }
    else if (known != NULL) {
        unsigned long long most = PyLong_AsUnsignedLongLong(known);
        most -= most / SPARED;
        if (PyErr_Occurred()) {
            rc = -1;
        }
        else if (size <= most) {
            rc = 0;
        }
        else {
            raise_os_error(
                ENOMEM, PyUnicode_FromFormat(
                            "no shared memory of %zu bytes: %llu are available",
                            size, most));
        }
    }
    Py_XDECREF(known);
    return rc;
}

/* How much is asked for at once, and the least: up to there, giving up the GIL
 * takes longer than the pages. */
#define PIECE ((size_t)16 << 20)
#define PIECES 16 /* until what is available is looked at again */
#define SMALL ((size_t)64 << 10)

int
pyc_memory_fill(int fd, size_t size)
{
    size_t piece = PIECE, asked = 0;
    for (size_t done = 0; done < size;) {
        if (done >= asked) {
            if (pyc_memory_ask(size - done) < 0) {
                return -1;
            }
            asked = done + PIECES * PIECE;
        }
        piece = Py_MIN(size - done, piece);
        int err;
        if (size <= SMALL) {
            err = posix_fallocate(fd, (off_t)done, (off_t)piece);
        }
        else {
            Py_BEGIN_ALLOW_THREADS
            err = posix_fallocate(fd, (off_t)done, (off_t)piece);
            Py_END_ALLOW_THREADS
        }
        if (err == 0) {
            done += piece;
            continue;
        }
        if (err != EINTR) {
            return err;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
        /* A signal has undone it: less is done before the next one. */
        piece = piece > SMALL ? piece / 2 : piece;
    }
    return 0;
}

int
pyc_memory_open(const char *name, size_t size, unsigned flags)
{
    int err = 0;
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
        err = errno;
    }
    else {
        err = pyc_memory_fill(fd, size);
    }
    if (err == 0 &&
        (fchmod(fd, 0600) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)) {
        err = errno;
    }
    if (err == 0) {
        return fd;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (err > 0) {
        raise_os_error(err,
                       PyUnicode_FromFormat("no shared memory of %zu bytes: %s",
                                            size, strerror(err)));
    }
    return -1;
}

int
pyc_memory_check(int fd, size_t size)
{
    struct stat about;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &about) < 0 ||
        (size_t)about.st_size < size) {
        PyErr_Format(PyExc_ValueError,
                     "descriptor %d is no shared memory of %zu bytes", fd,
                     size);
        return -1;
    }
    return 0;
}

int
pyc_memory_open_of(int pid, int fd)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
    int opened = open(path, O_RDWR | O_CLOEXEC);
    if (opened < 0) {
        int err = errno;
        raise_os_error(
            err,
            PyUnicode_FromFormat(
                "the shared memory of process %d cannot be opened (%s)", pid,
                err == ENOENT ? "it has ended or holds it no longer"
                              : strerror(err)));
    }
    return opened;
}
