/* SPDX-License-Identifier: MIT */
/* What waits to be sent: pieces of memory and what keeps each of them. The
 * outbox is there only while something does, so all functions get where the
 * transport has it. */
#ifndef PYC_NET_OUTBOX_H
#define PYC_NET_OUTBOX_H

#include "py/compat.h"

#include <sys/uio.h>

#define PYC_GATHER_LIMIT (64 * 1024) /* bytes queued before they go early */
#define PYC_HIGH_WATER (64 * 1024)
#define PYC_IOV_LIMIT 1024 /* the kernel's UIO_MAXIOV */
/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
#define PYC_LOST_WRITES 5

typedef struct {
    size_t bytes;
    unsigned head; /* the first that is not sent */
    unsigned end;  /* after the last */
    unsigned size;
    PyObject **owners; /* what keeps the memory of iov[i] */
    struct iovec iov[];
} pyc_outbox;

static inline unsigned
pyc_outbox_len(const pyc_outbox *box)
{
    return box == NULL ? 0 : box->end - box->head;
}

static inline size_t
pyc_outbox_bytes(const pyc_outbox *box)
{
    return box == NULL ? 0 : box->bytes;
}

/* Takes `owner`, a reference, in any case; `more` of them are to come, this one
 * counted. 0, or -1 with MemoryError. */
int pyc_outbox_push(pyc_outbox **place, PyObject *owner, const char *data,
                    size_t len, size_t more);
/* Queues a list or tuple of bytes-like objects: all of them or, with an
 * exception, none. */
int pyc_outbox_push_lines(pyc_outbox **place, PyObject *list);
/* b"".join(lines): a new reference, or NULL with an exception. */
PyObject *pyc_outbox_join(PyObject *lines);
/* What is dropped is looked at like what is queued: 0, or -1 with an exception
 * when a line is not bytes-like. */
int pyc_outbox_check_lines(PyObject *list);
/* Forgets the first n bytes, and the outbox with the last of them. */
void pyc_outbox_sent(pyc_outbox **place, size_t n);
void pyc_outbox_drop(pyc_outbox **place);

/* An object that keeps the `len` bytes at *data as they are now, as a new
 * reference: `object` itself or the bytes behind a memoryview, else, as when it
 * is NULL, a copy, to which *data then points. */
PyObject *pyc_outbox_keeper(PyObject *object, const char **data, size_t len);

/* The buffer of what write() got, or -1 with TypeError. */
int pyc_outbox_view(PyObject *object, Py_buffer *view);

/* The arguments (high=None, low=None) of the method that `format` names, as for
 * PyArg_ParseTupleAndKeywords(), in bytes. 0, or -1 with an exception. */
int pyc_limits_parse(PyObject *args, PyObject *kwargs, const char *format,
                     size_t default_high, size_t *high, size_t *low);

#endif
