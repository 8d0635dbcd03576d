/* SPDX-License-Identifier: MIT */
#include "pool/queue.h"

#include <limits.h>

#define BREATHE_EVERY 32 /* calls */

typedef struct {
    pyc_link link; /* in workers */
    pyc_link nap;  /* in idle */
    _Atomic uint32_t woken;
    pyc_job *job; /* what it runs, and after it what that was run for */
    unsigned long thread;
    int leave; /* its pool is another one since a fork */
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
refuse(pyc_queue *self)
{
    if (self->status == PYC_QUEUE_BROKEN) {
        PyObject *message = PyObject_Str(self->broken);
        if (message != NULL) { /* a new one, for each has its traceback */
            PyErr_SetObject((PyObject *)Py_TYPE(self->broken), message);
            Py_DECREF(message);
        }
        return;
    }
    PyErr_SetString(
        PyExc_RuntimeError,
        self->status == PYC_QUEUE_EXIT
            ? "cannot schedule new futures after interpreter shutdown"
            : "cannot schedule new futures after shutdown");
}

int
pyc_queue_put(pyc_queue *self, pyc_job *job, Py_ssize_t *number)
{
    pyc_worker *sleeper = NULL;
    *number = -1;
    pyc_lock_take(&self->lock);
    int open = self->status == PYC_QUEUE_OPEN;
    if (open) {
        *(self->first == NULL ? &self->first : &self->last->next) = job;
        self->last = job;
        self->count++;
        sleeper = pick_sleeper(self);
        if (self->count > self->nidle && self->nworkers < self->max_workers) {
            *number = self->nworkers++;
        }
    }
    pyc_lock_give(&self->lock);
    if (!open) {
        pyc_job_free(job);
        refuse(self);
        return -1;
    }
    wake(sleeper);
    return 0;
}

/* Takes the job of `future` out, if it is there. The lock is held. */
static pyc_job *
extract(pyc_queue *self, PyObject *future)
{
    pyc_job **slot = &self->first, *before = NULL;
    while (*slot != NULL && (*slot)->future != future) {
        before = *slot;
        slot = &before->next;
    }
    pyc_job *job = *slot;
    if (job != NULL) {
        *slot = job->next;
        if (self->last == job) {
            self->last = before;
        }
        job->next = NULL;
        self->count--;
    }
    return job;
}

void
pyc_queue_withdraw(pyc_queue *self, PyObject *future)
{
    PyObject *pending = pyc_take_exception();
    pyc_lock_take(&self->lock);
    self->nworkers--;
    pyc_job *job = extract(self, future);
    pyc_lock_give(&self->lock);
    if (job != NULL) {
        pyc_job_free(job);
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

/* All jobs that wait, as a list. */
static pyc_job *
take_all(pyc_queue *self)
{
    pyc_lock_take(&self->lock);
    pyc_job *jobs = self->first;
    self->first = self->last = NULL;
    self->count = 0;
    pyc_lock_give(&self->lock);
    return jobs;
}

/* Takes a job: 1, 0 when there is none and the worker is on the list of
 * sleepers now, -1 when it is to leave. The lock is held. */
static int
take(pyc_queue *self, pyc_worker *worker, pyc_job **taken)
{
    pyc_job *job = *taken = self->first;
    if (job == NULL) {
        if (self->status != PYC_QUEUE_OPEN) {
            return -1;
        }
        atomic_store(&worker->woken, 0);
        pyc_link_insert(self->idle.next, &worker->nap);
        self->nidle++;
        return 0;
    }
    self->first = job->next;
    self->count--;
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
        Py_BEGIN_ALLOW_THREADS
        while (!atomic_load(&worker->woken)) {
            pyc_futex_wait(&worker->woken, 0, PYC_NO_DEADLINE);
        }
        Py_END_ALLOW_THREADS
        pyc_lock_take(&self->lock);
        self->nidle--;
        self->waking = 0;
        pyc_lock_give(&self->lock);
    }
}

pyc_queue *
pyc_queue_of_thread(void)
{
    return working == NULL ? NULL : working->queue;
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

/* In the middle of the job that waits for it, if any. */
static void
run_job(pyc_worker *worker, pyc_job *job)
{
    job->next = worker->job;
    worker->job = job;
    pyc_job *outer = job->next;
    pyc_job_run(job);
    worker->job = outer;
}

int
pyc_queue_help(PyObject *future)
{
    pyc_worker *worker = working;
    if (worker == NULL) {
        return 0;
    }
    pyc_lock_take(&worker->queue->lock);
    pyc_job *job = extract(worker->queue, future);
    pyc_lock_give(&worker->queue->lock);
    if (job == NULL) {
        return 0;
    }
    PyObject *pending = pyc_take_exception();
    run_job(worker, job);
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
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
        return PyErr_NoMemory();
    }
    worker->thread = PyThread_get_thread_ident();
    worker->queue = self;
    worker->breathe = breathe;
    working = worker;
    pyc_link_init(&worker->nap);
    pyc_lock_take(&self->lock);
    pyc_link_insert(&self->workers, &worker->link);
    pyc_lock_give(&self->lock);
    while (!worker->leave && next_job(self, worker, &job) > 0) {
        run_job(worker, job);
        pyc_queue_breathe();
    }
    working = outer;
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
    pyc_job *job = take_all((pyc_queue *)op);
    while (job != NULL) {
        pyc_job *next = job->next;
        pyc_job_cancel(job);
        job = next;
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
    pyc_job *job = take_all(self);
    while (job != NULL) {
        pyc_job *next = job->next;
        pyc_job_fail(job, exception);
        job = next;
    }
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
    pyc_link lost;
    pyc_link_move(&self->workers, &lost);
    pyc_link_init(&self->workers);
    pyc_link_init(&self->idle);
    self->nidle = self->nworkers = 0;
    self->waking = 0;
    while (!pyc_link_alone(&lost)) {
        pyc_worker *worker = pyc_container(lost.next, pyc_worker, link);
        pyc_link_remove(&worker->link);
        if (worker->thread == PyThread_get_thread_ident()) {
            /* It forked in the middle of its job, which goes on. */
            worker->leave = 1;
            continue;
        }
        for (pyc_job *job = worker->job; job != NULL; job = job->next) {
            abandon(job, exception);
        }
        PyMem_RawFree(worker);
    }
    pyc_job *job = take_all(self);
    while (job != NULL) {
        pyc_job *next = job->next;
        abandon(job, exception);
        pyc_job_free(job);
        job = next;
    }
    Py_RETURN_NONE;
}

static PyObject *
queue_qsize(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromSsize_t(((pyc_queue *)op)->count);
}

static PyObject *
queue_get_broken(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *broken = ((pyc_queue *)op)->broken;
    return broken == NULL ? Py_NewRef(Py_False) : PyObject_Str(broken);
}

static PyObject *
queue_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((pyc_queue *)op)->status != PYC_QUEUE_OPEN);
}

static PyObject *
queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"max_workers", NULL};
    Py_ssize_t max_workers;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n:JobQueue", names,
                                     &max_workers)) {
        return NULL;
    }
    pyc_state *module = pyc_state_of_type(type);
    pyc_queue *self =
        module == NULL ? NULL : (pyc_queue *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = module;
        self->max_workers = max_workers;
        pyc_link_init(&self->workers);
        pyc_link_init(&self->idle);
    }
    return (PyObject *)self;
}

static int
queue_traverse(PyObject *op, visitproc visit, void *arg)
{
    pyc_queue *self = (pyc_queue *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->broken);
    Py_VISIT(self->mailbox);
    for (pyc_job *job = self->first; job != NULL; job = job->next) {
        int rc = pyc_job_traverse(job, visit, arg);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int
queue_clear(PyObject *op)
{
    pyc_queue *self = (pyc_queue *)op;
    Py_CLEAR(self->broken);
    Py_CLEAR(self->mailbox);
    pyc_job *job = take_all(self);
    while (job != NULL) {
        pyc_job *next = job->next;
        pyc_job_free(job);
        job = next;
    }
    return 0;
}

static void
queue_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    queue_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef queue_methods[] = {
    {"work", queue_work, METH_O,
     "Runs jobs until the pool is closed and calls the Python function now "
     "and then."},
    {"close", queue_close, METH_O,
     "Takes no more jobs; true: the interpreter ends."},
    {"cancel", queue_cancel, METH_NOARGS, "Cancels the jobs that wait."},
    {"break_", queue_break, METH_O,
     "Closes; the jobs that wait fail with the exception."},
    {"after_fork", queue_after_fork, METH_O,
     "Starts afresh in a child; lost jobs get the exception."},
    {"qsize", queue_qsize, METH_NOARGS, "How many jobs wait."},
    {NULL},
};

static PyGetSetDef queue_getset[] = {
    {"broken", queue_get_broken, NULL, NULL, NULL},
    {"closed", queue_get_closed, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "JobQueue(max_workers)\n--\n\nThe jobs of a thread pool."},
    {Py_tp_new, queue_new},
    {Py_tp_methods, queue_methods},
    {Py_tp_getset, queue_getset},
    {Py_tp_traverse, queue_traverse},
    {Py_tp_clear, queue_clear},
    {Py_tp_dealloc, queue_dealloc},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "pyconc._core.JobQueue",
    .basicsize = sizeof(pyc_queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

int
pyc_queue_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &queue_spec, NULL, &state->job_queue_type);
}
