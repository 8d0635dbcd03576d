/* SPDX-License-Identifier: MIT */
/* The Future of what another process runs: who waits for it collects it. */
#include "pool/task.h"
#include "pool/arrivals.h"
#include "pool/future.h"

#include <stdbool.h>

static int task_init(PyObject *op, PyObject *args, PyObject *kwargs);

static bool
is_task(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    while (type != NULL && type->tp_init != task_init) {
        type = type->tp_base;
    }
    return type != NULL;
}

/* Whether all are this module's own, which take no locks of others and may be
 * called by any thread. */
static bool
are_ours(pyc_future *self, PyObject *callbacks)
{
    bool ours = true;
    /* as_completed() may take its own off the list meanwhile. */
    PYC_BEGIN_CRITICAL_SECTION(callbacks);
    for (Py_ssize_t i = 0; ours && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *callback = PyList_GET_ITEM(callbacks, i);
        ours = Py_TYPE(callback) == self->module->bridge_type ||
               pyc_arrivals_is_put(callback);
    }
    PYC_END_CRITICAL_SECTION();
    return ours;
}

static int
end_task(void *future, void *value, int failed, void **callbacks)
{
    if (!is_task(future)) {
        return 0;
    }
    PyObject *to_call = NULL;
    int rc = pyc_future_end(future, value, failed, &to_call);
    if (to_call != NULL && are_ours(future, to_call)) {
        rc = pyc_future_call_all(future, to_call);
        to_call = NULL;
    }
    *callbacks = to_call;
    return rc < 0 ? -1 : 1;
}

static int
call_callbacks(void *future, void *callbacks)
{
    return pyc_future_call_all(future, callbacks);
}

static const pyc_ending ending = {end_task, call_callbacks};

static int
task_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "", NULL};
    pyc_future *self = (pyc_future *)op;
    PyObject *channel, *pool;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:TaskFuture", names,
                                     &channel, &pool)) {
        return -1;
    }
    PyObject *capsule = PyObject_GetAttr(channel, self->module->str_source);
    if (capsule == NULL) {
        return -1;
    }
    pyc_source *source = PyCapsule_GetPointer(capsule, PYC_SOURCE);
    Py_DECREF(capsule); /* the channel has it, too */
    if (source == NULL) {
        return -1;
    }
    atomic_store_explicit(&source->ending, &ending, memory_order_relaxed);
    pyc_lock_take(&self->guard);
    PyObject *old[] = {self->channel, self->pool};
    self->channel = Py_NewRef(channel);
    self->pool = Py_NewRef(pool);
    pyc_store(self->source, source);
    pyc_lock_give(&self->guard);
    Py_XDECREF(old[0]);
    Py_XDECREF(old[1]);
    return 0;
}

static PyObject *
task_get_pool(PyObject *op, void *Py_UNUSED(closure))
{
    pyc_future *self = (pyc_future *)op;
    PyObject *pool;
    pyc_lock_take(&self->guard);
    pool = Py_NewRef(self->pool == NULL ? Py_None : self->pool);
    pyc_lock_give(&self->guard);
    return pool;
}

static PyGetSetDef task_getset[] = {
    {"_pool", task_get_pool, NULL, "Which runs it; None when it is done.",
     NULL},
    {NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_doc, "TaskFutureBase(channel, pool, /)\n--\n\n"
                "What channel.source brings; pool.cancel(future, running) is "
                "asked to cancel it."},
    {Py_tp_init, task_init},
    {Py_tp_getset, task_getset},
    {0, NULL},
};

static PyType_Spec task_spec = {
    .name = "pyconc._core.TaskFutureBase",
    .basicsize = sizeof(pyc_future),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = task_slots,
};

int
pyc_task_register(PyObject *module, pyc_state *state)
{
    PyTypeObject *type = NULL;
    int rc =
        pyc_add_type(module, &task_spec, (PyObject *)state->future_type, &type);
    Py_XDECREF(type);
    return rc;
}
