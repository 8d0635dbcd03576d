/* SPDX-License-Identifier: MIT */
/* Digests of whole files. */
#include "hash/batch.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef RWF_NOWAIT
#    include <linux/magic.h>
#    include <sys/vfs.h>
#endif

/* Of files that have to come from the disk, so many are asked for before their
 * turn, and so much of each. */
#define FILES_AHEAD 8
#define BYTES_AHEAD ((off_t)1 << 20)

/* Opening and closing a file takes as long as hashing this many bytes. */
#define FILE_WORK ((size_t)8 << 10)

/* 0, or an errno. Waits for nobody: no signal and no cancellation would get
 * through to this thread. */
static int
open_file(const char *path, int *fd)
{
    struct stat info;
    int err = 0;
    do {
        *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    } while (*fd < 0 && errno == EINTR);
    if (*fd < 0 || fstat(*fd, &info) < 0) {
        err = errno;
    }
    else if (S_ISFIFO(info.st_mode)) {
        err = EOPNOTSUPP;
    }
    if (err != 0 && *fd >= 0) {
        close(*fd);
    }
    return err;
}

/* As far into the block as the file goes. The bytes read, or -1. */
static ssize_t
read_block(int fd, unsigned char *block)
{
    ssize_t got;
    do {
        got = read(fd, block, PYC_BLOCK_SIZE);
    } while (got < 0 && errno == EINTR);
    return got;
}

#ifdef RWF_NOWAIT
static bool
is_in_tmpfs(int fd)
{
    struct statfs info;
    return fstatfs(fd, &info) == 0 && info.f_type == TMPFS_MAGIC;
}
#endif

/* The same of what need not be waited for: -1 and EAGAIN when nothing is. */
static ssize_t
read_at_once(int fd, unsigned char *block)
{
#ifdef RWF_NOWAIT
    struct iovec into = {block, PYC_BLOCK_SIZE};
    ssize_t got = preadv2(fd, &into, 1, -1, RWF_NOWAIT);
    /* tmpfs does not know the flag and does not need it. */
    return got < 0 && errno == EOPNOTSUPP && is_in_tmpfs(fd)
               ? read_block(fd, block)
               : got;
#else
    errno = ENOSYS;
    return -1;
#endif
}

/* Has the system read the files that come after number `index`. */
static void
read_ahead(pyc_batch *self, size_t index, pyc_scratch *scratch)
{
#ifdef POSIX_FADV_WILLNEED
    size_t end = index + 1 + FILES_AHEAD;
    size_t i = scratch->ahead > index && scratch->ahead < end ? scratch->ahead
                                                              : index + 1;
    for (; i < end && !pyc_crew_is_cut(&self->job, i); i++) {
        int fd;
        if (open_file(self->inputs[i].data, &fd) == 0) {
            posix_fadvise(fd, 0, BYTES_AHEAD, POSIX_FADV_WILLNEED);
            close(fd);
        }
    }
    scratch->ahead = i;
#endif
}

static ssize_t
read_first(pyc_batch *self, size_t index, int fd, pyc_scratch *scratch)
{
    ssize_t got = read_at_once(fd, scratch->block);
    if (got > 0 || (got < 0 && self->at_once)) {
        return got;
    }
    bool wait = got < 0 && errno == EAGAIN;
    got = read_block(fd, scratch->block);
    if (wait && got > 0) {
        read_ahead(self, index, scratch);
    }
    return got;
}

static pyc_fault
digest_fd(pyc_batch *self, size_t index, int fd, pyc_scratch *scratch)
{
    if (!EVP_DigestInit_ex2(scratch->context, self->md, NULL)) {
        return pyc_crypto_fault();
    }
    bool advised = false;
    ssize_t got = read_first(self, index, fd, scratch);
    for (; got > 0; got = read_block(fd, scratch->block)) {
        if (pyc_crew_is_cut(&self->job, index)) {
            return PYC_FAULT_STOPPED;
        }
#ifdef POSIX_FADV_SEQUENTIAL
        /* Not for small files: it would be one system call in four. */
        if (!advised && (size_t)got == PYC_BLOCK_SIZE) {
            posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
            advised = true;
        }
#endif
        if (!EVP_DigestUpdate(scratch->context, scratch->block, (size_t)got)) {
            return pyc_crypto_fault();
        }
    }
    if (got < 0) {
        return self->at_once ? PYC_FAULT_STOPPED
                             : PYC_FAULT_SYSTEM | (pyc_fault)errno;
    }
    if (!EVP_DigestFinal_ex(scratch->context, pyc_batch_result(self, index),
                            NULL)) {
        return pyc_crypto_fault();
    }
    return 0;
}

static pyc_fault
file_item(pyc_batch *self, size_t index, size_t Py_UNUSED(count),
          pyc_scratch *scratch)
{
    if (scratch->context == NULL) {
        scratch->context = EVP_MD_CTX_new();
    }
    if (scratch->block == NULL) {
        scratch->block = malloc(PYC_BLOCK_SIZE);
    }
    if (scratch->context == NULL || scratch->block == NULL) {
        return PYC_FAULT_SYSTEM | ENOMEM;
    }
    int fd;
    int err = open_file(self->inputs[index].data, &fd);
    pyc_fault fault = PYC_FAULT_SYSTEM | (pyc_fault)err;
    if (err == 0) {
        fault = digest_fd(self, index, fd, scratch);
        close(fd);
    }
    if (PYC_FAULT_KIND(fault) == PYC_FAULT_SYSTEM && self->errnos != NULL) {
        self->errnos[index] = (int)PYC_FAULT_CODE(fault);
        return 0;
    }
    return fault;
}

bool
pyc_files_are_small(const pyc_batch *self)
{
    size_t work = 0;
    for (size_t i = 0; i < self->job.total && work < PYC_SERIAL_WORK; i++) {
        struct stat info;
        if (stat(self->inputs[i].data, &info) < 0 || !S_ISREG(info.st_mode) ||
            info.st_size > (off_t)PYC_SERIAL_WORK) {
            return false;
        }
        work += FILE_WORK + (size_t)info.st_size;
    }
    return work < PYC_SERIAL_WORK;
}

/* The paths as the system wants them, in a tuple that owns them. */
static PyObject *
encode_paths(PyObject *paths)
{
    Py_ssize_t count = PyTuple_GET_SIZE(paths);
    PyObject *encoded = PyTuple_New(count);
    if (encoded == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *path = PyTuple_GET_ITEM(paths, i), *bytes;
        if (!PyUnicode_FSConverter(path, &bytes)) {
            if (PyErr_ExceptionMatches(PyExc_TypeError)) {
                PyErr_Format(PyExc_TypeError,
                             "paths[%zd]: expected str, bytes or os.PathLike "
                             "object, not '%.100s'",
                             i, Py_TYPE(path)->tp_name);
            }
            Py_DECREF(encoded);
            return NULL;
        }
        PyTuple_SET_ITEM(encoded, i, bytes);
    }
    return encoded;
}

PyObject *
pyc_file_batch(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (pyc_expect_args("file_batch", count, 3) < 0) {
        return NULL;
    }
    int return_errors = PyObject_IsTrue(args[2]);
    if (return_errors < 0 || pyc_expect_many(args[0], "paths") < 0) {
        return NULL;
    }
    PyObject *encoded = NULL;
    pyc_batch *self = pyc_batch_new(module, file_item);
    if (self == NULL || pyc_batch_fetch_digest(self, args[1]) < 0) {
        goto fail;
    }
    self->paths = PySequence_Tuple(args[0]);
    if (self->paths == NULL || (encoded = encode_paths(self->paths)) == NULL ||
        pyc_batch_hold_inputs(self, encoded, "paths") < 0 ||
        pyc_batch_make_results(self, self->digest_size, Py_None) < 0) {
        goto fail;
    }
    Py_DECREF(encoded);
    encoded = NULL;
    if (return_errors) {
        self->errnos = PyMem_Calloc(self->job.total + 1, sizeof(int));
        if (self->errnos == NULL) {
            PyErr_NoMemory();
            goto fail;
        }
    }
    /* A file may take for ever: never in the calling thread. */
    self->work = self->job.total > 0 ? SIZE_MAX : 0;
    return (PyObject *)self;

fail:
    Py_XDECREF(encoded);
    Py_XDECREF(self);
    return NULL;
}
