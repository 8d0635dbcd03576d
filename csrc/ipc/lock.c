/* SPDX-License-Identifier: MIT */
/* multiprocessing.Lock, and what RLock has in common with it. */
#include "ipc/lock.h"
#include "ipc/died.h"

#include "py/arguments.h"

#define SELF ((pyc_ipc_lock *)self)

void
pyc_lock_wake(pyc_ipc_lock *self)
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    pyc_wake(&memory->word, 1);
    pyc_bells_ring(pyc_ipc_of((PyObject *)self), PYC_ARENA(self),
                   &memory->bells);
}

/* Only while another process has it: a thread of this one needs the GIL to let
 * go of it. */
static bool
spin(_Atomic uint32_t *word, pyc_owner me, uint32_t sleepers)
{
    for (int pauses = 1; pauses <= PYC_PAUSES; pauses *= 2) {
        uint32_t now = pyc_word_look(word);
        if (now == 0 && pyc_word_try(word, me | sleepers)) {
            return true;
        }
        if ((now & PYC_OWNER) == me) {
            return false;
        }
        pyc_pause(pauses);
    }
    return false;
}

/* Takes it if its owner is dead: who that was, else 0. */
static pyc_owner
take_over(pyc_ipc_lock *self, pyc_owner me)
{
    _Atomic uint32_t *word = &PYC_LOCK_MEMORY(self)->word;
    uint32_t seen = pyc_word_look(word);
    pyc_owner owner = seen & PYC_OWNER;
    return owner != 0 && pyc_arena_owner_is_dead(PYC_ARENA(self), owner) &&
                   pyc_word_take_over(word, seen, me)
               ? owner
               : 0;
}

/* Sleeps until it has the lock. `slept`: has done so already, on the lock's
 * word. */
static int
sleep_for_it(pyc_ipc_lock *self, bool slept, int64_t deadline, pyc_owner *died)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(self));
    _Atomic uint32_t *word = &PYC_LOCK_MEMORY(self)->word;
    uint32_t seen;
    while (!pyc_word_step(word, me, slept, &seen)) {
        int end = pyc_sleep(word, seen, deadline);
        if (end == PYC_INTERRUPTED) {
            if (pyc_word_leave(word)) {
                pyc_wake(word, 1);
            }
            return -1;
        }
        if (end == PYC_SLICE_OVER ||
            (end == PYC_TOO_LATE && pyc_owner_may_ask(&self->looked))) {
            *died = take_over(self, me);
            if (*died != 0) {
                return 1;
            }
        }
        if (end == PYC_TOO_LATE) {
            return pyc_word_step(word, me, true, &seen);
        }
        slept = true;
    }
    return 1;
}

static int
wait_for_word(pyc_ipc_lock *self, int64_t deadline, pyc_owner *died)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(self));
    _Atomic uint32_t *word = &PYC_LOCK_MEMORY(self)->word;
    *died = 0;
    if (deadline != 0) {
        return spin(word, me, 0) ? 1
                                 : sleep_for_it(self, false, deadline, died);
    }
    if (pyc_word_try(word, me)) {
        return 1;
    }
    if (pyc_owner_may_ask(&self->looked)) {
        *died = take_over(self, me);
    }
    return *died != 0;
}

/* The caller has the word, perhaps of one who died: who that was, or 0 when he
 * died before he began anything, or after he ended. */
static pyc_owner
mark(pyc_lock_memory *memory, uint64_t who, pyc_owner died)
{
    bool had_begun =
        atomic_load_explicit(&memory->who, memory_order_relaxed) != 0;
    pyc_lock_mark(memory, who);
    return had_begun ? died : 0;
}

int
pyc_lock_wait(pyc_ipc_lock *self, uint64_t who, int64_t deadline)
{
    pyc_owner died;
    PyObject *recover = self->shared.extra;
    int taken = wait_for_word(self, deadline, &died);
    if (taken <= 0) {
        return taken;
    }
    died = mark(PYC_LOCK_MEMORY(self), who, died);
    if (died == 0 || pyc_owner_died((PyObject *)self, died, recover) == 0) {
        return 1;
    }
    if (recover == NULL) {
        return PYC_TAKEN_BUT;
    }
    pyc_lock_free(self);
    return -1;
}

/* Keeps the first exception. */
static void
keep(PyObject **first)
{
    PyObject *raised = pyc_take_exception();
    if (*first == NULL) {
        *first = raised;
    }
    else {
        Py_XDECREF(raised);
    }
}

int
pyc_lock_retake(pyc_ipc_lock *self, uint64_t who, uint32_t depth, pyc_rest rest)
{
    PyObject *first = pyc_take_exception(), *recover = self->shared.extra;
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    pyc_owner me = pyc_arena_me(PYC_ARENA(self)), died = 0;
    bool slept = rest != PYC_STAYED_AWAKE;
    bool taken = spin(&memory->word, me, slept ? PYC_SLEEPERS : 0);
    if (!taken && rest == PYC_SLEPT_A_SLICE) {
        died = take_over(self, me);
        taken = died != 0;
    }
    while (!taken) {
        taken = sleep_for_it(self, slept, PYC_NO_DEADLINE, &died) > 0;
        if (!taken) {
            slept = true;
            keep(&first);
        }
    }
    died = mark(memory, who, died);
    atomic_store_explicit(&memory->depth, depth, memory_order_relaxed);
    if (died != 0 && pyc_owner_died((PyObject *)self, died, recover) < 0) {
        keep(&first);
    }
    if (first != NULL) {
        pyc_put_exception(first);
        return -1;
    }
    return 0;
}

/* The running task; 0: none. */
static uint64_t
current_task(void)
{
    PyObject *task = NULL;
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio != NULL) {
        task = PyObject_CallMethod(asyncio, "current_task", NULL);
        Py_DECREF(asyncio);
    }
    PyErr_Clear(); /* no loop runs in this thread */
    uint64_t here = task == NULL || task == Py_None ? 0 : (uintptr_t)task | 1;
    Py_XDECREF(task);
    return here;
}

bool
pyc_lock_is_held_here(pyc_ipc_lock *self, uint64_t *who)
{
    *who = pyc_lock_who(self, pyc_thread());
    if (pyc_lock_is_mine(self, *who)) {
        return true;
    }
    uint64_t holder =
        atomic_load_explicit(&PYC_LOCK_MEMORY(self)->who, memory_order_relaxed);
    if ((holder & 1) == 0 || !pyc_lock_is_mine(self, holder)) {
        return false;
    }
    *who = pyc_lock_who(self, current_task());
    return *who == holder;
}

int
pyc_lock_deadline(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  int64_t *deadline)
{
    static const pyc_signature signature = {"acquire", {"block", "timeout"}};
    PyObject *given[2] = {NULL, NULL};
    *deadline = PYC_NO_DEADLINE;
    if (PYC_LIKELY(nargs == 0 && kwnames == NULL)) {
        return 0;
    }
    return pyc_arguments(&signature, args, nargs, kwnames, given) < 0 ||
                   pyc_sleep_deadline(given[0], given[1], deadline) < 0
               ? -1
               : 0;
}

PyObject *
pyc_lock_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    uint64_t who = pyc_lock_who(SELF, pyc_thread());
    int64_t deadline;
    if (pyc_lock_deadline(args, nargs, kwnames, &deadline) < 0) {
        return NULL;
    }
    if (PYC_LIKELY(
            pyc_word_try(&memory->word, pyc_arena_me(PYC_ARENA(self))))) {
        pyc_lock_mark(memory, who);
        Py_RETURN_TRUE;
    }
    int taken = pyc_lock_wait(SELF, who, deadline);
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

/* With `with` nobody could let go of a lock that came with an exception. */
PyObject *
pyc_lock_entered(PyObject *self, int taken)
{
    if (taken == PYC_TAKEN_BUT) {
        pyc_lock_free(SELF);
    }
    return taken < 0 ? NULL : Py_NewRef(Py_True);
}

PyObject *
pyc_lock_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    uint64_t who = pyc_lock_who(SELF, pyc_thread());
    if (PYC_LIKELY(
            pyc_word_try(&memory->word, pyc_arena_me(PYC_ARENA(self))))) {
        pyc_lock_mark(memory, who);
        Py_RETURN_TRUE;
    }
    return pyc_lock_entered(self, pyc_lock_wait(SELF, who, PYC_NO_DEADLINE));
}

PyObject *
pyc_lock_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (PYC_UNLIKELY(!pyc_lock_free(SELF))) {
        PyErr_SetString(PyExc_ValueError,
                        "semaphore or lock released too many times");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
lock_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
          Py_ssize_t Py_UNUSED(nargs))
{
    return pyc_lock_release(self, NULL);
}

PyObject *
pyc_lock_locked(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(pyc_word_look(&PYC_LOCK_MEMORY(self)->word) != 0);
}

PyObject *
pyc_lock_holder(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t who;
    uint32_t owner = pyc_word_look(&PYC_LOCK_MEMORY(self)->word) & PYC_OWNER;
    const char *holder = owner == 0                               ? ""
                         : owner != pyc_arena_me(PYC_ARENA(self)) ? "process"
                         : pyc_lock_is_held_here(SELF, &who)      ? "caller"
                                                                  : "thread";
    return PyUnicode_FromString(holder);
}

PyObject *
pyc_lock_is_of_thread(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(
        pyc_lock_is_mine(SELF, pyc_lock_who(SELF, pyc_thread())));
}

PyObject *
pyc_lock_depth(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLong(atomic_load_explicit(
        &PYC_LOCK_MEMORY(self)->depth, memory_order_relaxed));
}

PyObject *
pyc_lock_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    uint64_t key = pyc_bells_arm(PYC_ARENA(self), &memory->bells);
    pyc_word_ask(&memory->word);
    return PyLong_FromUnsignedLongLong(key);
}

/* An attempt of a task. */
PyObject *
pyc_lock_attempt(PyObject *self, PyObject *task)
{
    uint64_t who = pyc_lock_who(SELF, (uintptr_t)task | 1);
    if (SELF->recursive && pyc_lock_again(SELF, who)) {
        Py_RETURN_TRUE;
    }
    int taken;
    /* When it was free as arm() asked, and was taken since, nobody would ring.
     */
    do {
        taken = pyc_lock_wait(SELF, who, 0);
    } while (taken == 0 && pyc_word_ask(&PYC_LOCK_MEMORY(self)->word) == 0);
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

PyObject *
pyc_lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs,
             uint32_t kind)
{
    static char *names[] = {"recover", "ctx", NULL};
    PyObject *recover = Py_None, *ctx = Py_None;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, kind == PYC_KIND_LOCK ? "|$OO:Lock" : "|$OO:RLock",
            names, &recover, &ctx)) {
        return NULL;
    }
    if (recover != Py_None && !PyCallable_Check(recover)) {
        PyErr_SetString(PyExc_TypeError, "recover must be callable or None");
        return NULL;
    }
    PyObject *self = pyc_shared_new(type, sizeof(pyc_lock_memory), kind);
    if (self != NULL) {
        SELF->recursive = kind == PYC_KIND_RLOCK;
        SELF->shared.extra = recover == Py_None ? NULL : Py_NewRef(recover);
    }
    return self;
}

PyObject *
pyc_lock_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs,
                 uint32_t kind)
{
    PyObject *self =
        pyc_shared_receive((PyTypeObject *)type, args, nargs, kind);
    if (self != NULL) {
        SELF->recursive = kind == PYC_KIND_RLOCK;
    }
    return self;
}

static PyObject *
lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return pyc_lock_new(type, args, kwargs, PYC_KIND_LOCK);
}

static PyObject *
lock_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    return pyc_lock_receive(type, args, nargs, PYC_KIND_LOCK);
}

/* clang-format off */
PyDoc_STRVAR(acquire_doc,
"acquire($self, /, block=True, timeout=None)\n--\n\n"
"Takes the lock: True, or False when another has it and block is false or\n"
"timeout seconds have passed (None: waits for ever). OwnerDied, with the lock\n"
"taken, when the process that had it has died, unless the lock has a recover=.\n"
"Source: multiprocessing.Lock.acquire.");
PyDoc_STRVAR(release_doc,
"release($self, /)\n--\n\n"
"Lets go of the lock, whoever took it. ValueError when it is free.");
PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\nWhether somebody has it.");
PyDoc_STRVAR(lock_doc,
"Lock(*, recover=None, ctx=None)\n--\n\n"
"What Lock does in C.");
/* clang-format on */

static PyMethodDef lock_methods[] = {
    {"acquire", PYC_KEYWORDS(pyc_lock_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", pyc_lock_release, METH_NOARGS, release_doc},
    {"locked", pyc_lock_locked, METH_NOARGS, locked_doc},
    {"__enter__", pyc_lock_enter, METH_NOARGS, NULL},
    {"__exit__", PYC_KEYWORDS(lock_exit), METH_FASTCALL, NULL},
    {"receive", PYC_KEYWORDS(lock_receive), METH_FASTCALL | METH_CLASS,
     PYC_RECEIVE_DOC},
    PYC_LOCK_METHODS,
    PYC_SHARED_METHODS,
    {NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_doc, (void *)lock_doc},
    {Py_tp_new, lock_new},
    {Py_tp_methods, lock_methods},
    PYC_SHARED_SLOTS,
    {0, NULL},
};

PyType_Spec pyc_lock_spec = {
    .name = "pyconc._ipc.Lock",
    .basicsize = sizeof(pyc_ipc_lock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = lock_slots,
};
