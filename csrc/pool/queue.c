/* SPDX-License-Identifier: MIT */
#include "pool/queue.h"
#include "pool/aside.h"
#include "pool/hurry.h"

#include <limits.h>

#define BREATHE_EVERY 32 /* calls */

typedef struct {
    pyc_link link; /* in workers */
    pyc_link nap;  /* in idle */
    _Atomic uint32_t woken;
    pyc_job *job; /* what it runs, and after it what that was run for */
    unsigned long thread;
    int leave;           /* its pool is another one since a fork */
    pyc_future *awaited; /* somebody slept until it was done, just now */
    unsigned ran;
    pyc_queue *queue;
    PyObject *breathe; /* borrowed, as the queue: of the one who runs work() */
} pyc_worker;

static _Thread_local pyc_worker *working;

/* Takes the latest sleeper off the list: its caches are the warmest. The
 * lock is held; NULL when nobody needs to be woken, because nobody sleeps or
 * somebody is on the way and will pass the wake-up on. */
static pyc_worker *
pick_sleeper(pyc_queue *self)
{
    if (self->waking || pyc_link_alone(&self->idle)) {
        return NULL;
    }
    pyc_worker *worker = pyc_container(self->idle.next, pyc_worker, nap);
    pyc_link_remove(&worker->nap);
    self->waking = 1;
    return worker;
}

static void
wake(pyc_worker *worker)
{
    if (worker != NULL) {
        atomic_store(&worker->woken, 1);
        pyc_futex_wake(&worker->woken, 1);
    }
}

static void
refuse(pyc_queue *self, pyc_queue_status status)
{
    if (status == PYC_QUEUE_BROKEN) {
        PyObject *message = PyObject_Str(self->broken);
        if (message != NULL) { /* a new one, for each has its traceback */
            PyErr_SetObject((PyObject *)Py_TYPE(self->broken), message);
            Py_DECREF(message);
        }
        return;
    }
    PyErr_SetString(
        PyExc_RuntimeError,
        status == PYC_QUEUE_EXIT
            ? "cannot schedule new futures after interpreter shutdown"
            : "cannot schedule new futures after shutdown");
}

int
pyc_queue_put(pyc_queue *self, pyc_job *job, Py_ssize_t *number)
{
    pyc_worker *sleeper = NULL;
    *number = -1;
    pyc_lock_take(&self->lock);
    pyc_queue_status status = self->status;
    if (status == PYC_QUEUE_OPEN) {
        pyc_link_insert(&self->jobs, &job->link);
        self->count++;
        if (job->mailbox == NULL) {
            ((pyc_future *)job->future)->queue = self;
            ((pyc_future *)job->future)->job = job;
        }
        sleeper = pick_sleeper(self);
        if (self->count > self->nidle && self->nworkers < self->max_workers) {
            *number = self->nworkers++;
            self->nstarting++;
        }
    }
    pyc_lock_give(&self->lock);
    if (status != PYC_QUEUE_OPEN) {
        pyc_job_free(job);
        refuse(self, status);
        return -1;
    }
    wake(sleeper);
    return 0;
}

/* Takes the job out. The lock is held. */
static void
unlink_job(pyc_queue *self, pyc_job *job)
{
    pyc_link_remove(&job->link);
    self->count--;
    if (job->mailbox == NULL) {
        ((pyc_future *)job->future)->job = NULL;
    }
}

/* The oldest job that waits, or NULL. The lock is held. */
static pyc_job *
oldest(pyc_queue *self)
{
    return pyc_link_alone(&self->jobs)
               ? NULL
               : pyc_container(self->jobs.next, pyc_job, link);
}

/* Takes all jobs out, into an empty head. */
static void
take_all(pyc_queue *self, pyc_link *jobs)
{
    pyc_job *job;
    pyc_link_init(jobs);
    pyc_lock_take(&self->lock);
    while ((job = oldest(self)) != NULL) {
        unlink_job(self, job);
        pyc_link_insert(jobs, &job->link);
    }
    pyc_lock_give(&self->lock);
}

static pyc_job *
pop(pyc_link *jobs)
{
    if (pyc_link_alone(jobs)) {
        return NULL;
    }
    pyc_job *job = pyc_container(jobs->next, pyc_job, link);
    pyc_link_remove(&job->link);
    return job;
}

static void
fail_all(pyc_queue *self, PyObject *exception)
{
    pyc_link jobs;
    pyc_job *job;
    take_all(self, &jobs);
    while ((job = pop(&jobs)) != NULL) {
        pyc_job_fail(job, exception);
    }
}

void
pyc_queue_withdraw(pyc_queue *self, PyObject *future)
{
    PyObject *pending = pyc_take_exception();
    pyc_job *job = NULL;
    pyc_lock_take(&self->lock);
    int workers = (int)--self->nworkers;
    self->nstarting--;
    for (pyc_link *at = self->jobs.next; at != &self->jobs; at = at->next) {
        if (pyc_container(at, pyc_job, link)->future == future) {
            job = pyc_container(at, pyc_job, link);
            unlink_job(self, job);
            break;
        }
    }
    pyc_lock_give(&self->lock);
    if (job != NULL) {
        pyc_job_free(job);
    }
    if (workers == 0) { /* who came meanwhile relied on this worker */
        fail_all(self, pending);
    }
    pyc_put_exception(pending);
}

void
pyc_queue_close(pyc_queue *self, pyc_queue_status status)
{
    pyc_link sleepers;
    pyc_lock_take(&self->lock);
    if (self->status == PYC_QUEUE_OPEN) {
        self->status = status;
    }
    pyc_link_move(&self->idle, &sleepers);
    pyc_lock_give(&self->lock);
    while (!pyc_link_alone(&sleepers)) {
        pyc_worker *worker = pyc_container(sleepers.next, pyc_worker, nap);
        pyc_link_remove(&worker->nap);
        wake(worker);
    }
}

/* Takes a job: 1, 0 when there is none and the worker is on the list of
 * sleepers now, -1 when it is to leave. The lock is held. */
static int
take(pyc_queue *self, pyc_worker *worker, pyc_job **taken)
{
    pyc_job *job = *taken = oldest(self);
    if (job == NULL) {
        if (self->status != PYC_QUEUE_OPEN) {
            return -1;
        }
        atomic_store(&worker->woken, 0);
        pyc_link_insert(self->idle.next, &worker->nap);
        self->nidle++;
        return 0;
    }
    unlink_job(self, job);
    return 1;
}

/* Sleeps until there is a job; 1 with the job, -1 to leave. */
static int
next_job(pyc_queue *self, pyc_worker *worker, pyc_job **job)
{
    for (;;) {
        pyc_worker *sleeper = NULL;
        pyc_lock_take(&self->lock);
        int rc = take(self, worker, job);
        /* This job may block, and then who runs the next? */
        if (rc > 0 && self->count > 0) {
            sleeper = pick_sleeper(self);
        }
        pyc_lock_give(&self->lock);
        wake(sleeper);
        if (rc != 0) {
            return rc;
        }
        if (worker->awaited != NULL && worker->awaited->sleepers > 0) {
            pyc_hurry_begin(self->module);
        }
        Py_CLEAR(worker->awaited);
        Py_BEGIN_ALLOW_THREADS
        while (!atomic_load(&worker->woken)) {
            pyc_futex_wait(&worker->woken, 0, PYC_NO_DEADLINE);
        }
        Py_END_ALLOW_THREADS
        pyc_hurry_end(self->module);
        pyc_lock_take(&self->lock);
        self->nidle--;
        self->waking = 0;
        pyc_lock_give(&self->lock);
    }
}

/* Not a worker of another interpreter's that this thread is in the middle of.
 */
static pyc_worker *
worker_of_thread(pyc_state *module)
{
    pyc_worker *worker = working;
    return worker != NULL && worker->queue->module == module ? worker : NULL;
}

int
pyc_queue_in_worker(pyc_state *module)
{
    return worker_of_thread(module) != NULL;
}

/* Whether no other worker is free, or will be soon. Less than all workers, and
 * none on its way: a thread could not be started. The lock is held. */
static int
nobody_else(pyc_queue *self)
{
    return self->nidle == 0 &&
           (self->nworkers >= self->max_workers || self->nstarting <= 0);
}

int
pyc_queue_must_help(pyc_queue *self)
{
    pyc_worker *worker = worker_of_thread(self->module);
    if (worker == NULL || worker->queue != self) {
        return 0;
    }
    pyc_lock_take(&self->lock);
    int must = nobody_else(self);
    pyc_lock_give(&self->lock);
    return must ? 1 : -1;
}

void
pyc_queue_breathe(void)
{
    pyc_worker *worker = working;
    if (worker == NULL || ++worker->ran % BREATHE_EVERY != 0) {
        return;
    }
    PyObject *done = PyObject_CallNoArgs(worker->breathe);
    if (done == NULL) { /* an exception sent to this thread */
        PyErr_WriteUnraisable((PyObject *)worker->queue);
    }
    Py_XDECREF(done);
}

static void
run_job(pyc_worker *worker, pyc_job *job)
{
    pyc_job *outer = job->outer = worker->job;
    worker->job = job;
    Py_CLEAR(worker->awaited);
    pyc_future *awaited = pyc_job_run(job);
    Py_XSETREF(worker->awaited, awaited);
    worker->job = outer;
}

void
pyc_queue_hurry(pyc_future *future)
{
#ifndef Py_GIL_DISABLED /* which keeps its queue there while it waits */
    pyc_queue *queue = future->job == NULL ? NULL : (pyc_queue *)future->queue;
    if (queue != NULL && queue->waking) {
        pyc_hurry_begin(queue->module);
    }
#endif
}

int
pyc_queue_help(pyc_future *future)
{
    pyc_worker *worker = worker_of_thread(future->module);
    if (worker == NULL || future->queue != worker->queue) {
        return 0;
    }
    pyc_queue *self = worker->queue;
    pyc_lock_take(&self->lock);
    pyc_job *job = future->job;
    int must = nobody_else(self);
    if (job != NULL && must) {
        unlink_job(self, job);
    }
    pyc_lock_give(&self->lock);
    if (job == NULL || !must) {
        return job == NULL ? 0 : -1;
    }
    pyc_aside aside;
    pyc_aside_begin(self->module, &aside);
    run_job(worker, job);
    Py_CLEAR(worker->awaited); /* this worker does not go to sleep now */
    pyc_aside_end(self->module, &aside);
    return 1;
}

static PyObject *
queue_work(PyObject *op, PyObject *breathe)
{
    pyc_queue *self = (pyc_queue *)op;
    pyc_worker *worker = PyMem_RawCalloc(1, sizeof(*worker));
    pyc_worker *outer = working;
    pyc_job *job;
    if (worker == NULL) {
        PyErr_NoMemory();
        pyc_queue_withdraw(self, NULL);
        return NULL;
    }
    worker->thread = PyThread_get_thread_ident();
    worker->queue = self;
    worker->breathe = breathe;
    working = worker;
    pyc_link_init(&worker->nap);
    pyc_lock_take(&self->lock);
    pyc_link_insert(&self->workers, &worker->link);
    self->nstarting--;
    pyc_lock_give(&self->lock);
    while (!worker->leave && next_job(self, worker, &job) > 0) {
        run_job(worker, job);
        pyc_queue_breathe();
    }
    working = outer;
    Py_CLEAR(worker->awaited);
    pyc_lock_take(&self->lock);
    pyc_link_remove(&worker->link);
    pyc_lock_give(&self->lock);
    PyMem_RawFree(worker);
    Py_RETURN_NONE;
}

static PyObject *
queue_close(PyObject *op, PyObject *arg)
{
    pyc_queue_close((pyc_queue *)op,
                    PyObject_IsTrue(arg) ? PYC_QUEUE_EXIT : PYC_QUEUE_CLOSED);
    Py_RETURN_NONE;
}

static PyObject *
queue_cancel(PyObject *op, PyObject *Py_UNUSED(unused))
{
    atomic_fetch_add(&((pyc_queue *)op)->cancels, 1);
    pyc_link jobs;
    pyc_job *job;
    take_all((pyc_queue *)op, &jobs);
    while ((job = pop(&jobs)) != NULL) {
        pyc_job_cancel(job);
    }
    Py_RETURN_NONE;
}

static PyObject *
queue_break(PyObject *op, PyObject *exception)
{
    pyc_queue *self = (pyc_queue *)op;
    if (!PyExceptionInstance_Check(exception)) {
        PyErr_Format(PyExc_TypeError, "not an exception: %R", exception);
        return NULL;
    }
    pyc_lock_take(&self->lock);
    if (self->broken == NULL) {
        self->broken = Py_NewRef(exception);
    }
    self->status = PYC_QUEUE_BROKEN;
    pyc_lock_give(&self->lock);
    pyc_queue_close(self, PYC_QUEUE_BROKEN);
    fail_all(self, exception);
    Py_RETURN_NONE;
}

/* Ends the future of a job whose worker a fork left behind. */
static void
abandon(pyc_job *job, PyObject *exception)
{
    if (job->mailbox == NULL) {
        pyc_future_abandon((pyc_future *)job->future, exception);
    }
}

/* In a forked child, where only the thread that forked exists. */
static PyObject *
queue_after_fork(PyObject *op, PyObject *exception)
{
    pyc_queue *self = (pyc_queue *)op;
    pyc_lock_reset(&self->lock);
    self->forks++;
    pyc_hurry_end(self->module); /* the thread it was for is not here */
    pyc_link lost;
    pyc_link_move(&self->workers, &lost);
    pyc_link_init(&self->idle);
    self->nidle = self->nworkers = self->nstarting = 0;
    self->waking = 0;
    while (!pyc_link_alone(&lost)) {
        pyc_worker *worker = pyc_container(lost.next, pyc_worker, link);
        pyc_link_remove(&worker->link);
        if (worker->thread == PyThread_get_thread_ident()) {
            /* It forked in the middle of its job, which goes on. */
            worker->leave = 1;
            continue;
        }
        for (pyc_job *job = worker->job; job != NULL; job = job->outer) {
            abandon(job, exception);
        }
        PyMem_RawFree(worker);
    }
    pyc_link jobs;
    pyc_job *job;
    take_all(self, &jobs);
    while ((job = pop(&jobs)) != NULL) {
        abandon(job, exception);
        pyc_job_free(job);
    }
    Py_RETURN_NONE;
}

static PyObject *
queue_qsize(PyObject *op, PyObject *Py_UNUSED(unused))
{
    pyc_queue *self = (pyc_queue *)op;
    pyc_lock_take(&self->lock);
    Py_ssize_t count = self->count;
    pyc_lock_give(&self->lock);
    return PyLong_FromSsize_t(count);
}

static PyObject *
queue_workers(PyObject *op, PyObject *Py_UNUSED(unused))
{
    pyc_queue *self = (pyc_queue *)op;
    pyc_lock_take(&self->lock);
    Py_ssize_t workers = self->nworkers;
    pyc_lock_give(&self->lock);
    return PyLong_FromSsize_t(workers);
}

void
pyc_queue_drop(pyc_queue *self)
{
    pyc_link jobs;
    pyc_job *job;
    take_all(self, &jobs);
    while ((job = pop(&jobs)) != NULL) {
        pyc_job_free(job);
    }
}

PyMethodDef pyc_queue_methods[] = {
    {"work", queue_work, METH_O, "Runs jobs until the pool is closed."},
    {"close", queue_close, METH_O, "Takes no more; true: it is the exit."},
    {"cancel", queue_cancel, METH_NOARGS, "Cancels the jobs that wait."},
    {"break_", queue_break, METH_O, "Closes; jobs that wait get the error."},
    {"after_fork", queue_after_fork, METH_O, "Starts afresh in a child."},
    {"qsize", queue_qsize, METH_NOARGS, "How many jobs wait."},
    {"workers", queue_workers, METH_NOARGS, "Threads, also those to come."},
    {NULL},
};
