/* SPDX-License-Identifier: MIT */
/* multiprocessing.RLock, whose owner is a thread, or a task that took it with
 * `async with`. */
#include "ipc/lock.h"

#include "py/arguments.h"

#define SELF ((pyc_ipc_lock *)self)

static int
rlock_take(PyObject *self, int64_t deadline)
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    uint64_t who = pyc_lock_who(SELF, pyc_thread());
    if (PYC_LIKELY(
            pyc_word_try(&memory->word, pyc_arena_me(PYC_ARENA(self))))) {
        pyc_lock_mark(memory, who);
        return 1;
    }
    if (pyc_lock_again(SELF, who) ||
        (pyc_lock_is_held_here(SELF, &who) && pyc_lock_again(SELF, who))) {
        return 1;
    }
    return pyc_lock_wait(SELF, pyc_lock_who(SELF, pyc_thread()), deadline);
}

PyObject *
pyc_rlock_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    int64_t deadline;
    if (pyc_lock_deadline(args, nargs, kwnames, &deadline) < 0) {
        return NULL;
    }
    int taken = rlock_take(self, deadline);
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

PyObject *
pyc_rlock_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return pyc_lock_entered(self, rlock_take(self, PYC_NO_DEADLINE));
}

PyObject *
pyc_rlock_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    uint64_t who = pyc_lock_who(SELF, pyc_thread());
    if (PYC_UNLIKELY(!pyc_lock_is_mine(SELF, who) &&
                     !pyc_lock_is_held_here(SELF, &who))) {
        PyErr_SetString(
            PyExc_AssertionError,
            "attempt to release recursive lock not owned by thread");
        return NULL;
    }
    uint32_t depth = atomic_load_explicit(&memory->depth, memory_order_relaxed);
    if (depth > 1) {
        atomic_store_explicit(&memory->depth, depth - 1, memory_order_relaxed);
    }
    else {
        pyc_lock_free(SELF);
    }
    Py_RETURN_NONE;
}

static PyObject *
rlock_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
           Py_ssize_t Py_UNUSED(nargs))
{
    return pyc_rlock_release(self, NULL);
}

static PyObject *
rlock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return pyc_lock_new(type, args, kwargs, PYC_KIND_RLOCK);
}

static PyObject *
rlock_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    return pyc_lock_receive(type, args, nargs, PYC_KIND_RLOCK);
}

/* clang-format off */
PyDoc_STRVAR(acquire_doc,
"acquire($self, /, block=True, timeout=None)\n--\n\n"
"Takes the lock, once more if the caller has it: True, or False when another\n"
"has it and block is false or timeout seconds have passed (None: waits for\n"
"ever). OwnerDied, with the lock taken, when the process that had it has died,\n"
"unless the lock has a recover=.\n"
"Source: multiprocessing.RLock.acquire.");
PyDoc_STRVAR(release_doc,
"release($self, /)\n--\n\n"
"Lets go of the lock once. AssertionError unless the caller has it.");
PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\nWhether somebody has it.");
PyDoc_STRVAR(rlock_doc,
"RLock(*, recover=None, ctx=None)\n--\n\n"
"What RLock does in C.");
/* clang-format on */

static PyMethodDef rlock_methods[] = {
    {"acquire", PYC_KEYWORDS(pyc_rlock_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", pyc_rlock_release, METH_NOARGS, release_doc},
    {"locked", pyc_lock_locked, METH_NOARGS, locked_doc},
    {"__enter__", pyc_rlock_enter, METH_NOARGS, NULL},
    {"__exit__", PYC_KEYWORDS(rlock_exit), METH_FASTCALL, NULL},
    {"receive", PYC_KEYWORDS(rlock_receive), METH_FASTCALL | METH_CLASS,
     PYC_RECEIVE_DOC},
    PYC_LOCK_METHODS,
    PYC_SHARED_METHODS,
    {NULL},
};

static PyType_Slot rlock_slots[] = {
    {Py_tp_doc, (void *)rlock_doc},
    {Py_tp_new, rlock_new},
    {Py_tp_methods, rlock_methods},
    PYC_SHARED_SLOTS,
    {0, NULL},
};

PyType_Spec pyc_rlock_spec = {
    .name = "pyconc._ipc.RLock",
    .basicsize = sizeof(pyc_ipc_lock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = rlock_slots,
};
