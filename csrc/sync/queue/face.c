/* SPDX-License-Identifier: MIT */
#include "sync/queue/face.h"

#include "sync/interrupt.h"

#define SELF ((pyc_thread_queue *)self)

int
pyc_thread_queue_put(pyc_thread_queue *self, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames)
{
    static const pyc_signature signature = {
        "put", {"item", "block", "timeout"}, 1};
    PyObject *given[3] = {NULL, NULL, NULL};
    int64_t deadline = PYC_NO_DEADLINE;
    if (PYC_LIKELY(nargs == 1 && kwnames == NULL)) {
        given[0] = args[0];
    }
    else if (pyc_arguments(&signature, args, nargs, kwnames, given) < 0 ||
             (pyc_load(self->maxsize) > 0 &&
              pyc_timeout_queue(self->module, given[1], given[2], &deadline) <
                  0)) {
        return -1;
    }
    int rc = pyc_thread_queue_try_put(self, given[0]);
    if (PYC_LIKELY(rc != 0)) {
        return rc;
    }
    if (deadline != PYC_NO_WAIT) {
        rc = pyc_thread_queue_block(self, &pyc_thread_queue_putting, &given[0],
                                    deadline);
    }
    if (rc == 0) {
        PyErr_SetNone(self->module->queue_Full);
    }
    return rc == 0 ? -1 : rc;
}

int
pyc_thread_queue_get(pyc_thread_queue *self, PyObject **item,
                     PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const pyc_signature signature = {"get", {"block", "timeout"}, 0};
    int64_t deadline = PYC_NO_DEADLINE;
    if (PYC_UNLIKELY(nargs > 0 || kwnames != NULL)) {
        PyObject *given[2] = {NULL, NULL};
        if (pyc_arguments(&signature, args, nargs, kwnames, given) < 0 ||
            pyc_timeout_queue(self->module, given[0], given[1], &deadline) <
                0) {
            return -1;
        }
    }
    int rc = pyc_thread_queue_try_get(self, item);
    if (PYC_LIKELY(rc != 0)) {
        return rc;
    }
    if (deadline != PYC_NO_WAIT) {
        rc = pyc_thread_queue_block(self, &pyc_thread_queue_getting, item,
                                    deadline);
    }
    if (rc == 0) {
        PyErr_SetNone(self->module->queue_Empty);
    }
    return rc == 0 ? -1 : rc;
}

/* Has the Full or ShutDown that is set tell how many were put. */
static void
tell_how_many(pyc_thread_queue *self, Py_ssize_t count)
{
    PyObject *type = PyErr_ExceptionMatches(self->module->queue_Full)
                         ? self->module->queue_Full
                     : PyErr_ExceptionMatches(self->module->queue_ShutDown)
                         ? self->module->queue_ShutDown
                         : NULL;
    if (type != NULL) {
        PyErr_Clear();
        PyObject *number = PyLong_FromSsize_t(count);
        if (number != NULL) {
            PyErr_SetObject(type, number);
            Py_DECREF(number);
        }
    }
}

/* Puts one item; of a queue that was opened meanwhile, by its put(). */
static int
put_one(pyc_thread_queue *self, PyObject *item, PyObject *const *how,
        int64_t deadline)
{
    int rc = pyc_thread_queue_try_put(self, item);
    if (rc == 0 && deadline != PYC_NO_WAIT) {
        rc = pyc_thread_queue_block(self, &pyc_thread_queue_putting, &item,
                                    deadline);
    }
    if (rc == PYC_OPEN) {
        PyObject *done = PyObject_CallMethod((PyObject *)self, "_open_put",
                                             "OOO", item, how[0], how[1]);
        rc = done == NULL ? -1 : 1;
        Py_XDECREF(done);
    }
    if (rc == 0) {
        PyErr_SetNone(self->module->queue_Full);
    }
    return rc == 1 ? 0 : -1;
}

static int
put_all(pyc_thread_queue *self, PyObject *items, PyObject *const *how,
        int64_t deadline)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PyTuple_GET_ITEM(items, i));
        int rc = put_one(self, item, how, deadline);
        Py_DECREF(item);
        if (rc < 0) {
            tell_how_many(self, i);
            return -1;
        }
    }
    return 1;
}

int
pyc_thread_queue_put_many(pyc_thread_queue *self, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames)
{
    static const pyc_signature signature = {
        "put_many", {"items", "block", "timeout"}, 1};
    PyObject *given[3] = {NULL, NULL, NULL};
    int64_t deadline;
    if (pyc_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        pyc_timeout_queue(self->module, given[1], given[2], &deadline) < 0) {
        return -1;
    }
    if (pyc_load(self->is_open)) {
        return PYC_OPEN;
    }
    PyObject *items = PySequence_Tuple(given[0]); /* which nobody changes */
    if (items == NULL) {
        return -1;
    }
    PyObject *how[2] = {given[1] == NULL ? Py_True : given[1],
                        given[2] == NULL ? Py_None : given[2]};
    int rc = put_all(self, items, how, deadline);
    Py_DECREF(items);
    return rc;
}

/* The list of `item`, which is stolen, and of those that are there, `most` in
 * all. */
static PyObject *
take_more(pyc_thread_queue *self, PyObject *item, Py_ssize_t most)
{
    PyObject *list = PyList_New(0);
    int rc = 1;
    while (rc == 1 && list != NULL) {
        if (PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_CLEAR(item);
        rc = list == NULL || PyList_GET_SIZE(list) >= most
                 ? 0
                 : pyc_thread_queue_try_get(self, &item);
    }
    if (rc < 0 && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear(); /* there are no more; the next call will say why */
    }
    else if (rc < 0) { /* Ctrl-C: the items are still the caller's */
        pyc_interrupt_later((PyObject *)self);
    }
    return list;
}

int
pyc_thread_queue_get_many(pyc_thread_queue *self, PyObject **items,
                          PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    static const pyc_signature signature = {
        "get_many", {"n", "block", "timeout"}, 0};
    PyObject *given[3] = {Py_None, NULL, NULL}, *item = NULL;
    Py_ssize_t most = PY_SSIZE_T_MAX;
    if (pyc_arguments(&signature, args, nargs, kwnames, given) < 0) {
        return -1;
    }
    if (given[0] != Py_None) {
        most = PyNumber_AsSsize_t(given[0], NULL);
        if (most < 1) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_ValueError, "n must be one or more, not %R",
                             given[0]);
            }
            return -1;
        }
    }
    PyObject *how[2] = {given[1] == NULL ? Py_True : given[1],
                        given[2] == NULL ? Py_None : given[2]};
    int rc = pyc_thread_queue_get(self, &item, how, 2, NULL);
    if (rc != 1) {
        return rc;
    }
    *items = take_more(self, item, most);
    return *items == NULL ? -1 : 1;
}

PyObject *
pyc_thread_queue_async(pyc_thread_queue *self, const pyc_operation *operation,
                       PyObject *item)
{
    pyc_wait wait = {.operation = operation,
                     .module = self->module,
                     .subject = (PyObject *)self,
                     .item = item};
    return pyc_wait_async(&wait);
}

PyObject *
pyc_thread_queue_put_async(PyObject *self, PyObject *item)
{
    return pyc_thread_queue_async(SELF, &pyc_thread_queue_putting, item);
}

PyObject *
pyc_thread_queue_get_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return pyc_thread_queue_async(SELF, &pyc_thread_queue_getting, NULL);
}

void
pyc_thread_queue_init(pyc_thread_queue *self)
{
    pyc_waiters_init(&self->getters);
    pyc_waiters_init(&self->putters);
    pyc_waiters_init(&self->joiners);
    pyc_mutex_init(&self->heap);
    pyc_lock_reset(&self->guard);
}

PyObject *
pyc_thread_queue_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                        PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = pyc_sync_new(type);
    if (self != NULL) {
        pyc_thread_queue_init(SELF);
    }
    return self;
}

int
pyc_thread_queue_tp_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (Py_ssize_t i = 0; i < SELF->store.count; i++) {
        Py_VISIT(*pyc_store_at(&SELF->store, i));
    }
    return 0;
}

int
pyc_thread_queue_tp_clear(PyObject *self)
{
    pyc_store store = SELF->store;
    SELF->store = (pyc_store){0};
    while (store.count > 0) {
        Py_DECREF(pyc_store_pop_first(&store));
    }
    pyc_store_free(&store);
    return 0;
}

void
pyc_thread_queue_tp_dealloc(PyObject *self)
{
    pyc_sync_free(self, pyc_thread_queue_tp_clear);
}
