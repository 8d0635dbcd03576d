/* SPDX-License-Identifier: MIT */
/* The part of ThreadPoolExecutor that runs for each job; what runs once a
 * pool is in pyconc/concurrent/futures/thread.py. */
#include "pool/arrivals.h"
#include "pool/bridge.h"
#include "pool/map.h"
#include "pool/pool.h"
#include "pool/queue.h"
#include "pool/task.h"
#include "pool/wait.h"

#include "sync/timeout.h"

typedef struct {
    PyObject_HEAD
    pyc_queue *queue;
    PyTypeObject *future_type;
    pyc_state *module;
} executor;

/* Hands a job to the pool: 0, or -1 with an exception set. */
static int
enqueue(executor *self, PyObject *future, pyc_mailbox *mailbox, PyObject *func,
        PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    pyc_job *job = pyc_job_new(future, mailbox, func, args, nargs, kwnames);
    Py_ssize_t number;
    if (job == NULL || pyc_queue_put(self->queue, job, &number) < 0) {
        return -1;
    }
    if (number < 0) {
        return 0;
    }
    PyObject *n = PyLong_FromSsize_t(number);
    PyObject *started =
        n == NULL ? NULL
                  : PyObject_CallMethodOneArg(
                        (PyObject *)self, self->module->str__start_worker, n);
    Py_XDECREF(n);
    if (started == NULL) {
        pyc_queue_withdraw(self->queue, future);
        return -1;
    }
    Py_DECREF(started);
    return 0;
}

static int
is_open(executor *self)
{
    if (self->queue == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "ThreadPoolExecutor.__init__() was not called");
        return 0;
    }
    return 1;
}

static PyObject *
executor_submit(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    executor *self = (executor *)op;
    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError,
                        "ThreadPoolExecutor.submit() missing 1 required "
                        "positional argument: 'fn'");
        return NULL;
    }
    if (!is_open(self)) {
        return NULL;
    }
    PyObject *future =
        (PyObject *)pyc_future_new(self->future_type, self->module);
    if (future != NULL && enqueue(self, future, NULL, args[0], args + 1,
                                  nargs - 1, kwnames) < 0) {
        Py_CLEAR(future);
    }
    return future;
}

/* Has one more worker make the calls of `map`. */
static int
enqueue_map(executor *self, PyObject *map)
{
    pyc_future *future = pyc_future_new(self->future_type, self->module);
    int rc = -1;
    if (future != NULL && pyc_map_add_worker(map, future) == 0) {
        rc = enqueue(self, (PyObject *)future, NULL, map, NULL, 0, NULL);
    }
    Py_XDECREF(future);
    return rc;
}

static PyObject *
executor_map(PyObject *op, PyObject *args)
{
    executor *self = (executor *)op;
    PyObject *func, *items, *timeout;
    int spread;
    int64_t deadline;
    if (!PyArg_ParseTuple(args, "OO!pO:_map", &func, &PyList_Type, &items,
                          &spread, &timeout) ||
        !is_open(self) ||
        pyc_timeout_wait(self->module, timeout, &deadline) < 0) {
        return NULL;
    }
    PyObject *map = pyc_map_new(self->queue, func, items, spread, deadline);
    Py_ssize_t workers =
        Py_MIN(PyList_GET_SIZE(items), self->queue->max_workers);
    for (Py_ssize_t i = 0; map != NULL && i < workers; i++) {
        if (enqueue_map(self, map) < 0) {
            pyc_map_cancel(map);
            Py_CLEAR(map);
        }
    }
    return map;
}

/* The mailbox of the loop, remembered because a pool has mostly one loop. */
static pyc_mailbox *
mailbox_for(executor *self, PyObject *loop)
{
    pyc_queue *queue = self->queue;
    pyc_lock_take(&queue->lock);
    pyc_mailbox *mailbox = (pyc_mailbox *)Py_XNewRef(queue->mailbox);
    pyc_lock_give(&queue->lock);
    if (mailbox != NULL && pyc_mailbox_serves(mailbox, loop)) {
        return mailbox;
    }
    Py_XDECREF(mailbox);
    mailbox = pyc_mailbox_of(self->module, loop);
    if (mailbox != NULL) {
        pyc_lock_take(&queue->lock);
        pyc_mailbox *old = queue->mailbox;
        queue->mailbox = (pyc_mailbox *)Py_NewRef(mailbox);
        pyc_lock_give(&queue->lock);
        Py_XDECREF(old);
    }
    return mailbox;
}

PyObject *
pyc_pool_submit_to_loop(PyObject *op, PyObject *loop, PyObject *func,
                        PyObject *const *args, Py_ssize_t nargs)
{
    executor *self = (executor *)op;
    pyc_mailbox *mailbox = is_open(self) ? mailbox_for(self, loop) : NULL;
    if (mailbox == NULL) {
        return NULL;
    }
    PyObject *future =
        PyObject_CallMethodNoArgs(loop, self->module->str_create_future);
    if (future != NULL &&
        enqueue(self, future, mailbox, func, args, nargs, NULL) < 0) {
        Py_CLEAR(future);
    }
    Py_DECREF(mailbox);
    return future;
}

int
pyc_pool_is_ours(pyc_state *state, PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (!PyType_IsSubtype(type, state->executor_type)) {
        return 0;
    }
    PyObject *submit = PyObject_GetAttr((PyObject *)type, state->str_submit);
    PyObject *ours =
        PyObject_GetAttr((PyObject *)state->executor_type, state->str_submit);
    int same = submit != NULL && submit == ours;
    Py_XDECREF(submit);
    Py_XDECREF(ours);
    PyErr_Clear();
    return same;
}

static PyObject *
executor_submit_to_loop(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 2) {
        PyErr_Format(PyExc_TypeError,
                     "_submit_to_loop(loop, func, *args) takes at least 2 "
                     "arguments (%zd given)",
                     nargs);
        return NULL;
    }
    return pyc_pool_submit_to_loop(op, args[0], args[1], args + 2, nargs - 2);
}

static PyObject *
executor_open(PyObject *op, PyObject *args)
{
    executor *self = (executor *)op;
    PyObject *queue, *future_type;
    if (!PyArg_ParseTuple(args, "O!O!:_open", self->module->job_queue_type,
                          &queue, &PyType_Type, &future_type)) {
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)future_type,
                          self->module->future_type)) {
        PyErr_Format(PyExc_TypeError, "not a type of Future: %R", future_type);
        return NULL;
    }
    if (self->queue != NULL) {
        pyc_queue_close(self->queue, PYC_QUEUE_CLOSED);
    }
    Py_XSETREF(self->queue, (pyc_queue *)Py_NewRef(queue));
    Py_XSETREF(self->future_type, (PyTypeObject *)Py_NewRef(future_type));
    Py_RETURN_NONE;
}

static PyObject *
executor_get_queue(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *queue = (PyObject *)((executor *)op)->queue;
    return Py_NewRef(queue == NULL ? Py_None : queue);
}

static PyObject *
executor_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
             PyObject *Py_UNUSED(kwargs))
{
    pyc_state *module = pyc_state_of_type(type);
    executor *self =
        module == NULL ? NULL : (executor *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = module;
    }
    return (PyObject *)self;
}

static int
executor_traverse(PyObject *op, visitproc visit, void *arg)
{
    executor *self = (executor *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->queue);
    Py_VISIT(self->future_type);
    return 0;
}

/* Without an executor nobody can submit: the workers leave. */
static int
executor_clear(PyObject *op)
{
    executor *self = (executor *)op;
    if (self->queue != NULL) {
        pyc_queue_close(self->queue, PYC_QUEUE_CLOSED);
    }
    Py_CLEAR(self->queue);
    Py_CLEAR(self->future_type);
    return 0;
}

static void
executor_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    executor_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* clang-format off */
PyDoc_STRVAR(submit_doc,
"submit($self, fn, /, *args, **kwargs)\n--\n\n"
"Runs fn(*args, **kwargs) in a thread of the pool, in a copy of the\n"
"caller's context variables; a Future. RuntimeError after shutdown,\n"
"BrokenThreadPool after the initializer failed. See\n"
"concurrent.futures.Executor.submit.");
PyDoc_STRVAR(submit_to_loop_doc,
"_submit_to_loop($self, loop, func, /, *args)\n--\n\n"
"loop.run_in_executor(self, func, *args) without a Future between.");
PyDoc_STRVAR(map_doc,
"_map($self, func, items, spread, timeout, /)\n--\n\n"
"The results, in order, of func(item), or of func(*item) with spread, for\n"
"the items of a list, as an iterator with cancel().");
PyDoc_STRVAR(open_doc, "_open($self, queue, future_type, /)\n--\n\n");
/* clang-format on */

#define FASTCALL(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef executor_methods[] = {
    {"submit", FASTCALL(executor_submit), METH_FASTCALL | METH_KEYWORDS,
     submit_doc},
    {"_submit_to_loop", FASTCALL(executor_submit_to_loop), METH_FASTCALL,
     submit_to_loop_doc},
    {"_map", executor_map, METH_VARARGS, map_doc},
    {"_open", executor_open, METH_VARARGS, open_doc},
    {NULL},
};

static PyGetSetDef executor_getset[] = {
    {"_work_queue", executor_get_queue, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot executor_slots[] = {
    {Py_tp_doc, "What ThreadPoolExecutor does for each job."},
    {Py_tp_new, executor_new},
    {Py_tp_methods, executor_methods},
    {Py_tp_getset, executor_getset},
    {Py_tp_traverse, executor_traverse},
    {Py_tp_clear, executor_clear},
    {Py_tp_dealloc, executor_dealloc},
    {0, NULL},
};

static PyType_Spec executor_spec = {
    .name = "pyconc._core.ThreadPoolBase",
    .basicsize = sizeof(executor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = executor_slots,
};

int
pyc_pool_register(PyObject *module, pyc_state *state)
{
    if (pyc_future_register(module, state) < 0 ||
        pyc_task_register(module, state) < 0 ||
        pyc_arrivals_register(module, state) < 0 ||
        pyc_wait_register(module, state) < 0 ||
        pyc_bridge_register(module, state) < 0 ||
        pyc_queue_register(module, state) < 0 ||
        pyc_map_register(module, state) < 0) {
        return -1;
    }
    return pyc_add_type(module, &executor_spec, NULL, &state->executor_type);
}
