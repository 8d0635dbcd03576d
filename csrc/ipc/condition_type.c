/* SPDX-License-Identifier: MIT */
/* multiprocessing.Condition. */
#include "ipc/condition.h"
#include "ipc/died.h"

#include "py/arguments.h"

#define SELF ((pyc_condition *)self)
#define LOCK ((PyObject *)PYC_CONDITION_LOCK(SELF))

static bool
over_rlock(PyObject *self)
{
    return PYC_CONDITION_LOCK(SELF)->recursive;
}

/* The lock must be held by the caller: *who. */
static int
check(PyObject *self, const char *message, uint64_t *who)
{
    if (!pyc_lock_is_held_here(PYC_CONDITION_LOCK(SELF), who)) {
        PyErr_SetString(PyExc_AssertionError, message);
        return -1;
    }
    return 0;
}

/* 1: notified; 0: too late; -1: an exception of a signal's handler. */
static int
sleep_in_seat(pyc_condition_wait *wait, int64_t deadline)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(wait->condition));
    pyc_seats *seats = PYC_CONDITION_SEATS(wait->condition);
    _Atomic uint32_t *word =
        wait->at < 0 ? &seats->calls : &seats->seats[wait->at].word;
    uint32_t expected = wait->at < 0 ? wait->number : me | PYC_WAITS;
    if (deadline != 0) {
        pyc_luck_watch(&wait->condition->luck, word, expected);
    }
    while (!pyc_condition_heard(wait)) {
        if (wait->at >= 0) {
            pyc_seat_doze(&seats->seats[wait->at], me);
            expected = me | PYC_ASLEEP;
        }
        int end = pyc_sleep(word, expected, deadline);
        wait->rest = end == PYC_SLICE_OVER ? PYC_SLEPT_A_SLICE : PYC_SLEPT;
        if (end == PYC_SLICE_OVER) {
            pyc_condition_look(wait);
        }
        else if (end == PYC_TOO_LATE || end == PYC_INTERRUPTED) {
            return end == PYC_TOO_LATE ? 0 : -1;
        }
    }
    return 1;
}

static PyObject *
condition_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    static const pyc_signature signature = {"wait", {"timeout"}};
    pyc_condition_wait wait = {.condition = SELF};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (pyc_arguments(&signature, args, nargs, kwnames, &timeout) < 0 ||
        check(self, "must acquire() condition before using wait()", &wait.who) <
            0 ||
        pyc_sleep_deadline(Py_True, timeout, &deadline) < 0) {
        return NULL;
    }
    pyc_condition_begin(&wait);
    bool failed = sleep_in_seat(&wait, deadline) < 0;
    bool notified = pyc_condition_leave(&wait);
    failed |= pyc_lock_retake(PYC_CONDITION_LOCK(SELF), wait.who, wait.depth,
                              wait.rest) < 0;
    /* With an exception the caller does not hear of the notification. */
    pyc_condition_end(&wait, notified && failed);
    return failed ? NULL : PyBool_FromLong(notified);
}

static PyObject *
condition_notify(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    static const pyc_signature signature = {"notify", {"n"}};
    PyObject *given = NULL;
    Py_ssize_t count = 1;
    uint64_t who;
    if (pyc_arguments(&signature, args, nargs, kwnames, &given) < 0 ||
        check(self, "lock is not owned", &who) < 0) {
        return NULL;
    }
    if (given != NULL) {
        count = PyNumber_AsSsize_t(given, NULL);
        if (count == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (count > 0) {
        pyc_condition_notify(SELF, (size_t)count);
    }
    Py_RETURN_NONE;
}

static PyObject *
condition_notify_all(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t who;
    if (check(self, "lock is not owned", &who) < 0) {
        return NULL;
    }
    pyc_condition_notify(SELF, SIZE_MAX);
    Py_RETURN_NONE;
}

static PyObject *
condition_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    return over_rlock(self) ? pyc_rlock_acquire(LOCK, args, nargs, kwnames)
                            : pyc_lock_acquire(LOCK, args, nargs, kwnames);
}

static PyObject *
condition_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return over_rlock(self) ? pyc_rlock_enter(LOCK, NULL)
                            : pyc_lock_enter(LOCK, NULL);
}

static PyObject *
condition_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return over_rlock(self) ? pyc_rlock_release(LOCK, NULL)
                            : pyc_lock_release(LOCK, NULL);
}

static PyObject *
condition_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
               Py_ssize_t Py_UNUSED(nargs))
{
    return condition_release(self, NULL);
}

static PyObject *
condition_locked(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return pyc_lock_locked(LOCK, NULL);
}

static PyObject *
condition_waiting(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_seats *seats = PYC_CONDITION_SEATS(SELF);
    long count = 0;
    for (int at = 0; at < PYC_SEATS; at++) {
        count += (pyc_word_look(&seats->seats[at].word) & PYC_WAITS) != 0;
    }
    return PyLong_FromLong(count);
}

/* How a task waits: its wait is a tuple meanwhile. */
static PyObject *
pack(const pyc_condition_wait *wait)
{
    return Py_BuildValue("IIii", wait->depth, wait->number, wait->at,
                         wait->heir);
}

static int
unpack(PyObject *self, PyObject *packed, pyc_condition_wait *wait)
{
    wait->condition = SELF;
    int rc = PyArg_ParseTuple(packed, "IIii", &wait->depth, &wait->number,
                              &wait->at, &wait->heir);
    if (rc && (wait->at >= PYC_SEATS || wait->heir >= PYC_SEATS)) {
        PyErr_SetString(PyExc_ValueError, "no such seat");
        rc = 0;
    }
    return rc ? 0 : -1;
}

static PyObject *
condition_begin(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_condition_wait wait = {.condition = SELF};
    if (check(self, "must acquire() condition before using wait_async()",
              &wait.who) < 0) {
        return NULL;
    }
    pyc_condition_begin(&wait);
    return pack(&wait);
}

static PyObject *
condition_heard(PyObject *self, PyObject *packed)
{
    pyc_condition_wait wait;
    if (unpack(self, packed, &wait) < 0) {
        return NULL;
    }
    if (!pyc_condition_heard(&wait) && pyc_owner_may_ask(&SELF->looked)) {
        pyc_condition_look(&wait);
    }
    if (!pyc_condition_heard(&wait)) {
        Py_RETURN_NONE;
    }
    return pack(&wait);
}

static PyObject *
condition_leave(PyObject *self, PyObject *packed)
{
    pyc_condition_wait wait;
    if (unpack(self, packed, &wait) < 0) {
        return NULL;
    }
    bool notified = pyc_condition_leave(&wait);
    return Py_BuildValue("NN", PyBool_FromLong(notified), pack(&wait));
}

static PyObject *
condition_desert(PyObject *self, PyObject *packed)
{
    pyc_condition_wait wait;
    if (unpack(self, packed, &wait) < 0) {
        return NULL;
    }
    pyc_condition_desert(&wait);
    Py_RETURN_NONE;
}

static PyObject *
condition_end(PyObject *self, PyObject *args)
{
    PyObject *packed;
    int passes_on;
    pyc_condition_wait wait;
    if (!PyArg_ParseTuple(args, "O!p:_end", &PyTuple_Type, &packed,
                          &passes_on) ||
        unpack(self, packed, &wait) < 0) {
        return NULL;
    }
    atomic_store_explicit(&PYC_LOCK_MEMORY(PYC_CONDITION_LOCK(SELF))->depth,
                          wait.depth, memory_order_relaxed);
    pyc_condition_end(&wait, passes_on);
    Py_RETURN_NONE;
}

static PyObject *
condition_arm(PyObject *self, PyObject *packed)
{
    pyc_condition_wait wait;
    if (unpack(self, packed, &wait) < 0) {
        return NULL;
    }
    pyc_seats *seats = PYC_CONDITION_SEATS(SELF);
    pyc_bells *bells =
        wait.at < 0 ? &seats->bells : &seats->seats[wait.at].bells;
    return PyLong_FromUnsignedLongLong(pyc_bells_arm(PYC_ARENA(self), bells));
}

static int
check_lock(pyc_ipc *state, PyObject *lock)
{
    if (PyObject_TypeCheck(lock, state->lock_type) ||
        PyObject_TypeCheck(lock, state->rlock_type)) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError,
                 "a Condition needs a Lock or RLock of "
                 "pyconc.multiprocessing, not %s",
                 Py_TYPE(lock)->tp_name);
    return -1;
}

static PyObject *
condition_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"lock", NULL};
    PyObject *lock;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Condition", names,
                                     &lock)) {
        return NULL;
    }
    PyObject *self =
        pyc_shared_new(type, sizeof(pyc_seats), PYC_KIND_CONDITION);
    if (self != NULL && check_lock(pyc_ipc_of(self), lock) < 0) {
        Py_CLEAR(self);
    }
    if (self != NULL) {
        SELF->shared.extra = Py_NewRef(lock);
    }
    return self;
}

static PyObject *
condition_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *self = pyc_shared_receive((PyTypeObject *)type, args, nargs,
                                        PYC_KIND_CONDITION);
    if (self != NULL &&
        check_lock(pyc_ipc_of(self),
                   SELF->shared.extra == NULL ? Py_None : SELF->shared.extra) <
            0) {
        Py_CLEAR(self);
    }
    return self;
}

static PyObject *
condition_get_lock(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(LOCK);
}

/* clang-format off */
PyDoc_STRVAR(wait_doc,
"wait($self, /, timeout=None)\n--\n\n"
"Lets go of the lock, waits up to timeout seconds (None: for ever) for\n"
"notify(), and takes the lock back: whether it was notified. AssertionError\n"
"unless the caller has the lock. OwnerDied, with the lock taken, when the\n"
"process that had it meanwhile died. When it raises, a notification that it has\n"
"had goes to another. Source: multiprocessing.Condition.wait.");
PyDoc_STRVAR(notify_doc,
"notify($self, /, n=1)\n--\n\n"
"Wakes n of those who wait, who have waited longest; waits for none of them.\n"
"AssertionError unless the caller has the lock.\n"
"Source: multiprocessing.Condition.notify.");
PyDoc_STRVAR(notify_all_doc,
"notify_all($self, /)\n--\n\nWakes all who wait, as notify().");
PyDoc_STRVAR(acquire_doc,
"acquire($self, /, block=True, timeout=None)\n--\n\nThe lock's acquire().");
PyDoc_STRVAR(release_doc, "release($self, /)\n--\n\nThe lock's release().");
PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\nThe lock's locked().");
PyDoc_STRVAR(condition_doc,
"Condition(lock)\n--\n\nWhat Condition does in C.");
/* clang-format on */

static PyMethodDef condition_methods[] = {
    {"wait", PYC_KEYWORDS(condition_wait), METH_FASTCALL | METH_KEYWORDS,
     wait_doc},
    {"notify", PYC_KEYWORDS(condition_notify), METH_FASTCALL | METH_KEYWORDS,
     notify_doc},
    {"notify_all", condition_notify_all, METH_NOARGS, notify_all_doc},
    {"acquire", PYC_KEYWORDS(condition_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", condition_release, METH_NOARGS, release_doc},
    {"locked", condition_locked, METH_NOARGS, locked_doc},
    {"__enter__", condition_enter, METH_NOARGS, NULL},
    {"__exit__", PYC_KEYWORDS(condition_exit), METH_FASTCALL, NULL},
    {"receive", PYC_KEYWORDS(condition_receive), METH_FASTCALL | METH_CLASS,
     PYC_RECEIVE_DOC},
    {"_waiting", condition_waiting, METH_NOARGS,
     "_waiting($self, /)\n--\n\nHow many wait."},
    {"_begin", condition_begin, METH_NOARGS,
     "_begin($self, /)\n--\n\nA wait of the running task, without the lock."},
    {"_heard", condition_heard, METH_O,
     "_heard($self, wait, /)\n--\n\nThe wait when it was notified, or None."},
    {"_leave", condition_leave, METH_O,
     "_leave($self, wait, /)\n--\n\n"
     "Waits no longer: whether it was notified, and the wait."},
    {"_desert", condition_desert, METH_O,
     "_desert($self, wait, /)\n--\n\n"
     "Waits no longer and does not take the lock: another one is notified "
     "instead."},
    {"_end", condition_end, METH_VARARGS,
     "_end($self, wait, passes_on, /)\n--\n\n"
     "The wait is over, and the lock taken. passes_on: another one is notified "
     "instead."},
    {"_arm", condition_arm, METH_O,
     "_arm($self, wait, /)\n--\n\n"
     "Has its notification ring this process's bell: with which key."},
    PYC_SHARED_METHODS,
    {NULL},
};

static PyGetSetDef condition_getset[] = {
    {"_lock", condition_get_lock, NULL, "The lock.", NULL},
    {NULL},
};

static PyType_Slot condition_slots[] = {
    {Py_tp_doc, (void *)condition_doc},
    {Py_tp_new, condition_new},
    {Py_tp_methods, condition_methods},
    {Py_tp_getset, condition_getset},
    PYC_SHARED_SLOTS,
    {0, NULL},
};

PyType_Spec pyc_condition_spec = {
    .name = "pyconc._ipc.Condition",
    .basicsize = sizeof(pyc_condition),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = condition_slots,
};
