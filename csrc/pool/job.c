/* SPDX-License-Identifier: MIT */
#include "pool/job.h"

static Py_ssize_t
count_args(const pyc_job *job)
{
    return job->nargs +
           (job->kwnames == NULL ? 0 : PyTuple_GET_SIZE(job->kwnames));
}

pyc_job *
pyc_job_new(PyObject *future, pyc_mailbox *mailbox, PyObject *func,
            PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t all = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL) {
        return NULL;
    }
    pyc_job *job =
        PyMem_Malloc(sizeof(*job) + (size_t)(all + 1) * sizeof(PyObject *));
    if (job == NULL) {
        Py_DECREF(context);
        PyErr_NoMemory();
        return NULL;
    }
    pyc_link_init(&job->link);
    job->outer = NULL;
    job->future = Py_NewRef(future);
    job->mailbox = (pyc_mailbox *)Py_XNewRef(mailbox);
    job->context = context;
    job->func = Py_NewRef(func);
    job->kwnames = Py_XNewRef(kwnames);
    job->nargs = nargs;
    for (Py_ssize_t i = 0; i < all; i++) {
        job->args[i + 1] = Py_NewRef(args[i]);
    }
    return job;
}

/* Lets go of the call itself, whose arguments may be large, before anybody
 * hears of the outcome. */
static void
drop_call(pyc_job *job)
{
    Py_ssize_t all = count_args(job);
    Py_CLEAR(job->func);
    Py_CLEAR(job->context);
    Py_CLEAR(job->kwnames);
    job->nargs = 0;
    for (Py_ssize_t i = 1; i <= all; i++) {
        Py_DECREF(job->args[i]);
    }
}

void
pyc_job_free(pyc_job *job)
{
    if (job->func != NULL) {
        drop_call(job);
    }
    Py_DECREF(job->future);
    Py_XDECREF(job->mailbox);
    PyMem_Free(job);
}

int
pyc_job_traverse(pyc_job *job, visitproc visit, void *arg)
{
    Py_ssize_t all = count_args(job);
    Py_VISIT(job->future);
    Py_VISIT(job->mailbox);
    Py_VISIT(job->context);
    Py_VISIT(job->func);
    Py_VISIT(job->kwnames);
    for (Py_ssize_t i = 1; i <= all; i++) {
        Py_VISIT(job->args[i]);
    }
    return 0;
}

/* 1 when the call is to be made, 0 when its future was cancelled, -1 with an
 * exception set. */
static int
begin(pyc_job *job)
{
    if (job->mailbox == NULL) {
        return pyc_future_begin((pyc_future *)job->future);
    }
    PyObject *cancelled = PyObject_CallMethodNoArgs(
        job->future, job->mailbox->module->str_cancelled);
    if (cancelled == NULL) {
        return -1;
    }
    int rc = cancelled != Py_True;
    Py_DECREF(cancelled);
    return rc;
}

static int
finish(pyc_job *job, PyObject *value, int failed)
{
    if (job->mailbox == NULL) {
        return pyc_future_finish((pyc_future *)job->future, value, failed);
    }
    pyc_mailbox_put(job->mailbox, job->future,
                    failed ? PYC_EXCEPTION : PYC_RESULT, value);
    return 0;
}

static PyObject *
call(pyc_job *job)
{
    if (PyContext_Enter(job->context) < 0) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(
        job->func, job->args + 1,
        (size_t)job->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, job->kwnames);
    if (PyContext_Exit(job->context) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* A job's own exceptions go into its future: this one came from a callback
 * or from the future itself. */
static void
log_exception(pyc_job *job)
{
    PyErr_WriteUnraisable(job->future);
}

pyc_future *
pyc_job_run(pyc_job *job)
{
    pyc_future *awaited = NULL;
    int rc = begin(job);
    if (rc > 0) {
        PyObject *value = call(job);
        int failed = value == NULL;
        if (failed) {
            value = pyc_take_exception();
        }
        drop_call(job);
        pyc_future *future =
            job->mailbox == NULL ? (pyc_future *)job->future : NULL;
        if (future != NULL && atomic_load(&future->sleepers) > 0) {
            awaited = (pyc_future *)Py_NewRef(future);
        }
        rc = finish(job, value, failed);
        Py_DECREF(value);
    }
    if (rc < 0) {
        log_exception(job);
    }
    pyc_job_free(job);
    return awaited;
}

void
pyc_job_cancel(pyc_job *job)
{
    if (job->mailbox != NULL) {
        pyc_mailbox_put(job->mailbox, job->future, PYC_CANCEL, NULL);
    }
    else {
        pyc_future *future = (pyc_future *)job->future;
        /* begin() tells those who wait in concurrent.futures.wait. */
        if (pyc_future_cancel(future) < 0 || pyc_future_begin(future) < 0) {
            log_exception(job);
        }
    }
    pyc_job_free(job);
}

void
pyc_job_fail(pyc_job *job, PyObject *exception)
{
    int rc = begin(job);
    if (rc > 0) {
        rc = finish(job, exception, 1);
    }
    if (rc < 0) {
        log_exception(job);
    }
    pyc_job_free(job);
}
