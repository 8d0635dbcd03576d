/* SPDX-License-Identifier: MIT */
/* threading.Semaphore and BoundedSemaphore. */
#include "sync/object.h"
#include "sync/sync.h"
#include "sync/wait.h"

#include "py/arguments.h"

typedef struct {
    PYC_SYNC_HEAD
    Py_ssize_t value;
    Py_ssize_t bound; /* the most it may be */
    pyc_waiters waiters;
    pyc_lock guard;
} semaphore;

#define SELF ((semaphore *)self)

static int
acquiring_attempt(pyc_wait *wait, int join)
{
    semaphore *self = (semaphore *)wait->subject;
    pyc_waiter *waiter = &wait->waiter;
    int got = 0;
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(waiter);
    if (waiter->granted) {
        waiter->granted = 0;
        got = 1;
    }
    else if (self->value > 0) {
        pyc_store(self->value, self->value - 1);
        got = 1;
    }
    else if (join) {
        pyc_waiters_join(&self->waiters, waiter);
    }
    pyc_lock_give(&self->guard);
    return got;
}

/* Under the guard: wakes one for whom there is something. */
static pyc_wakeup
offer(semaphore *self)
{
    pyc_waiter *first = pyc_waiters_first(&self->waiters);
    pyc_verdict verdict = PYC_TRY_AGAIN;
    if (first != NULL && first->lost) {
        verdict = PYC_GRANTED;
        pyc_store(self->value, self->value - 1);
    }
    return pyc_waiters_pop(&self->waiters, verdict);
}

/* Under the guard: passes on what `waiter`, which stands in no queue, was woken
 * for. */
static pyc_wakeup
pass_on(semaphore *self, pyc_waiter *waiter)
{
    pyc_store(self->value, self->value + waiter->granted);
    waiter->granted = 0;
    return self->value > 0 ? offer(self) : (pyc_wakeup){NULL, NULL, NULL};
}

static pyc_wakeup
redirect(void *self, pyc_waiter *missed)
{
    return pass_on(SELF, missed);
}

static void
wake(semaphore *self, pyc_wakeup *wakeup)
{
    pyc_wakeup_send(wakeup, &self->waiters, &self->guard, redirect, self);
}

static int
acquiring_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    semaphore *self = (semaphore *)wait->subject;
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    pyc_lock_take(&self->guard);
    if (!pyc_waiter_leave(&wait->waiter) && wait->waiter.woken) {
        wakeup = pass_on(self, &wait->waiter);
    }
    pyc_lock_give(&self->guard);
    wake(self, &wakeup);
    return 0;
}

static const pyc_operation acquiring = {
    .attempt = acquiring_attempt,
    .leave = acquiring_leave,
    .steps_aside = 1,
};

static int
try(semaphore *self)
{
    pyc_lock_take(&self->guard);
    int got = self->value > 0;
    pyc_store(self->value, self->value - got);
    pyc_lock_give(&self->guard);
    return got;
}

static int
parse_acquire(semaphore *self, PyObject *const *args, Py_ssize_t nargs,
              PyObject *kwnames, int *blocking, PyObject **timeout)
{
    static const pyc_signature signature = {"acquire", {"blocking", "timeout"}};
    PyObject *given[2] = {NULL, Py_None};
    if (pyc_arguments(&signature, args, nargs, kwnames, given) < 0) {
        return -1;
    }
    *blocking = given[0] == NULL ? 1 : PyObject_IsTrue(given[0]);
    *timeout = given[1];
    if (*blocking == 0 && *timeout != Py_None) {
        PyErr_SetString(PyExc_ValueError,
                        "can't specify timeout for non-blocking acquire");
        return -1;
    }
    return *blocking < 0 ? -1 : 0;
}

static PyObject *
semaphore_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    int blocking = 1;
    PyObject *timeout = Py_None;
    if ((nargs > 0 || kwnames != NULL) &&
        parse_acquire(SELF, args, nargs, kwnames, &blocking, &timeout) < 0) {
        return NULL;
    }
    if (PYC_LIKELY(try(SELF))) {
        Py_RETURN_TRUE;
    }
    int64_t deadline = PYC_NO_WAIT;
    if (blocking && pyc_timeout_wait(SELF->module, timeout, &deadline) < 0) {
        return NULL;
    }
    pyc_wait wait = {
        .operation = &acquiring, .module = SELF->module, .subject = self};
    int rc = pyc_wait_block(&wait, deadline);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
semaphore_acquire_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_wait wait = {
        .operation = &acquiring, .module = SELF->module, .subject = self};
    return pyc_wait_async(&wait);
}

/* 0, or -1 with an exception set. */
static int
release(semaphore *self, Py_ssize_t n)
{
    if (n < 1) {
        PyErr_SetString(PyExc_ValueError, "n must be one or more");
        return -1;
    }
    pyc_lock_take(&self->guard);
    int fits = n <= self->bound - self->value;
    pyc_store(self->value, self->value + (fits ? n : 0));
    Py_ssize_t waiting = Py_MIN(n, self->waiters.length);
    pyc_lock_give(&self->guard);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "Semaphore released too many times");
        return -1;
    }
    for (; PYC_UNLIKELY(waiting > 0); waiting--) {
        pyc_wakeup wakeup = {NULL, NULL, NULL};
        pyc_lock_take(&self->guard);
        if (self->value > 0) {
            wakeup = offer(self);
        }
        pyc_lock_give(&self->guard);
        wake(self, &wakeup);
    }
    return 0;
}

static PyObject *
semaphore_release(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    static const pyc_signature signature = {"release", {"n"}};
    Py_ssize_t n = 1;
    if (nargs > 0 || kwnames != NULL) {
        PyObject *number = NULL;
        if (pyc_arguments(&signature, args, nargs, kwnames, &number) < 0) {
            return NULL;
        }
        n = PyNumber_AsSsize_t(number, PyExc_OverflowError);
        if (n == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (release(SELF, n) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
semaphore_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
               Py_ssize_t Py_UNUSED(nargs))
{
    if (release(SELF, 1) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
semaphore_aexit(PyObject *self, PyObject *const *Py_UNUSED(args),
                Py_ssize_t Py_UNUSED(nargs))
{
    return pyc_wait_none(SELF->module, release(SELF, 1) == 0);
}

static PyObject *
semaphore_locked(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(pyc_load(SELF->value) == 0);
}

static PyObject *
semaphore_get_value(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(pyc_load(SELF->value));
}

static PyObject *
semaphore_get_bound(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(pyc_load(SELF->bound));
}

/* For the subclass: the value is the most it may be from now on. */
static PyObject *
semaphore_bind(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_lock_take(&SELF->guard);
    pyc_store(SELF->bound, SELF->value);
    pyc_lock_give(&SELF->guard);
    Py_RETURN_NONE;
}

static PyObject *
semaphore_after_fork(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_lock_reset(&SELF->guard);
    pyc_waiters_init(&SELF->waiters);
    Py_RETURN_NONE;
}

static int
semaphore_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"value", NULL};
    Py_ssize_t value = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:Semaphore", names,
                                     &value)) {
        return -1;
    }
    if (value < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "semaphore initial value must be >= 0");
        return -1;
    }
    pyc_lock_take(&SELF->guard);
    pyc_store(SELF->value, value);
    pyc_store(SELF->bound, PY_SSIZE_T_MAX);
    pyc_lock_give(&SELF->guard);
    return 0;
}

static PyObject *
semaphore_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
              PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = pyc_sync_new(type);
    if (self != NULL) {
        pyc_waiters_init(&SELF->waiters);
    }
    return self;
}

static void
semaphore_dealloc(PyObject *self)
{
    pyc_sync_free(self, NULL);
}

/* clang-format off */
PyDoc_STRVAR(acquire_doc,
"acquire($self, /, blocking=True, timeout=None)\n--\n\n"
"Takes one from the value: True, or False when it is zero and blocking is\n"
"false or timeout seconds have passed (None: waits for ever).\n"
"Source: threading.Semaphore.acquire.");
PyDoc_STRVAR(acquire_async_doc,
"acquire_async($self, /)\n--\n\n"
"Takes one from the value, waiting as a coroutine of any asyncio loop: True.");
PyDoc_STRVAR(release_doc,
"release($self, /, n=1)\n--\n\n"
"Adds n to the value and wakes as many of those who wait. ValueError when n is\n"
"less than 1 or, of a BoundedSemaphore, the value would be more than it was at\n"
"first. Source: threading.Semaphore.release.");
PyDoc_STRVAR(locked_doc,
"locked($self, /)\n--\n\nWhether acquire() would have to wait.");
/* clang-format on */

static PyMethodDef semaphore_methods[] = {
    {"acquire", PYC_KEYWORDS(semaphore_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"acquire_async", semaphore_acquire_async, METH_NOARGS, acquire_async_doc},
    {"release", PYC_KEYWORDS(semaphore_release), METH_FASTCALL | METH_KEYWORDS,
     release_doc},
    {"locked", semaphore_locked, METH_NOARGS, locked_doc},
    {"__enter__", PYC_KEYWORDS(semaphore_acquire),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"__exit__", PYC_KEYWORDS(semaphore_exit), METH_FASTCALL, NULL},
    {"__aenter__", semaphore_acquire_async, METH_NOARGS, NULL},
    {"__aexit__", PYC_KEYWORDS(semaphore_aexit), METH_FASTCALL, NULL},
    {"_bind", semaphore_bind, METH_NOARGS, NULL},
    {"_at_fork_reinit", semaphore_after_fork, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef semaphore_members[] = {
    PYC_SYNC_WEAKREFS,
    {NULL},
};

static PyGetSetDef semaphore_getset[] = {
    {"_value", semaphore_get_value, NULL, NULL, NULL},
    {"_initial_value", semaphore_get_bound, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, "SemaphoreBase(value=1)\n--\n\nWhat Semaphore does in C."},
    {Py_tp_new, semaphore_new},
    {Py_tp_init, semaphore_init},
    {Py_tp_dealloc, semaphore_dealloc},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_members, semaphore_members},
    {Py_tp_getset, semaphore_getset},
    {0, NULL},
};

static PyType_Spec semaphore_spec = {
    .name = "pyconc._core.SemaphoreBase",
    .basicsize = sizeof(semaphore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = semaphore_slots,
};

int
pyc_semaphore_register(PyObject *module, pyc_state *state)
{
    return pyc_sync_add_type(module, &semaphore_spec, "SemaphoreBase", NULL);
}
