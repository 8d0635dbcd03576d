/* SPDX-License-Identifier: MIT */
/* queue.SimpleQueue: a queue without bounds and tasks, never open. */
#include "sync/queue/face.h"

#define SELF ((pyc_thread_queue *)self)

/* put(item) while nobody waits. */
static inline int
put_at_once(pyc_thread_queue *self, PyObject *item)
{
    pyc_lock_take(&self->guard);
    int done =
        self->getters.length == 0 && pyc_store_push(&self->store, item) == 0;
    pyc_lock_give(&self->guard);
    return done;
}

/* get() while there is something: NULL when there is not. */
static inline PyObject *
get_at_once(pyc_thread_queue *self)
{
    PyObject *item = NULL;
    pyc_lock_take(&self->guard);
    if (self->store.count > 0) {
        item = pyc_store_pop_first(&self->store);
    }
    pyc_lock_give(&self->guard);
    return item;
}

static PyObject *
simple_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames)
{
    if (PYC_LIKELY(nargs == 1 && kwnames == NULL) &&
        put_at_once(SELF, args[0])) {
        Py_RETURN_NONE;
    }
    if (pyc_thread_queue_put(SELF, args, nargs, kwnames) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
simple_get(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
           PyObject *kwnames)
{
    PyObject *item = nargs == 0 && kwnames == NULL ? get_at_once(SELF) : NULL;
    if (PYC_LIKELY(item != NULL)) {
        return item;
    }
    pyc_thread_queue_get(SELF, &item, args, nargs, kwnames);
    return item;
}

static PyObject *
simple_put_nowait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    static const pyc_signature signature = {"put_nowait", {"item"}, 1};
    PyObject *item = NULL;
    if (pyc_arguments(&signature, args, nargs, kwnames, &item) < 0 ||
        pyc_thread_queue_try_put(SELF, item) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
simple_get_nowait(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *block = Py_False;
    return simple_get(self, &block, 1, NULL);
}

static PyObject *
simple_put_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    if (pyc_thread_queue_put_many(SELF, args, nargs, kwnames) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
simple_get_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    PyObject *items = NULL;
    pyc_thread_queue_get_many(SELF, &items, args, nargs, kwnames);
    return items;
}

static PyObject *
simple_qsize(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Py_ssize_t size;
    pyc_thread_queue_size(SELF, &size);
    return PyLong_FromSsize_t(size);
}

static PyObject *
simple_empty(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Py_ssize_t size;
    pyc_thread_queue_size(SELF, &size);
    return PyBool_FromLong(size == 0);
}

static int
simple_init(PyObject *Py_UNUSED(self), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    return PyArg_ParseTupleAndKeywords(args, kwargs, ":SimpleQueue", names)
               ? 0
               : -1;
}

/* clang-format off */
PyDoc_STRVAR(put_doc,
"put($self, /, item, block=True, timeout=None)\n--\n\n"
"Puts the item; never waits. Source: queue.SimpleQueue.put.");
PyDoc_STRVAR(get_doc,
"get($self, /, block=True, timeout=None)\n--\n\n"
"Takes an item, waiting for one up to timeout seconds (None: for ever) if block\n"
"is true. Empty when there is none, ValueError for a negative timeout.\n"
"Source: queue.SimpleQueue.get.");
PyDoc_STRVAR(put_nowait_doc,
"put_nowait($self, /, item)\n--\n\nput(item).");
PyDoc_STRVAR(get_nowait_doc,
"get_nowait($self, /)\n--\n\nget(block=False).");
PyDoc_STRVAR(put_many_doc,
"put_many($self, /, items, block=True, timeout=None)\n--\n\n"
"Puts all items of the iterable; never waits.");
PyDoc_STRVAR(get_many_doc,
"get_many($self, /, n=None, block=True, timeout=None)\n--\n\n"
"Waits for an item as get() does, and takes up to n (None: all) of those that\n"
"are there: a list of at least one.");
PyDoc_STRVAR(put_async_doc,
"put_async($self, item, /)\n--\n\nput(item), to be awaited; never waits.");
PyDoc_STRVAR(get_async_doc,
"get_async($self, /)\n--\n\nget() as a coroutine of any asyncio loop.");
PyDoc_STRVAR(qsize_doc, "qsize($self, /)\n--\n\nHow many items are there.");
PyDoc_STRVAR(empty_doc, "empty($self, /)\n--\n\nWhether there is no item.");
PyDoc_STRVAR(simple_doc,
"SimpleQueue()\n--\n\n"
"A queue.SimpleQueue, first in, first out, for threads and coroutines. put()\n"
"may be called from signal handlers and destructors.");
/* clang-format on */

#define FAST METH_FASTCALL | METH_KEYWORDS

static PyMethodDef simple_methods[] = {
    {"put", PYC_KEYWORDS(simple_put), FAST, put_doc},
    {"get", PYC_KEYWORDS(simple_get), FAST, get_doc},
    {"put_nowait", PYC_KEYWORDS(simple_put_nowait), FAST, put_nowait_doc},
    {"get_nowait", simple_get_nowait, METH_NOARGS, get_nowait_doc},
    {"put_many", PYC_KEYWORDS(simple_put_many), FAST, put_many_doc},
    {"get_many", PYC_KEYWORDS(simple_get_many), FAST, get_many_doc},
    {"put_async", pyc_thread_queue_put_async, METH_O, put_async_doc},
    {"get_async", pyc_thread_queue_get_async, METH_NOARGS, get_async_doc},
    {"qsize", simple_qsize, METH_NOARGS, qsize_doc},
    {"empty", simple_empty, METH_NOARGS, empty_doc},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL},
};

static PyMemberDef simple_members[] = {
    PYC_SYNC_WEAKREFS,
    {NULL},
};

static PyType_Slot simple_slots[] = {
    {Py_tp_doc, (void *)simple_doc},
    {Py_tp_new, pyc_thread_queue_tp_new},
    {Py_tp_init, simple_init},
    {Py_tp_dealloc, pyc_thread_queue_tp_dealloc},
    {Py_tp_traverse, pyc_thread_queue_tp_traverse},
    {Py_tp_clear, pyc_thread_queue_tp_clear},
    {Py_tp_methods, simple_methods},
    {Py_tp_members, simple_members},
    {0, NULL},
};

static PyType_Spec simple_spec = {
    .name = "pyconc.queue.SimpleQueue",
    .basicsize = sizeof(pyc_thread_queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = simple_slots,
};

int
pyc_simple_queue_register(PyObject *module, pyc_state *state)
{
    return pyc_sync_add_type(module, &simple_spec, "SimpleQueue", NULL);
}
