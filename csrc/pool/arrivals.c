/* SPDX-License-Identifier: MIT */
/* The Futures that have ended, for the one thread of as_completed(). */
#include "pool/arrivals.h"
#include "pool/drive.h"
#include "pool/future.h"

#include "sync/timeout.h"

typedef struct {
    PyObject_HEAD
    _Atomic uint32_t any; /* whether some have come since take() */
    PyObject *list;       /* those */
    pyc_source *source;   /* what the thread collects from, and */
    PyObject *channel;    /* what that belongs to, while it waits */
    pyc_state *module;
    pyc_lock guard; /* of the three */
} arrivals;

static PyObject *
arrivals_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    pyc_state *module = pyc_state_of_type(type);
    if (module == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, ":Arrivals", names)) {
        return NULL;
    }
    arrivals *self = (arrivals *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->module = module;
        self->list = PyList_New(0);
        if (self->list == NULL) {
            Py_CLEAR(self);
        }
    }
    return (PyObject *)self;
}

static PyObject *
arrivals_put(PyObject *op, PyObject *future)
{
    arrivals *self = (arrivals *)op;
    pyc_lock_take(&self->guard);
    int rc = self->list == NULL ? 0 : PyList_Append(self->list, future);
    uint32_t any = atomic_exchange(&self->any, 1);
    pyc_source *source = self->source;
    PyObject *channel = Py_XNewRef(self->channel);
    pyc_lock_give(&self->guard);
    if (!any) {
        pyc_futex_wake(&self->any, 1);
        if (source != NULL) {
            source->kick(source);
        }
    }
    Py_XDECREF(channel);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

int
pyc_arrivals_is_put(PyObject *callback)
{
    return PyCFunction_Check(callback) &&
           PyCFunction_GET_FUNCTION(callback) == arrivals_put;
}

/* Has the thread collect from the source of the Future, which may be None. */
static void
choose(arrivals *self, PyObject *future)
{
    PyObject *channel = NULL, *old;
    pyc_source *source = NULL;
    if (PyObject_TypeCheck(future, self->module->future_type)) {
        source = pyc_future_source((pyc_future *)future, &channel);
    }
    pyc_lock_take(&self->guard);
    old = self->channel;
    self->source = source;
    self->channel = channel;
    pyc_lock_give(&self->guard);
    Py_XDECREF(old);
}

static PyObject *
arrivals_take(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    arrivals *self = (arrivals *)op;
    int64_t deadline;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "take() takes a timeout and a Future");
        return NULL;
    }
    if (pyc_timeout_wait(self->module, args[0], &deadline) < 0) {
        return NULL;
    }
    if (!atomic_load(&self->any)) {
        choose(self, args[1]);
        int rc = pyc_drive_until_set(self->source, &self->any, deadline);
        choose(self, Py_None);
        if (rc < 0) {
            return NULL;
        }
    }
    PyObject *list, *fresh = PyList_New(0);
    if (fresh == NULL) {
        return NULL;
    }
    pyc_lock_take(&self->guard);
    list = self->list;
    self->list = fresh;
    atomic_store(&self->any, 0);
    pyc_lock_give(&self->guard);
    return list;
}

static PyObject *
arrivals_empty(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(!atomic_load(&((arrivals *)op)->any));
}

static int
arrivals_traverse(PyObject *op, visitproc visit, void *arg)
{
    arrivals *self = (arrivals *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->list);
    Py_VISIT(self->channel);
    return 0;
}

static int
arrivals_clear(PyObject *op)
{
    arrivals *self = (arrivals *)op;
    Py_CLEAR(self->list);
    Py_CLEAR(self->channel);
    return 0;
}

static PyMethodDef arrivals_methods[] = {
    {"put", arrivals_put, METH_O,
     "put($self, future, /)\n--\n\nThe done callback of each Future."},
    {"take", (PyCFunction)(void (*)(void))arrivals_take, METH_FASTCALL,
     "take($self, timeout, future, /)\n--\n\n"
     "Those that have come since, as a list; waits for the first up to timeout "
     "seconds, and collects meanwhile what the source of the future brings."},
    {"empty", arrivals_empty, METH_NOARGS,
     "empty($self, /)\n--\n\nWhether none have come since."},
    {NULL},
};

static PyType_Slot arrivals_slots[] = {
    {Py_tp_doc, "The Futures that have ended, for one thread to take."},
    {Py_tp_new, arrivals_new},
    {Py_tp_methods, arrivals_methods},
    {Py_tp_traverse, arrivals_traverse},
    {Py_tp_clear, arrivals_clear},
    {Py_tp_dealloc, pyc_dealloc},
    {0, NULL},
};

static PyType_Spec arrivals_spec = {
    .name = "pyconc._core.Arrivals",
    .basicsize = sizeof(arrivals),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = arrivals_slots,
};

int
pyc_arrivals_register(PyObject *module, pyc_state *state)
{
    PyTypeObject *type = NULL;
    int rc = pyc_add_type(module, &arrivals_spec, NULL, &type);
    Py_XDECREF(type);
    return rc;
}
