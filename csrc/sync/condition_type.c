/* SPDX-License-Identifier: MIT */
/* The Python face of a Condition. */
#include "sync/condition.h"
#include "sync/sync.h"

#include "py/arguments.h"

#define SELF ((pyc_condition *)self)

static PyObject *
condition_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const pyc_signature signature = {"wait", {"timeout"}};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (pyc_condition_check(SELF, "wait") < 0 ||
        pyc_arguments(&signature, args, nargs, kwnames, &timeout) < 0 ||
        pyc_timeout_wait(SELF->module, timeout, &deadline) < 0) {
        return NULL;
    }
    int rc = pyc_condition_wait(SELF, deadline);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
condition_wait_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return pyc_condition_async(SELF, 1);
}

static PyObject *
condition_acquire_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return pyc_condition_async(SELF, 0);
}

static PyObject *
condition_notify(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    static const pyc_signature signature = {"notify", {"n"}};
    PyObject *number = NULL;
    Py_ssize_t n = 1;
    if (pyc_arguments(&signature, args, nargs, kwnames, &number) < 0) {
        return NULL;
    }
    if (number != NULL) {
        n = PyNumber_AsSsize_t(number, NULL);
        if (n == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (pyc_condition_check(SELF, "notify") < 0) {
        return NULL;
    }
    pyc_condition_notify(SELF, n);
    Py_RETURN_NONE;
}

static PyObject *
condition_notify_all(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (pyc_condition_check(SELF, "notify") < 0) {
        return NULL;
    }
    pyc_condition_notify(SELF, PY_SSIZE_T_MAX);
    Py_RETURN_NONE;
}

static PyObject *
condition_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    if (!pyc_condition_has_lock(SELF)) {
        return NULL;
    }
    if (pyc_condition_over_rlock(SELF)) {
        return pyc_rlock_acquire(SELF->lock, args, nargs, kwnames);
    }
    if (pyc_condition_over_lock(SELF)) {
        return pyc_lock_acquire(SELF->lock, args, nargs, kwnames);
    }
    PyObject *acquire = PyObject_GetAttr(SELF->lock, SELF->module->str_acquire);
    PyObject *taken =
        acquire == NULL
            ? NULL
            : PyObject_Vectorcall(acquire, args, (size_t)nargs, kwnames);
    Py_XDECREF(acquire);
    return taken;
}

/* 0, or -1 with an exception set. */
static int
release(pyc_condition *self)
{
    if (!pyc_condition_has_lock(self)) {
        return -1;
    }
    if (pyc_condition_over_rlock(self)) {
        return pyc_rlock_release((pyc_rlock *)self->lock);
    }
    if (pyc_condition_over_lock(self)) {
        return pyc_lock_release((pyc_thread_lock *)self->lock);
    }
    PyObject *done = pyc_condition_call(self, self->module->str_release);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *
condition_release(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (release(SELF) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
condition_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!pyc_condition_has_lock(SELF)) {
        return NULL;
    }
    return pyc_condition_over_rlock(SELF) || pyc_condition_over_lock(SELF)
               ? condition_acquire(self, NULL, 0, NULL)
               : pyc_condition_call(SELF, SELF->module->str___enter__);
}

static PyObject *
condition_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (!pyc_condition_has_lock(SELF)) {
        return NULL;
    }
    if (pyc_condition_over_rlock(SELF) || pyc_condition_over_lock(SELF)) {
        return condition_release(self, NULL);
    }
    PyObject *leave = PyObject_GetAttrString(SELF->lock, "__exit__");
    PyObject *result =
        leave == NULL ? NULL
                      : PyObject_Vectorcall(leave, args, (size_t)nargs, NULL);
    Py_XDECREF(leave);
    return result;
}

static PyObject *
condition_aexit(PyObject *self, PyObject *const *Py_UNUSED(args),
                Py_ssize_t Py_UNUSED(nargs))
{
    return pyc_wait_none(SELF->module, release(SELF) == 0);
}

static PyObject *
condition_is_owned(PyObject *self, PyObject *Py_UNUSED(unused))
{
    int owned = pyc_condition_is_owned(SELF);
    return owned < 0 ? NULL : PyBool_FromLong(owned);
}

static PyObject *
condition_locked(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return pyc_condition_call(SELF, SELF->module->str_locked);
}

static PyObject *
condition_release_save(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!pyc_condition_has_lock(SELF)) {
        return NULL;
    }
    PyObject *method = PyObject_GetAttrString(SELF->lock, "_release_save");
    if (method == NULL) {
        PyErr_Clear();
        return condition_release(self, NULL);
    }
    PyObject *state = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return state;
}

static PyObject *
condition_acquire_restore(PyObject *self, PyObject *state)
{
    if (!pyc_condition_has_lock(SELF)) {
        return NULL;
    }
    PyObject *method = PyObject_GetAttrString(SELF->lock, "_acquire_restore");
    if (method == NULL) {
        PyErr_Clear();
        return condition_acquire(self, NULL, 0, NULL);
    }
    PyObject *done = PyObject_CallOneArg(method, state);
    Py_DECREF(method);
    return done;
}

static PyObject *
condition_after_fork(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_lock_reset(&SELF->guard);
    pyc_waiters_init(&SELF->waiters);
    return pyc_condition_call(SELF, SELF->module->str__at_fork_reinit);
}

static PyObject *
condition_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<Condition(%R, %zd)>", SELF->lock,
                                pyc_condition_waiting(SELF));
}

/* The lock's method of that name, or NULL: 0, or -1 with an exception set. */
static int
look_up(PyObject *lock, const char *name, PyObject **slot)
{
    PyObject *found = PyObject_GetAttrString(lock, name);
    if (found == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return -1;
    }
    PyErr_Clear();
    Py_XSETREF(*slot, found);
    return 0;
}

static int
condition_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"lock", NULL};
    PyObject *lock = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Condition", names,
                                     &lock)) {
        return -1;
    }
    lock = lock == Py_None
               ? PyObject_CallNoArgs((PyObject *)SELF->module->rlock_type)
               : Py_NewRef(lock);
    if (lock == NULL) {
        return -1;
    }
    Py_XSETREF(SELF->lock, lock);
    if (pyc_condition_over_lock(SELF) || pyc_condition_over_rlock(SELF)) {
        return 0;
    }
    if (look_up(lock, "_release_save", &SELF->release_save) < 0 ||
        look_up(lock, "_acquire_restore", &SELF->acquire_restore) < 0 ||
        look_up(lock, "_is_owned", &SELF->is_owned) < 0) {
        return -1;
    }
    PyObject *acquire = PyObject_GetAttrString(lock, "acquire");
    Py_XDECREF(acquire); /* without one it is no lock */
    return acquire == NULL ? -1 : 0;
}

static PyObject *
condition_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
              PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = pyc_sync_new(type);
    if (self != NULL) {
        pyc_waiters_init(&SELF->waiters);
    }
    return self;
}

static int
condition_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(SELF->lock);
    Py_VISIT(SELF->release_save);
    Py_VISIT(SELF->acquire_restore);
    Py_VISIT(SELF->is_owned);
    return 0;
}

static int
condition_clear(PyObject *self)
{
    Py_CLEAR(SELF->lock);
    Py_CLEAR(SELF->release_save);
    Py_CLEAR(SELF->acquire_restore);
    Py_CLEAR(SELF->is_owned);
    return 0;
}

static void
condition_dealloc(PyObject *self)
{
    pyc_sync_free(self, condition_clear);
}

/* clang-format off */
PyDoc_STRVAR(wait_doc,
"wait($self, /, timeout=None)\n--\n\n"
"Lets go of the lock, waits up to timeout seconds (None: for ever) for\n"
"notify(), and takes the lock back: whether it was notified. RuntimeError\n"
"unless the lock is held. Source: threading.Condition.wait.");
PyDoc_STRVAR(wait_async_doc,
"wait_async($self, /)\n--\n\n"
"wait() as a coroutine of any asyncio loop, for who holds the lock by\n"
"`async with`: True. Cancelled, it takes the lock back first.");
PyDoc_STRVAR(notify_doc,
"notify($self, /, n=1)\n--\n\n"
"Wakes n of those who wait, threads or coroutines. RuntimeError unless the\n"
"lock is held. Source: threading.Condition.notify.");
PyDoc_STRVAR(notify_all_doc,
"notify_all($self, /)\n--\n\nWakes all who wait, as notify().");
PyDoc_STRVAR(acquire_doc,
"acquire($self, /, *args)\n--\n\nThe lock's acquire().");
PyDoc_STRVAR(acquire_async_doc,
"acquire_async($self, /)\n--\n\nThe lock's acquire_async().");
PyDoc_STRVAR(release_doc, "release($self, /)\n--\n\nThe lock's release().");
PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\nThe lock's locked().");
/* clang-format on */

static PyMethodDef condition_methods[] = {
    {"wait", PYC_KEYWORDS(condition_wait), METH_FASTCALL | METH_KEYWORDS,
     wait_doc},
    {"wait_async", condition_wait_async, METH_NOARGS, wait_async_doc},
    {"notify", PYC_KEYWORDS(condition_notify), METH_FASTCALL | METH_KEYWORDS,
     notify_doc},
    {"notify_all", condition_notify_all, METH_NOARGS, notify_all_doc},
    {"acquire", PYC_KEYWORDS(condition_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"acquire_async", condition_acquire_async, METH_NOARGS, acquire_async_doc},
    {"release", condition_release, METH_NOARGS, release_doc},
    {"locked", condition_locked, METH_NOARGS, locked_doc},
    {"__enter__", condition_enter, METH_NOARGS, NULL},
    {"__exit__", PYC_KEYWORDS(condition_exit), METH_FASTCALL, NULL},
    {"__aenter__", condition_acquire_async, METH_NOARGS, NULL},
    {"__aexit__", PYC_KEYWORDS(condition_aexit), METH_FASTCALL, NULL},
    {"_is_owned", condition_is_owned, METH_NOARGS, NULL},
    {"_release_save", condition_release_save, METH_NOARGS, NULL},
    {"_acquire_restore", condition_acquire_restore, METH_O, NULL},
    {"_at_fork_reinit", condition_after_fork, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef condition_members[] = {
    PYC_SYNC_WEAKREFS,
    {"_lock", T_OBJECT_EX, offsetof(pyc_condition, lock), READONLY, NULL},
    {NULL},
};

static PyType_Slot condition_slots[] = {
    {Py_tp_doc, "ConditionBase(lock=None)\n--\n\nWhat Condition does in C."},
    {Py_tp_new, condition_new},
    {Py_tp_init, condition_init},
    {Py_tp_dealloc, condition_dealloc},
    {Py_tp_traverse, condition_traverse},
    {Py_tp_clear, condition_clear},
    {Py_tp_repr, condition_repr},
    {Py_tp_methods, condition_methods},
    {Py_tp_members, condition_members},
    {0, NULL},
};

static PyType_Spec condition_spec = {
    .name = "pyconc._core.ConditionBase",
    .basicsize = sizeof(pyc_condition),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = condition_slots,
};

int
pyc_condition_register(PyObject *module, pyc_state *state)
{
    return pyc_sync_add_type(module, &condition_spec, "ConditionBase", NULL);
}
