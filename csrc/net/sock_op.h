/* SPDX-License-Identifier: MIT */
/* One sock_*() operation: an awaitable that does its system call when it is
 * first awaited, and waits on a Future only when that would block. */
#ifndef PYC_NET_SOCK_OP_H
#define PYC_NET_SOCK_OP_H

#include "loop/loop.h"
#include "net/address.h"

enum { PYC_OP_FAILED = -1, PYC_OP_BLOCKED = 0, PYC_OP_DONE = 1 };

typedef struct pyc_sock_op pyc_sock_op;

/* One kind of operation. */
typedef struct {
    const char *name;
    int waits_for; /* PYC_SOCK_READ or PYC_SOCK_WRITE */
    /* One attempt: the result is a new reference, an error an exception. */
    int (*attempt)(pyc_sock_op *self, PyObject **result);
} pyc_sock_action;

struct pyc_sock_op {
    PyObject_HEAD
    const pyc_sock_action *action;
    pyc_loop *loop;
    PyObject *sock;
    PyObject *data;       /* what is sent or received into, or NULL */
    PyObject *future;     /* while it waits */
    PyObject *waiting;    /* the iterator of that */
    Py_ssize_t size;      /* to receive; or already sent */
    pyc_address *address; /* or NULL; owned */
    int fd;
    char state;
    char anew; /* its first wait must not trust what was known before */
};

/* A new operation that has yet to be awaited; `data` may be NULL. */
PyObject *pyc_sock_op_new(pyc_loop *loop, const pyc_sock_action *action,
                          PyObject *sock, PyObject *data, Py_ssize_t size,
                          const pyc_address *address);

/* What the operation waits for has happened, perhaps. */
void pyc_sock_op_ready(PyObject *op);

int pyc_sock_op_register(PyObject *module, pyc_state *state);

#endif
