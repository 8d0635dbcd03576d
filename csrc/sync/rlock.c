/* SPDX-License-Identifier: MIT */
/* threading.RLock, whose owner is a thread, or a task that took it with
 * `async with`. A task and a thread never have the same address. */
#include "sync/lock.h"

#include "py/arguments.h"

#define SELF ((pyc_rlock *)self)

static inline uintptr_t
owner_of(pyc_rlock *self)
{
    return atomic_load_explicit(&self->owner, memory_order_relaxed);
}

static inline void
set_owner(pyc_rlock *self, uintptr_t owner)
{
    atomic_store_explicit(&self->owner, owner, memory_order_relaxed);
}

static int
again(pyc_rlock *self)
{
    if (self->count == ULONG_MAX) {
        PyErr_SetString(PyExc_OverflowError, "Internal lock count overflowed");
        return -1;
    }
    pyc_store(self->count, self->count + 1);
    return 1;
}

int
pyc_rlock_retake(pyc_rlock *self, pyc_wait *wait, int join)
{
    if (!pyc_mutex_attempt(&self->mutex, &wait->waiter, join)) {
        return 0;
    }
    pyc_store(self->task, Py_XNewRef(wait->task));
    pyc_store(self->count, 1);
    set_owner(self, wait->who);
    return 1;
}

/* Whoever comes while its own thread holds the lock would most likely wait for
 * itself; who waits already does not. */
enum { NEW, WAITING };

static int
acquiring_attempt(pyc_wait *wait, int join)
{
    pyc_rlock *self = (pyc_rlock *)wait->subject;
    uintptr_t owner = owner_of(self);
    if (owner == wait->who) {
        pyc_mutex_leave(&self->mutex, &wait->waiter);
        return again(self);
    }
    if (wait->phase == NEW && wait->task != NULL &&
        owner == PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this thread holds the RLock by `with`: its tasks "
                        "cannot wait for it");
        return -1;
    }
    wait->phase = WAITING;
    return pyc_rlock_retake(self, wait, join);
}

static int
retaking_attempt(pyc_wait *wait, int join)
{
    return pyc_rlock_retake((pyc_rlock *)wait->subject, wait, join);
}

static int
acquiring_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    pyc_mutex_leave(&((pyc_rlock *)wait->subject)->mutex, &wait->waiter);
    return 0;
}

static uintptr_t
holder(PyObject *self)
{
    return owner_of(SELF);
}

const pyc_operation pyc_rlock_acquiring = {
    .attempt = acquiring_attempt,
    .leave = acquiring_leave,
    .holder = holder,
    .by_task = 1,
    .steps_aside = 1,
};

static const pyc_operation retaking = {
    .attempt = retaking_attempt,
    .leave = acquiring_leave,
};

int
pyc_rlock_is_mine(pyc_rlock *self)
{
    uintptr_t owner = owner_of(self);
    if (owner == 0 || owner == PyThread_get_thread_ident()) {
        return owner != 0;
    }
    /* A task that only we run, if it is ours, can't let go of it meanwhile. */
    PyObject *task = pyc_current_task(self->module);
    Py_XDECREF(task);
    return (uintptr_t)task == owner;
}

static int
release(pyc_rlock *self)
{
    PyObject *task = self->task;
    pyc_store(self->task, NULL);
    pyc_store(self->count, 0);
    set_owner(self, 0);
    int rc = pyc_mutex_release(&self->mutex);
    Py_XDECREF(task);
    return rc;
}

int
pyc_rlock_release(pyc_rlock *self)
{
    if (PYC_UNLIKELY(!pyc_rlock_is_mine(self))) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
        return -1;
    }
    if (self->count > 1) {
        pyc_store(self->count, self->count - 1);
        return 0;
    }
    return release(self);
}

unsigned long
pyc_rlock_release_all(pyc_rlock *self)
{
    unsigned long count = pyc_load(self->count);
    if (count == 0) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
        return 0;
    }
    release(self);
    return count;
}

/* Waits for it as a thread, unless the task that the thread is running has it
 * already. */
static PyObject *
wait_for_it(PyObject *self, int64_t deadline)
{
    int rc;
    if (pyc_load(SELF->task) != NULL && pyc_rlock_is_mine(SELF)) {
        rc = again(SELF);
    }
    else {
        pyc_wait wait = pyc_lock_wait(self, SELF->module, &pyc_rlock_acquiring);
        rc = pyc_wait_block(&wait, deadline);
    }
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

PyObject *
pyc_rlock_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    int64_t deadline = PYC_NO_DEADLINE;
    if ((nargs > 0 || kwnames != NULL) &&
        pyc_timeout_acquire(SELF->module, args, nargs, kwnames, &deadline) <
            0) {
        return NULL;
    }
    uintptr_t me = PyThread_get_thread_ident();
    if (owner_of(SELF) == me) {
        if (again(SELF) < 0) {
            return NULL;
        }
        Py_RETURN_TRUE;
    }
    if (PYC_LIKELY(pyc_mutex_try(&SELF->mutex))) {
        pyc_store(SELF->count, 1);
        set_owner(SELF, me);
        Py_RETURN_TRUE;
    }
    return wait_for_it(self, deadline);
}

static PyObject *
rlock_acquire_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_wait wait = pyc_lock_wait(self, SELF->module, &pyc_rlock_acquiring);
    return pyc_wait_async(&wait);
}

static PyObject *
rlock_release(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (pyc_rlock_release(SELF) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
rlock_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
           Py_ssize_t Py_UNUSED(nargs))
{
    return rlock_release(self, NULL);
}

static PyObject *
rlock_aexit(PyObject *self, PyObject *const *Py_UNUSED(args),
            Py_ssize_t Py_UNUSED(nargs))
{
    return pyc_wait_none(SELF->module, pyc_rlock_release(SELF) == 0);
}

static PyObject *
rlock_locked(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pyc_mutex_is_held(&SELF->mutex));
}

static PyObject *
rlock_is_owned(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pyc_rlock_is_mine(SELF));
}

static PyObject *
rlock_recursion_count(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromUnsignedLong(pyc_rlock_is_mine(SELF) ? SELF->count : 0);
}

static PyObject *
rlock_release_save(PyObject *self, PyObject *Py_UNUSED(unused))
{
    uintptr_t owner = owner_of(SELF);
    unsigned long count = pyc_rlock_release_all(SELF);
    return count == 0 ? NULL : Py_BuildValue("kk", count, (unsigned long)owner);
}

static PyObject *
rlock_acquire_restore(PyObject *self, PyObject *saved)
{
    unsigned long count, owner;
    if (!PyArg_ParseTuple(saved, "kk:_acquire_restore", &count, &owner)) {
        return NULL;
    }
    pyc_wait wait = pyc_lock_wait(self, SELF->module, &retaking);
    wait.who = owner;
    pyc_wait_deaf(&wait);
    pyc_store(SELF->count, count);
    Py_RETURN_NONE;
}

static PyObject *
rlock_after_fork(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_mutex_init(&SELF->mutex);
    set_owner(SELF, 0);
    SELF->count = 0;
    Py_CLEAR(SELF->task);
    Py_RETURN_NONE;
}

static PyObject *
rlock_repr(PyObject *self)
{
    uintptr_t owner = owner_of(SELF);
    return PyUnicode_FromFormat("<%s %s object owner=%lu count=%lu at %p>",
                                owner == 0 ? "unlocked" : "locked",
                                Py_TYPE(self)->tp_name, (unsigned long)owner,
                                pyc_load(SELF->count), self);
}

/* What the RLock of this Python says of arguments, unless a subclass has taken
 * them. 0 or -1. */
static int
refuse_arguments(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Py_ssize_t given = PyTuple_GET_SIZE(args), position = 0;
    PyObject *name;
    if (!PYC_RLOCK_ARGUMENTS_DEPRECATED ||
        type->tp_init != PyBaseObject_Type.tp_init ||
        (given == 0 && (kwargs == NULL || PyDict_GET_SIZE(kwargs) == 0))) {
        return 0;
    }
    if (!PYC_RLOCK_ARGUMENTS_GONE) {
        return PyErr_WarnEx(PyExc_DeprecationWarning,
                            "Passing arguments to RLock is deprecated and will "
                            "be removed in 3.15",
                            1);
    }
    if (given > 0) {
        PyErr_Format(PyExc_TypeError,
                     "RLock() takes 0 positional arguments but %zd %s given",
                     given, given == 1 ? "was" : "were");
    }
    else if (PyDict_Next(kwargs, &position, &name, NULL)) {
        PyErr_Format(PyExc_TypeError,
                     "RLock() got an unexpected keyword argument '%S'", name);
    }
    return -1;
}

static PyObject *
rlock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (refuse_arguments(type, args, kwargs) < 0) {
        return NULL;
    }
    PyObject *self = pyc_sync_new(type);
    if (self != NULL) {
        pyc_mutex_init(&SELF->mutex);
    }
    return self;
}

static int
rlock_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(SELF->task);
    return 0;
}

static int
rlock_clear(PyObject *self)
{
    Py_CLEAR(SELF->task);
    return 0;
}

static void
rlock_dealloc(PyObject *self)
{
    pyc_sync_free(self, rlock_clear);
}

/* clang-format off */
PyDoc_STRVAR(acquire_doc,
"acquire($self, /, blocking=True, timeout=-1)\n--\n\n"
"Takes the lock, once more if this thread holds it: True, or False when it is\n"
"held by another and blocking is false or timeout seconds have passed (-1:\n"
"waits for ever). Source: threading.RLock.acquire.");
PyDoc_STRVAR(acquire_async_doc,
"acquire_async($self, /)\n--\n\n"
"Takes the lock for the current task, waiting for it as a coroutine of any\n"
"asyncio loop: True. Once more if the task holds it.");
PyDoc_STRVAR(release_doc,
"release($self, /)\n--\n\n"
"Lets go of the lock once. RuntimeError unless this thread or the task that\n"
"it runs holds it.");
PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\nWhether it is held.");
PyDoc_STRVAR(rlock_doc,
"A threading.RLock for threads and coroutines. With `async with lock`, the\n"
"task owns it and may take it again.");
/* clang-format on */

static PyMethodDef rlock_methods[] = {
    {"acquire", PYC_KEYWORDS(pyc_rlock_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", rlock_release, METH_NOARGS, release_doc},
    {"locked", rlock_locked, METH_NOARGS, locked_doc},
    {"acquire_async", rlock_acquire_async, METH_NOARGS, acquire_async_doc},
    {"__enter__", PYC_KEYWORDS(pyc_rlock_acquire),
     METH_FASTCALL | METH_KEYWORDS, acquire_doc},
    {"__exit__", PYC_KEYWORDS(rlock_exit), METH_FASTCALL, NULL},
    {"__aenter__", rlock_acquire_async, METH_NOARGS, NULL},
    {"__aexit__", PYC_KEYWORDS(rlock_aexit), METH_FASTCALL, NULL},
    {"_is_owned", rlock_is_owned, METH_NOARGS, NULL},
    {"_recursion_count", rlock_recursion_count, METH_NOARGS, NULL},
    {"_release_save", rlock_release_save, METH_NOARGS, NULL},
    {"_acquire_restore", rlock_acquire_restore, METH_O, NULL},
    {"_at_fork_reinit", rlock_after_fork, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef rlock_members[] = {
    PYC_SYNC_WEAKREFS,
    {NULL},
};

static PyType_Slot rlock_slots[] = {
    {Py_tp_doc, (void *)rlock_doc},
    {Py_tp_new, rlock_new},
    {Py_tp_dealloc, rlock_dealloc},
    {Py_tp_traverse, rlock_traverse},
    {Py_tp_clear, rlock_clear},
    {Py_tp_repr, rlock_repr},
    {Py_tp_methods, rlock_methods},
    {Py_tp_members, rlock_members},
    {0, NULL},
};

static PyType_Spec rlock_spec = {
    .name = "pyconc.threading.RLock",
    .basicsize = sizeof(pyc_rlock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = rlock_slots,
};

int
pyc_rlock_register(PyObject *module, pyc_state *state)
{
    return pyc_sync_add_type(module, &rlock_spec, "ThreadRLock",
                             &state->rlock_type);
}
