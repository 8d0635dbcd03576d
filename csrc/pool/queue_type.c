/* SPDX-License-Identifier: MIT */
/* The type JobQueue, but for its methods. */
#include "pool/queue.h"

/* BROKEN is the last there is, and what broke it is set before. */
static pyc_queue_status
status_of(pyc_queue *self)
{
    pyc_lock_take(&self->lock);
    pyc_queue_status status = self->status;
    pyc_lock_give(&self->lock);
    return status;
}

static PyObject *
queue_get_broken(PyObject *op, void *Py_UNUSED(closure))
{
    pyc_queue *self = (pyc_queue *)op;
    return status_of(self) == PYC_QUEUE_BROKEN ? PyObject_Str(self->broken)
                                               : Py_NewRef(Py_False);
}

static PyObject *
queue_get_closed(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(status_of((pyc_queue *)op) != PYC_QUEUE_OPEN);
}

static PyObject *
queue_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Py_ssize_t max_workers;
    if (!PyArg_ParseTuple(args, "n:JobQueue", &max_workers)) {
        return NULL;
    }
    pyc_state *module = pyc_state_of_type(type);
    pyc_queue *self =
        module == NULL ? NULL : (pyc_queue *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = module;
        self->max_workers = max_workers;
        pyc_link_init(&self->jobs);
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
    for (pyc_link *at = self->jobs.next; at != &self->jobs; at = at->next) {
        int rc = pyc_job_traverse(pyc_container(at, pyc_job, link), visit, arg);
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
    pyc_queue_drop(self);
    return 0;
}

static PyGetSetDef queue_getset[] = {
    {"broken", queue_get_broken, NULL, NULL, NULL},
    {"closed", queue_get_closed, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "JobQueue(max_workers)\n--\n\nThe jobs of a thread pool."},
    {Py_tp_new, queue_new},
    {Py_tp_methods, pyc_queue_methods},
    {Py_tp_getset, queue_getset},
    {Py_tp_traverse, queue_traverse},
    {Py_tp_clear, queue_clear},
    {Py_tp_dealloc, pyc_dealloc},
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
