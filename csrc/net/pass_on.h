/* SPDX-License-Identifier: MIT */
/* Transports called by other threads than their loop's. asyncio promises
 * nothing there; but it must do no harm. With a GIL the call is simply made,
 * without one the loop is asked to make it soon. */
#ifndef PYC_NET_PASS_ON_H
#define PYC_NET_PASS_ON_H

#include "loop/loop.h"

/* Has the loop, whose reference it takes, call transport.name(*args), with
 * mutable buffers as they are now: None, or NULL with an exception. */
PyObject *pyc_pass_on(PyObject *transport, pyc_loop *loop, const char *name,
                      PyObject *const *args, Py_ssize_t nargs);

/* The same of transport.write() with all of the lines, which may be mutable, or
 * made one by one. */
PyObject *pyc_pass_on_lines(PyObject *transport, pyc_loop *loop,
                            PyObject *lines);

/* A new reference to the loop in the transport's field, when a call is to be
 * passed on, else NULL. Nothing at all with a GIL. */
static inline pyc_loop *
pyc_must_pass_on(PyObject *transport, pyc_loop *const *field)
{
    pyc_loop *loop = NULL;
    if (!PYC_FREE_THREADED) {
        return NULL;
    }
    /* The transport may let go of it this moment. */
    PYC_BEGIN_CRITICAL_SECTION(transport);
    if (*field != NULL && pyc_loop_runs_elsewhere(*field)) {
        loop = (pyc_loop *)Py_NewRef(*field);
    }
    PYC_END_CRITICAL_SECTION();
    return loop;
}

/* Whether a call would be passed on. */
static inline int
pyc_is_passed_on(PyObject *transport, pyc_loop *const *field)
{
    pyc_loop *loop = pyc_must_pass_on(transport, field);
    int passed = loop != NULL;
    Py_XDECREF(loop);
    return passed;
}

/* For `call`, which cannot be passed on: 0, or -1 with RuntimeError. */
int pyc_check_runs_here(PyObject *transport, pyc_loop *const *field,
                        const char *call);

#define PYC_PASS_ON(self, name)                                                \
    do {                                                                       \
        pyc_loop *pass_on_to =                                                 \
            pyc_must_pass_on((PyObject *)(self), &(self)->loop);               \
        if (pass_on_to != NULL) {                                              \
            return pyc_pass_on((PyObject *)(self), pass_on_to, name, NULL, 0); \
        }                                                                      \
    } while (0)
#define PYC_PASS_ON_WITH(self, name, arg)                                      \
    do {                                                                       \
        pyc_loop *pass_on_to =                                                 \
            pyc_must_pass_on((PyObject *)(self), &(self)->loop);               \
        if (pass_on_to != NULL) {                                              \
            PyObject *const pass_on_args[] = {arg};                            \
            return pyc_pass_on((PyObject *)(self), pass_on_to, name,           \
                               pass_on_args, 1);                               \
        }                                                                      \
    } while (0)

#endif
