/* SPDX-License-Identifier: MIT */
/* The Python face of a queue, but for what an open one does. */
#include "sync/queue/face.h"

#define SELF ((pyc_thread_queue *)self)

/* What a queue that is open does: the method `name` with these arguments. */
static PyObject *
elsewhere(PyObject *self, const char *name, PyObject *const *args,
          Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *method = PyObject_GetAttrString(self, name);
    PyObject *result =
        method == NULL
            ? NULL
            : PyObject_Vectorcall(method, args, (size_t)nargs, kwnames);
    Py_XDECREF(method);
    return result;
}

static PyObject *
queue_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames)
{
    int rc = pyc_thread_queue_put(SELF, args, nargs, kwnames);
    if (PYC_LIKELY(rc == 1)) {
        Py_RETURN_NONE;
    }
    return rc < 0 ? NULL : elsewhere(self, "_open_put", args, nargs, kwnames);
}

static PyObject *
queue_get(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames)
{
    PyObject *item = NULL;
    int rc = pyc_thread_queue_get(SELF, &item, args, nargs, kwnames);
    return rc == PYC_OPEN ? elsewhere(self, "_open_get", args, nargs, kwnames)
                          : item;
}

static PyObject *
queue_put_nowait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    static const pyc_signature signature = {"put_nowait", {"item"}, 1};
    PyObject *put_args[2] = {NULL, Py_False};
    if (PYC_LIKELY(nargs == 1 && kwnames == NULL)) {
        put_args[0] = args[0];
    }
    else if (pyc_arguments(&signature, args, nargs, kwnames, put_args) < 0) {
        return NULL;
    }
    return queue_put(self, put_args, 2, NULL);
}

static PyObject *
queue_get_nowait(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *args[1] = {Py_False};
    return queue_get(self, args, 1, NULL);
}

static PyObject *
queue_put_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    int rc = pyc_thread_queue_put_many(SELF, args, nargs, kwnames);
    if (rc == 1) {
        Py_RETURN_NONE;
    }
    return rc < 0 ? NULL
                  : elsewhere(self, "_open_put_many", args, nargs, kwnames);
}

static PyObject *
queue_get_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    PyObject *items = NULL;
    int rc = pyc_thread_queue_get_many(SELF, &items, args, nargs, kwnames);
    return rc == PYC_OPEN
               ? elsewhere(self, "_open_get_many", args, nargs, kwnames)
               : items;
}

static PyObject *
queue_task_done(PyObject *self, PyObject *Py_UNUSED(unused))
{
    int rc = pyc_thread_queue_task_done(SELF);
    return rc == PYC_OPEN ? elsewhere(self, "_open_task_done", NULL, 0, NULL)
           : rc < 0       ? NULL
                          : Py_NewRef(Py_None);
}

static PyObject *
queue_join(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *item = NULL;
    int rc = pyc_thread_queue_block(SELF, &pyc_thread_queue_joining, &item,
                                    PYC_NO_DEADLINE);
    if (rc == PYC_OPEN) {
        return elsewhere(self, "_open_join", NULL, 0, NULL);
    }
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
queue_join_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return pyc_thread_queue_async(SELF, &pyc_thread_queue_joining, NULL);
}

static PyObject *
queue_qsize(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Py_ssize_t size;
    return pyc_thread_queue_size(SELF, &size) == PYC_OPEN
               ? elsewhere(self, "_open_qsize", NULL, 0, NULL)
               : PyLong_FromSsize_t(size);
}

/* Its length, or -1 with an exception set. */
static Py_ssize_t
length(PyObject *self)
{
    Py_ssize_t value;
    if (pyc_thread_queue_size(SELF, &value) == PYC_OPEN) {
        PyObject *size = elsewhere(self, "_open_qsize", NULL, 0, NULL);
        value = size == NULL ? -1 : PyLong_AsSsize_t(size);
        Py_XDECREF(size);
    }
    return value;
}

static PyObject *
queue_empty(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Py_ssize_t size = length(self);
    return size < 0 ? NULL : PyBool_FromLong(size == 0);
}

static PyObject *
queue_full(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Py_ssize_t size = length(self);
    Py_ssize_t most = pyc_load(SELF->maxsize);
    return size < 0 ? NULL : PyBool_FromLong(0 < most && most <= size);
}

static PyObject *
queue_shutdown(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const pyc_signature signature = {"shutdown", {"immediate"}, 0};
    PyObject *immediate = Py_False;
    if (pyc_arguments(&signature, args, nargs, kwnames, &immediate) < 0) {
        return NULL;
    }
    int truth = PyObject_IsTrue(immediate);
    if (truth < 0) {
        return NULL;
    }
    int rc = pyc_thread_queue_shutdown(SELF, truth);
    return rc == PYC_OPEN
               ? elsewhere(self, "_open_shutdown", &immediate, 1, NULL)
           : rc < 0 ? NULL
                    : Py_NewRef(Py_None);
}

/* A field that is read and written without regard to others. */
static PyObject *
get_size(PyObject *self, void *offset)
{
    Py_ssize_t *field = (Py_ssize_t *)((char *)self + (size_t)offset);
    return PyLong_FromSsize_t(pyc_load(*field));
}

static int
set_size(PyObject *self, PyObject *value, void *offset)
{
    Py_ssize_t *field = (Py_ssize_t *)((char *)self + (size_t)offset);
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "can't delete numeric attribute");
        return -1;
    }
    Py_ssize_t size = PyLong_AsSsize_t(value);
    if (size == -1 && PyErr_Occurred()) {
        return -1;
    }
    pyc_lock_take(&SELF->guard);
    pyc_store(*field, size);
    pyc_lock_give(&SELF->guard);
    return 0;
}

static PyObject *
get_flag(PyObject *self, void *offset)
{
    char *field = (char *)self + (size_t)offset;
    return PyBool_FromLong(pyc_load(*field));
}

static int
set_flag(PyObject *self, PyObject *value, void *offset)
{
    char *field = (char *)self + (size_t)offset;
    if (value == NULL || !PyBool_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "attribute value type must be bool");
        return -1;
    }
    pyc_lock_take(&SELF->guard);
    pyc_store(*field, value == Py_True);
    pyc_lock_give(&SELF->guard);
    return 0;
}

static PyObject *
queue_start(PyObject *self, PyObject *args)
{
    PyObject *maxsize;
    Py_ssize_t size;
    int order;
    if (!PyArg_ParseTuple(args, "iO:_start", &order, &maxsize)) {
        return NULL;
    }
    if (PyFloat_Check(maxsize)) { /* infinity, most likely */
        double most = PyFloat_AS_DOUBLE(maxsize);
        size = most < 1e18 ? (Py_ssize_t)most : 0;
    }
    else {
        size = PyNumber_AsSsize_t(maxsize, NULL);
        if (size == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    pyc_lock_take(&SELF->guard);
    pyc_store(SELF->maxsize, size);
    pyc_store(SELF->order, (char)order);
    pyc_lock_give(&SELF->guard);
    Py_RETURN_NONE;
}

static PyObject *
queue_open(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return pyc_thread_queue_open(SELF);
}

static PyObject *
queue_after_fork(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_thread_queue_init(SELF);
    Py_RETURN_NONE;
}

/* clang-format off */
PyDoc_STRVAR(put_doc,
"put($self, /, item, block=True, timeout=None)\n--\n\n"
"Puts the item, waiting for room up to timeout seconds (None: for ever) if\n"
"block is true. Full when there is none, ShutDown after shutdown(), ValueError\n"
"for a negative timeout. Source: queue.Queue.put.");
PyDoc_STRVAR(get_doc,
"get($self, /, block=True, timeout=None)\n--\n\n"
"Takes an item, waiting for one up to timeout seconds (None: for ever) if block\n"
"is true. Empty when there is none, ShutDown when there will be none, ValueError\n"
"for a negative timeout. Source: queue.Queue.get.");
PyDoc_STRVAR(put_nowait_doc,
"put_nowait($self, /, item)\n--\n\nput(item, block=False).");
PyDoc_STRVAR(get_nowait_doc,
"get_nowait($self, /)\n--\n\nget(block=False).");
PyDoc_STRVAR(put_many_doc,
"put_many($self, /, items, block=True, timeout=None)\n--\n\n"
"Puts all items of the iterable, waiting for room as put() does, up to timeout\n"
"seconds in all. Full and ShutDown carry in args[0] how many were put.");
PyDoc_STRVAR(get_many_doc,
"get_many($self, /, n=None, block=True, timeout=None)\n--\n\n"
"Waits for an item as get() does, and takes up to n (None: all) of those that\n"
"are there: a list of at least one.");
PyDoc_STRVAR(put_async_doc,
"put_async($self, item, /)\n--\n\n"
"put(item) as a coroutine of any asyncio loop.");
PyDoc_STRVAR(get_async_doc,
"get_async($self, /)\n--\n\nget() as a coroutine of any asyncio loop.");
PyDoc_STRVAR(join_async_doc,
"join_async($self, /)\n--\n\njoin() as a coroutine of any asyncio loop.");
PyDoc_STRVAR(task_done_doc,
"task_done($self, /)\n--\n\n"
"Says that the work on an item that was taken is done. ValueError when there\n"
"is no such item. Source: queue.Queue.task_done.");
PyDoc_STRVAR(join_doc,
"join($self, /)\n--\n\n"
"Waits until task_done() has been called for every item that was put.");
PyDoc_STRVAR(qsize_doc, "qsize($self, /)\n--\n\nHow many items are there.");
PyDoc_STRVAR(empty_doc, "empty($self, /)\n--\n\nWhether there is no item.");
PyDoc_STRVAR(full_doc, "full($self, /)\n--\n\nWhether there is no room.");
PyDoc_STRVAR(shutdown_doc,
"shutdown($self, /, immediate=False)\n--\n\n"
"Has put() raise ShutDown from now on, and get() once no item is left; if\n"
"immediate, the items that are there are dropped. On every Python.\n"
"Source: queue.Queue.shutdown of 3.13.");
/* clang-format on */

#define FAST METH_FASTCALL | METH_KEYWORDS

static PyMethodDef queue_methods[] = {
    {"put", PYC_KEYWORDS(queue_put), FAST, put_doc},
    {"get", PYC_KEYWORDS(queue_get), FAST, get_doc},
    {"put_nowait", PYC_KEYWORDS(queue_put_nowait), FAST, put_nowait_doc},
    {"get_nowait", queue_get_nowait, METH_NOARGS, get_nowait_doc},
    {"put_many", PYC_KEYWORDS(queue_put_many), FAST, put_many_doc},
    {"get_many", PYC_KEYWORDS(queue_get_many), FAST, get_many_doc},
    {"put_async", pyc_thread_queue_put_async, METH_O, put_async_doc},
    {"get_async", pyc_thread_queue_get_async, METH_NOARGS, get_async_doc},
    {"task_done", queue_task_done, METH_NOARGS, task_done_doc},
    {"join", queue_join, METH_NOARGS, join_doc},
    {"join_async", queue_join_async, METH_NOARGS, join_async_doc},
    {"qsize", queue_qsize, METH_NOARGS, qsize_doc},
    {"empty", queue_empty, METH_NOARGS, empty_doc},
    {"full", queue_full, METH_NOARGS, full_doc},
    {"shutdown", PYC_KEYWORDS(queue_shutdown), FAST, shutdown_doc},
    {"_start", queue_start, METH_VARARGS, NULL},
    {"_detach", queue_open, METH_NOARGS, NULL},
    {"_at_fork_reinit", queue_after_fork, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL},
};

static PyMemberDef queue_members[] = {
    PYC_SYNC_WEAKREFS,
    {NULL},
};

#define AT(field) (void *)offsetof(pyc_thread_queue, field)

static PyGetSetDef queue_getset[] = {
    {"maxsize", get_size, set_size, NULL, AT(maxsize)},
    {"unfinished_tasks", get_size, set_size, NULL, AT(unfinished)},
    {"is_shutdown", get_flag, set_flag, NULL, AT(is_shutdown)},
    {"_is_open", get_flag, NULL, NULL, AT(is_open)},
    {NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "What a queue does in C."},
    {Py_tp_new, pyc_thread_queue_tp_new},
    {Py_tp_dealloc, pyc_thread_queue_tp_dealloc},
    {Py_tp_traverse, pyc_thread_queue_tp_traverse},
    {Py_tp_clear, pyc_thread_queue_tp_clear},
    {Py_tp_methods, queue_methods},
    {Py_tp_members, queue_members},
    {Py_tp_getset, queue_getset},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "pyconc._core.QueueBase",
    .basicsize = sizeof(pyc_thread_queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = queue_slots,
};

/* queue's own exception, or one of ours where it has none (up to 3.12). */
static int
add_shutdown(PyObject *module, pyc_state *state)
{
    PyObject *queue = PyImport_ImportModule("queue");
    if (queue == NULL) {
        return -1;
    }
    state->queue_ShutDown = PyObject_GetAttrString(queue, "ShutDown");
    Py_DECREF(queue);
    if (state->queue_ShutDown == NULL) {
        PyErr_Clear();
        state->queue_ShutDown = PyErr_NewExceptionWithDoc(
            "pyconc.queue.ShutDown", "A queue has been shut down.", NULL, NULL);
    }
    return state->queue_ShutDown == NULL
               ? -1
               : PyModule_AddObjectRef(module, "ShutDown",
                                       state->queue_ShutDown);
}

int
pyc_thread_queue_register(PyObject *module, pyc_state *state)
{
    if (add_shutdown(module, state) < 0) {
        return -1;
    }
    return pyc_sync_add_type(module, &queue_spec, "QueueBase", NULL);
}
