/* SPDX-License-Identifier: MIT */
#include "pool/map.h"
#include "pool/aside.h"

#include <errno.h>
#include <limits.h>

enum { WAITS, BEGUN, RETURNED, RAISED, CANCELLED };

/* One call: the item, then its outcome. */
typedef struct {
    PyObject *value;
    _Atomic uint32_t state;
} call;

typedef struct {
    PyObject_HEAD
    pyc_queue *queue;
    PyObject *func;
    PyObject *context; /* the submitter's, copied for each call */
    PyObject *workers; /* the futures of those who make the calls */
    call *calls;
    Py_ssize_t count;
    Py_ssize_t taken;           /* results that were handed out */
    _Atomic Py_ssize_t next;    /* the first call that nobody has begun */
    _Atomic Py_ssize_t awaited; /* the call somebody sleeps for, or -1 */
    _Atomic uint32_t told;      /* what he sleeps on */
    unsigned cancels;           /* of the queue, at the beginning */
    int spread;
    int64_t deadline;
} map;

static inline uint32_t
state_of(map *self, Py_ssize_t i)
{
    return atomic_load(&self->calls[i].state);
}

static void
tell(map *self)
{
    atomic_fetch_add(&self->told, 1);
    pyc_futex_wake(&self->told, 1);
}

/* Ends the calls that nobody has begun, each with a reference to `value`. */
static void
end_rest(map *self, uint32_t state, PyObject *value)
{
    Py_ssize_t i = atomic_exchange(&self->next, self->count);
    for (; i < self->count; i++) {
        PyObject *item = self->calls[i].value;
        self->calls[i].value = Py_XNewRef(value);
        atomic_store(&self->calls[i].state, state);
        Py_DECREF(item);
    }
    tell(self);
}

/* The number of a call that is the caller's now, or -1. */
static Py_ssize_t
claim(map *self)
{
    if (atomic_load(&self->queue->cancels) != self->cancels) {
        end_rest(self, CANCELLED, NULL);
    }
    if (atomic_load(&self->next) >= self->count) {
        return -1;
    }
    Py_ssize_t i = atomic_fetch_add(&self->next, 1);
    return i < self->count ? i : -1;
}

static PyObject *
make_call(map *self, PyObject *item)
{
    PyObject *context = PyContext_Copy(self->context);
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return NULL;
    }
    PyObject *result = self->spread ? PyObject_CallObject(self->func, item)
                                    : PyObject_CallOneArg(self->func, item);
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(context);
    return result;
}

static void
run(map *self, Py_ssize_t i)
{
    call *it = &self->calls[i];
    PyObject *item = it->value;
    it->value = NULL;
    atomic_store(&it->state, BEGUN);
    PyObject *value = make_call(self, item);
    uint32_t state = RETURNED;
    if (value == NULL) {
        value = pyc_take_exception();
        state = RAISED;
    }
    Py_DECREF(item); /* it may be large, and nobody needs it any more */
    it->value = value;
    atomic_store(&it->state, state);
    if (atomic_load(&self->awaited) == i) {
        tell(self);
    }
}

/* What a worker's future calls when it is over. */
static void
worker_ended(map *self, pyc_future *future)
{
    uint32_t state = pyc_future_state(future);
    if (state != PYC_FINISHED) {
        end_rest(self, CANCELLED, NULL);
    }
    else if (future->exception != NULL) {
        end_rest(self, RAISED, future->exception);
    }
}

static PyObject *
map_call(PyObject *op, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    map *self = (map *)op;
    PyObject *future = NULL;
    Py_ssize_t i;
    if (!PyArg_UnpackTuple(args, "map", 0, 1, &future)) {
        return NULL;
    }
    if (future != NULL) {
        PyTypeObject *type = self->queue->module->future_type;
        if (!PyObject_TypeCheck(future, type)) {
            PyErr_Format(PyExc_TypeError, "not a Future: %R", future);
            return NULL;
        }
        worker_ended(self, (pyc_future *)future);
        Py_RETURN_NONE;
    }
    while ((i = claim(self)) >= 0) {
        run(self, i);
        pyc_queue_breathe();
    }
    Py_RETURN_NONE;
}

/* ---- the results ------------------------------------------------------- */

/* Whether nobody is left to make the calls, since a fork left all workers
 * behind: the exception that says so is set then. */
static int
is_lost(map *self, Py_ssize_t i)
{
    Py_ssize_t count = PyList_GET_SIZE(self->workers);
    pyc_future *worker = NULL;
    for (Py_ssize_t k = 0; k < count; k++) {
        worker = (pyc_future *)PyList_GET_ITEM(self->workers, k);
        if (!pyc_future_done(worker)) {
            return 0;
        }
    }
    if (state_of(self, i) >= RETURNED) {
        return 0;
    }
    PyObject *why = worker == NULL ? NULL : worker->exception;
    if (why == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the calls of map() are made by nobody");
    }
    else {
        PyErr_SetObject((PyObject *)Py_TYPE(why), why);
    }
    return 1;
}

/* Sleeps until the state of call i has changed: 0; 1 when `deadline` has
 * passed, -1 with an exception set. */
static int
sleep_for(map *self, Py_ssize_t i, int64_t deadline)
{
    int rc = 0;
    uint32_t told = atomic_load(&self->told);
    atomic_store(&self->awaited, i);
    if (state_of(self, i) < RETURNED) {
        if (is_lost(self, i)) {
            return -1;
        }
        Py_BEGIN_ALLOW_THREADS
        rc = pyc_futex_wait(&self->told, told, deadline);
        Py_END_ALLOW_THREADS
    }
    atomic_store(&self->awaited, -1);
    if (PyErr_CheckSignals() < 0) {
        return -1;
    }
    return rc == -ETIMEDOUT && state_of(self, i) < RETURNED;
}

/* Makes a call that nobody has begun, if there is one. */
static int
help(map *self)
{
    Py_ssize_t i = claim(self);
    if (i >= 0) {
        pyc_aside aside;
        pyc_aside_begin(self->queue->module, &aside);
        run(self, i);
        pyc_aside_end(self->queue->module, &aside);
    }
    return i >= 0;
}

/* A worker of the pool makes calls itself once no other is free to. */
static int
await_call(map *self, Py_ssize_t i)
{
    while (state_of(self, i) < RETURNED) {
        int64_t deadline = self->deadline;
        int must =
            deadline == PYC_NO_DEADLINE ? pyc_queue_must_help(self->queue) : 0;
        if (must > 0 && help(self)) {
            continue;
        }
        if (must < 0) {
            deadline = pyc_clock_now() + PYC_HELP_AFTER;
        }
        int rc = sleep_for(self, i, deadline);
        if (rc > 0 && must >= 0) {
            PyErr_SetNone(PyExc_TimeoutError);
        }
        if (rc < 0 || (rc > 0 && must >= 0)) {
            return -1;
        }
    }
    return 0;
}

/* Raises what a call raised. A StopIteration would end the results, so it
 * becomes what it becomes in a generator. */
static void
raise_taken(PyObject *exception)
{
    if (!PyErr_GivenExceptionMatches(exception, PyExc_StopIteration)) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        return;
    }
    PyErr_SetString(PyExc_RuntimeError, "generator raised StopIteration");
    PyObject *error = pyc_take_exception();
    PyException_SetCause(error, Py_NewRef(exception));
    PyException_SetContext(error, Py_NewRef(exception));
    pyc_put_exception(error);
}

static PyObject *
map_next(PyObject *op)
{
    map *self = (map *)op;
    if (self->taken >= self->count || await_call(self, self->taken) < 0) {
        return NULL;
    }
    call *it = &self->calls[self->taken++];
    PyObject *value = it->value;
    it->value = NULL;
    switch (atomic_load(&it->state)) {
    case RETURNED:
        return value;
    case RAISED:
        raise_taken(value);
        Py_DECREF(value);
        return NULL;
    default:
        PyErr_SetNone(self->queue->module->base_CancelledError);
        return NULL;
    }
}

/* ---- its life ---------------------------------------------------------- */

PyObject *
pyc_map_new(pyc_queue *queue, PyObject *func, PyObject *items, int spread,
            int64_t deadline)
{
    PyTypeObject *type = queue->module->map_type;
    map *self = (map *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(items);
    self->queue = (pyc_queue *)Py_NewRef(queue);
    self->func = Py_NewRef(func);
    self->context = PyContext_CopyCurrent();
    self->workers = PyList_New(0);
    self->calls = PyMem_New(call, (size_t)count + 1);
    if (self->context == NULL || self->workers == NULL || self->calls == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_NoMemory();
        }
        Py_DECREF(self);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        self->calls[i].value = Py_NewRef(PyList_GET_ITEM(items, i));
        atomic_init(&self->calls[i].state, WAITS);
    }
    self->count = count;
    atomic_init(&self->awaited, -1);
    self->cancels = atomic_load(&queue->cancels);
    self->spread = spread;
    self->deadline = deadline;
    return (PyObject *)self;
}

int
pyc_map_add_worker(PyObject *op, pyc_future *future)
{
    if (PyList_Append(((map *)op)->workers, (PyObject *)future) < 0) {
        return -1;
    }
    return pyc_future_add_callback(future, op) < 0 ? -1 : 0;
}

void
pyc_map_cancel(PyObject *op)
{
    end_rest((map *)op, CANCELLED, NULL);
}

static PyObject *
map_cancel(PyObject *op, PyObject *Py_UNUSED(unused))
{
    pyc_map_cancel(op);
    Py_RETURN_NONE;
}

static int
map_traverse(PyObject *op, visitproc visit, void *arg)
{
    map *self = (map *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->queue);
    Py_VISIT(self->func);
    Py_VISIT(self->context);
    Py_VISIT(self->workers);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->calls[i].value);
    }
    return 0;
}

static int
map_clear(PyObject *op)
{
    map *self = (map *)op;
    atomic_store(&self->next, self->count);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_CLEAR(self->calls[i].value);
    }
    Py_CLEAR(self->func);
    Py_CLEAR(self->context);
    Py_CLEAR(self->workers);
    return 0;
}

static void
map_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    map *self = (map *)op;
    PyObject_GC_UnTrack(op);
    map_clear(op);
    Py_CLEAR(self->queue);
    PyMem_Free(self->calls);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef map_methods[] = {
    {"cancel", map_cancel, METH_NOARGS,
     "Cancels the calls that nobody has begun."},
    {NULL},
};

static PyType_Slot map_slots[] = {
    {Py_tp_doc, "The calls of ThreadPoolExecutor.map; gives their results."},
    {Py_tp_call, map_call},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, map_next},
    {Py_tp_methods, map_methods},
    {Py_tp_traverse, map_traverse},
    {Py_tp_clear, map_clear},
    {Py_tp_dealloc, map_dealloc},
    {0, NULL},
};

static PyType_Spec map_spec = {
    .name = "pyconc._core.Map",
    .basicsize = sizeof(map),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = map_slots,
};

int
pyc_map_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &map_spec, NULL, &state->map_type);
}
