/* SPDX-License-Identifier: MIT */
/* threading.Lock. */
#include "sync/lock.h"

#include "py/arguments.h"

#define SELF ((pyc_thread_lock *)self)

/* Who holds a lock is of interest only to who watches it. */
static inline void
mark(pyc_thread_lock *self)
{
    if (PYC_UNLIKELY(pyc_load(self->module->watch_report) != NULL)) {
        atomic_store_explicit(&self->owner, PyThread_get_thread_ident(),
                              memory_order_relaxed);
    }
}

int
pyc_lock_attempt(pyc_thread_lock *self, pyc_wait *wait, int join)
{
    int got = pyc_mutex_attempt(&self->mutex, &wait->waiter, join);
    if (got && wait->task == NULL) {
        mark(self);
    }
    return got;
}

static int
acquiring_attempt(pyc_wait *wait, int join)
{
    return pyc_lock_attempt((pyc_thread_lock *)wait->subject, wait, join);
}

static int
acquiring_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    pyc_mutex_leave(&((pyc_thread_lock *)wait->subject)->mutex, &wait->waiter);
    return 0;
}

static uintptr_t
holder(PyObject *self)
{
    return atomic_load_explicit(&SELF->owner, memory_order_relaxed);
}

const pyc_operation pyc_lock_acquiring = {
    .attempt = acquiring_attempt,
    .leave = acquiring_leave,
    .holder = holder,
    .steps_aside = 1,
};

int
pyc_lock_release(pyc_thread_lock *self)
{
    atomic_store_explicit(&self->owner, 0, memory_order_relaxed);
    if (PYC_UNLIKELY(pyc_mutex_release(&self->mutex) < 0)) {
        PyErr_SetString(PyExc_RuntimeError, "release unlocked lock");
        return -1;
    }
    return 0;
}

PyObject *
pyc_lock_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    int64_t deadline = PYC_NO_DEADLINE;
    if ((nargs > 0 || kwnames != NULL) &&
        pyc_timeout_acquire(SELF->module, args, nargs, kwnames, &deadline) <
            0) {
        return NULL;
    }
    if (PYC_LIKELY(pyc_mutex_try(&SELF->mutex))) {
        mark(SELF);
        Py_RETURN_TRUE;
    }
    pyc_wait wait = pyc_lock_wait(self, SELF->module, &pyc_lock_acquiring);
    int rc = pyc_wait_block(&wait, deadline);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
lock_acquire_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_wait wait = pyc_lock_wait(self, SELF->module, &pyc_lock_acquiring);
    return pyc_wait_async(&wait);
}

static PyObject *
lock_release(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (pyc_lock_release(SELF) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
lock_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
          Py_ssize_t Py_UNUSED(nargs))
{
    return lock_release(self, NULL);
}

static PyObject *
lock_aexit(PyObject *self, PyObject *const *Py_UNUSED(args),
           Py_ssize_t Py_UNUSED(nargs))
{
    return pyc_wait_none(SELF->module, pyc_lock_release(SELF) == 0);
}

static PyObject *
lock_locked(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pyc_mutex_is_held(&SELF->mutex));
}

static PyObject *
lock_after_fork(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_mutex_init(&SELF->mutex);
    SELF->owner = 0;
    Py_RETURN_NONE;
}

static PyObject *
lock_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<%s %s object at %p>",
                                pyc_mutex_is_held(&SELF->mutex) ? "locked"
                                                                : "unlocked",
                                Py_TYPE(self)->tp_name, self);
}

static PyObject *
lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (type->tp_init == PyBaseObject_Type.tp_init &&
        (PyTuple_GET_SIZE(args) > 0 ||
         (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0))) {
        PyErr_SetString(PyExc_TypeError, "Lock() takes no arguments");
        return NULL;
    }
    PyObject *self = pyc_sync_new(type);
    if (self != NULL) {
        pyc_mutex_init(&SELF->mutex);
    }
    return self;
}

static void
lock_dealloc(PyObject *self)
{
    pyc_sync_free(self, NULL);
}

/* clang-format off */
PyDoc_STRVAR(acquire_doc,
"acquire($self, /, blocking=True, timeout=-1)\n--\n\n"
"Takes the lock: True, or False when it is held by another and blocking is\n"
"false or timeout seconds have passed (-1: waits for ever).\n"
"Source: threading.Lock.acquire.");
PyDoc_STRVAR(acquire_async_doc,
"acquire_async($self, /)\n--\n\n"
"Takes the lock, waiting for it as a coroutine of any asyncio loop: True.");
PyDoc_STRVAR(release_doc,
"release($self, /)\n--\n\n"
"Lets go of the lock, whoever took it. RuntimeError when it is free.");
PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\nWhether it is held.");
PyDoc_STRVAR(lock_doc,
"A threading.Lock for threads and coroutines: `with lock`, `async with lock`.");
/* clang-format on */

#define ACQUIRE(name)                                                          \
    {name, PYC_KEYWORDS(pyc_lock_acquire), METH_FASTCALL | METH_KEYWORDS,      \
     acquire_doc}

static PyMethodDef lock_methods[] = {
    ACQUIRE("acquire"),
    {"release", lock_release, METH_NOARGS, release_doc},
    {"locked", lock_locked, METH_NOARGS, locked_doc},
    {"acquire_async", lock_acquire_async, METH_NOARGS, acquire_async_doc},
    ACQUIRE("__enter__"),
    {"__exit__", PYC_KEYWORDS(lock_exit), METH_FASTCALL, NULL},
    {"__aenter__", lock_acquire_async, METH_NOARGS, NULL},
    {"__aexit__", PYC_KEYWORDS(lock_aexit), METH_FASTCALL, NULL},
    ACQUIRE("acquire_lock"),
    {"release_lock", lock_release, METH_NOARGS, release_doc},
    {"locked_lock", lock_locked, METH_NOARGS, locked_doc},
    {"_at_fork_reinit", lock_after_fork, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef lock_members[] = {
    PYC_SYNC_WEAKREFS,
    {NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_doc, (void *)lock_doc},
    {Py_tp_new, lock_new},
    {Py_tp_dealloc, lock_dealloc},
    {Py_tp_repr, lock_repr},
    {Py_tp_methods, lock_methods},
    {Py_tp_members, lock_members},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "pyconc.threading.Lock",
    .basicsize = sizeof(pyc_thread_lock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = lock_slots,
};

int
pyc_lock_register(PyObject *module, pyc_state *state)
{
    return pyc_sync_add_type(module, &lock_spec, "ThreadLock",
                             &state->thread_lock_type);
}
