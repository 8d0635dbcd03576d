/* SPDX-License-Identifier: MIT */
/* Handle and TimerHandle: a callback with its arguments and its context. */
#ifndef PYC_LOOP_HANDLE_H
#define PYC_LOOP_HANDLE_H

#include "py/compat.h"
#include "loop/loop.h"

#define PYC_HANDLE_INLINE_ARGS 3

typedef struct pyc_handle {
    PyObject_HEAD
    PyObject *callback; /* NULL once cancelled */
    /* stack[1...] are the arguments; more of them than fit are one tuple in
     * stack[1], and nargs is -1. stack[0] belongs to the callee of a
     * vectorcall. */
    PyObject *stack[1 + PYC_HANDLE_INLINE_ARGS];
    PyObject *context;
    pyc_loop *loop;
    PyObject *source_traceback; /* debug mode only, else NULL */
    PyObject *repr;             /* kept at cancellation in debug mode */
    PyObject *weakrefs;
    signed char nargs;
    char cancelled;
    char running;        /* its callback and arguments are in use */
    char scheduled;      /* TimerHandle: in the loop's heap */
    char tracked;        /* by the garbage collector */
    char context_shared; /* with other handles, until they run */
    char threadsafe;     /* made by call_soon_threadsafe() */
    /* The thread in _run(), or 0: when it runs, the loop's thread runs it. */
    unsigned long runner;
} pyc_handle;

typedef struct {
    pyc_handle handle;
    double when;
    PyObject *when_given; /* what call_at() got, or NULL for a float */
} pyc_timer_handle;

/* A handle made while its loop runs is not tracked by the garbage collector
 * while the loop holds it: that loop is alive, and most handles end with their
 * run. pyc_handle_track() makes up for it when one lives on: when the loop lets
 * go of it, or stops. */
void pyc_handle_track(pyc_handle *handle);

/* New handles, with references of their own to everything given. context may
 * be NULL or None: then it is a copy of the current one. NULL with an
 * exception set. */
pyc_handle *pyc_handle_new(pyc_loop *loop, PyObject *callback,
                           PyObject *const *args, Py_ssize_t nargs,
                           PyObject *context);
pyc_handle *pyc_timer_handle_new(pyc_loop *loop, PyObject *callback,
                                 PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *context);

/* Runs it unless it is cancelled, and reports what it raises to the loop. The
 * caller keeps a reference. */
void pyc_handle_run(pyc_handle *handle);
/* Drops the loop's reference to one that ran or never will. */
void pyc_handle_done(pyc_handle *handle);
void pyc_handle_cancel(pyc_handle *handle);

/* The context it runs in, borrowed; NULL with an exception. */
PyObject *pyc_handle_own_context(pyc_handle *handle);
/* Lets go of the contexts the loop keeps for its handles: before it sleeps,
 * since the values in them stay alive with them. */
void pyc_handle_forget_contexts(pyc_loop *loop);

/* Frees what the loop keeps for new handles. */
void pyc_handle_free_all(pyc_loop *loop);

/* For the types (handle_type.c). */
int pyc_handle_traverse(pyc_handle *handle, visitproc visit, void *arg);
int pyc_handle_clear(pyc_handle *handle);
void pyc_handle_dealloc(pyc_handle *handle);
/* A tuple, or None for a cancelled one; a new reference. */
PyObject *pyc_handle_arguments(pyc_handle *handle);

int pyc_handle_register(PyObject *module, pyc_state *state);

#endif
