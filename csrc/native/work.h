/* SPDX-License-Identifier: MIT */
/* Work: a C function, what it works on, and the job that calls it without the
 * GIL. */
#ifndef PYC_NATIVE_WORK_H
#define PYC_NATIVE_WORK_H

#include "py/crew.h"

/* What the function is declared as; the names are pyconc.native's. */
typedef enum {
    PYC_CALL,       /* void (void *) */
    PYC_CALL_INT,   /* int (void *) */
    PYC_BLOCK,      /* int64_t (const void *, size_t, void *, size_t, void *) */
    PYC_RANGE,      /* void (size_t, size_t, void *) */
    PYC_RANGE_INT,  /* int (size_t, size_t, void *) */
    PYC_UNARY,      /* double (double) */
    PYC_UNARY_DATA, /* double (double, void *) */
    PYC_SIGNATURES,
} pyc_signature;

/* Begins as pyc_crew_object does. */
typedef struct {
    PyObject_HEAD
    pyc_crew_job job;
    pyc_crew_state *state;
    PyObject *owner; /* what the function lives in */
    void *function;
    void *data; /* the last argument */
    pyc_signature signature;
    const void *in;
    void *out;
    size_t in_step, out_step; /* bytes an item */
    int64_t value;            /* what the only call returned */
    Py_buffer views[3];
    int view_count;
    atomic_bool started;
    atomic_bool claimed; /* somebody has taken the outcome */
} pyc_work;

extern PyType_Spec pyc_work_spec;

/* The function that calls the work's function for some of its items. */
size_t pyc_work_call(pyc_crew_job *job, size_t begin, size_t end,
                     void **scratch, pyc_fault *fault);

/* Has the work's buffers held. `input` and `output` may be None. 0 or -1. */
int pyc_work_hold_data(pyc_work *self, PyObject *data);
int pyc_work_hold_whole(pyc_work *self, PyObject *input, PyObject *output);
/* The same for arrays whose rows are the items: sets the job's total. */
int pyc_work_hold_rows(pyc_work *self, PyObject *input, PyObject *output);
/* Lets go of them. */
void pyc_work_release(pyc_work *self);

/* The factories, as methods of the module. */
PyObject *pyc_work_once(PyObject *module, PyObject *const *args,
                        Py_ssize_t count);
PyObject *pyc_work_ranges(PyObject *module, PyObject *const *args,
                          Py_ssize_t count);
PyObject *pyc_work_arrays(PyObject *module, PyObject *const *args,
                          Py_ssize_t count);

#endif
