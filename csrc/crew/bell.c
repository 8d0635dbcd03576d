/* SPDX-License-Identifier: MIT */
/* Bell: a descriptor that becomes readable when work is over, and the list of
 * who waited for it. One wake serves all that ends before it is answered. */
#include "crew/bell.h"
#include "base/wake.h"

typedef struct bell bell;

/* One waiter. Guarded by the GIL or the bell's critical section, but for what
 * tell() does. */
typedef struct waiter {
    pyc_crew_listener listener;
    bell *bell;
    struct waiter *rung_after; /* in bell->rung */
    struct waiter *after;      /* in bell->waiters */
    pyc_crew_object *work;
    PyObject *tag;
} waiter;

struct bell {
    PyObject_HEAD
    int fd;
    _Atomic(waiter *) rung;
    waiter *waiters;
};

/* Puts the waiters from `one` to `last` into bell->rung. */
static void
ring(bell *self, waiter *one, waiter *last)
{
    waiter *first = atomic_load(&self->rung);
    do {
        last->rung_after = first;
    } while (!atomic_compare_exchange_weak(&self->rung, &first, one));
    if (first == NULL) {
        pyc_wake_set(self->fd);
    }
}

/* In a thread of the crew. */
static void
tell(pyc_crew_listener *listener)
{
    waiter *one = (waiter *)((char *)listener - offsetof(waiter, listener));
    ring(one->bell, one, one);
}

static PyObject *
bell_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Bell", names)) {
        return NULL;
    }
    bell *self = (bell *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->fd = pyc_wake_open();
    if (self->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
waiter_free(waiter *one)
{
    Py_DECREF(one->work);
    Py_DECREF(one->tag);
    PyMem_Free(one);
}

/* Takes the waiter out of the bell's list. */
static void
unlink_waiter(bell *self, waiter *one)
{
    waiter **at = &self->waiters;
    while (*at != one) {
        at = &(*at)->after;
    }
    *at = one->after;
}

PyDoc_STRVAR(watch_doc,
             "watch($self, work, tag, /)\n--\n\n"
             "Have answer() give out the tag once the work is over; False if "
             "it is already.");

static PyObject *
bell_watch(bell *self, PyObject *const *args, Py_ssize_t count)
{
    pyc_crew_state *state = PyType_GetModuleState(Py_TYPE(self));
    if (count != 2 || !Py_IS_TYPE(args[0], state->job_type)) {
        PyErr_SetString(PyExc_TypeError, "watch() takes work and a tag");
        return NULL;
    }
    waiter *one = PyMem_Calloc(1, sizeof(*one));
    if (one == NULL) {
        return PyErr_NoMemory();
    }
    one->listener.tell = tell;
    one->bell = self;
    one->work = (pyc_crew_object *)Py_NewRef(args[0]);
    one->tag = Py_NewRef(args[1]);
    PYC_BEGIN_CRITICAL_SECTION(self);
    one->after = self->waiters;
    self->waiters = one;
    PYC_END_CRITICAL_SECTION();
    if (!pyc_crew_is_lost(&one->work->job) &&
        pyc_crew_listen(&one->work->job, &one->listener)) {
        Py_RETURN_TRUE;
    }
    PYC_BEGIN_CRITICAL_SECTION(self);
    unlink_waiter(self, one);
    PYC_END_CRITICAL_SECTION();
    waiter_free(one);
    Py_RETURN_FALSE;
}

PyDoc_STRVAR(answer_doc, "answer($self, /)\n--\n\n"
                         "The tags of work that is over, each once.");

static PyObject *
bell_answer(bell *self, PyObject *Py_UNUSED(ignored))
{
    /* Cleared first: who rings after that writes again. */
    pyc_wake_clear(self->fd);
    waiter *rung = atomic_exchange(&self->rung, NULL), *last = NULL, *after;
    Py_ssize_t count = 0, filled = 0;
    for (waiter *one = rung; one != NULL; one = one->rung_after) {
        last = one;
        count++;
    }
    PyObject *tags = PyList_New(count);
    if (tags == NULL) {
        if (last != NULL) {
            ring(self, rung, last);
        }
        return NULL;
    }
    PYC_BEGIN_CRITICAL_SECTION(self);
    for (waiter *one = rung; one != NULL; one = one->rung_after) {
        unlink_waiter(self, one);
        PyList_SET_ITEM(tags, filled++, Py_NewRef(one->tag));
    }
    PYC_END_CRITICAL_SECTION();
    for (waiter *one = rung; one != NULL; one = after) {
        after = one->rung_after;
        waiter_free(one);
    }
    return tags;
}

PyDoc_STRVAR(fileno_doc, "fileno($self, /)\n--\n\n"
                         "The descriptor that becomes readable.");

static PyObject *
bell_fileno(bell *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(self->fd);
}

static int
bell_traverse(bell *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (waiter *one = self->waiters; one != NULL; one = one->after) {
        Py_VISIT(one->work);
        Py_VISIT(one->tag);
    }
    return 0;
}

static int
bell_clear(bell *self)
{
    while (self->waiters != NULL) {
        waiter *one = self->waiters;
        self->waiters = one->after;
        if (!pyc_crew_is_lost(&one->work->job)) {
            /* Afterwards no thread of the crew knows of it. */
            pyc_crew_unlisten(&one->work->job, &one->listener);
        }
        waiter_free(one);
    }
    atomic_store(&self->rung, NULL);
    return 0;
}

static void
bell_dealloc(bell *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    bell_clear(self);
    if (self->fd >= 0) {
        close(self->fd);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef bell_methods[] = {
    {"watch", (PyCFunction)(void (*)(void))bell_watch, METH_FASTCALL,
     watch_doc},
    {"answer", (PyCFunction)bell_answer, METH_NOARGS, answer_doc},
    {"fileno", (PyCFunction)bell_fileno, METH_NOARGS, fileno_doc},
    {NULL}};

static PyType_Slot bell_slots[] = {
    {Py_tp_doc, "Becomes readable when work is over."},
    {Py_tp_new, bell_new},
    {Py_tp_dealloc, bell_dealloc},
    {Py_tp_traverse, bell_traverse},
    {Py_tp_clear, bell_clear},
    {Py_tp_methods, bell_methods},
    {0, NULL}};

int
pyc_bell_add(PyObject *module, const char *name)
{
    PyType_Spec spec = {
        .name = name,
        .basicsize = sizeof(bell),
        .flags =
            Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = bell_slots,
    };
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    int rc = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return rc;
}
