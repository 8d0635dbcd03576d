/* SPDX-License-Identifier: MIT */
/* ReadWriteLock: many read or one writes. Who wants to write has the word, so
 * that no new reader comes, and then waits for those who read. A reader shows
 * itself first and then looks whether the word is free: of a reader and a
 * writer who come at once, one sees the other. */
#include "ipc/rwlock.h"
#include "ipc/died.h"
#include "ipc/lock.h"
#include "ipc/slots.h"

#include "py/arguments.h"

#define READERS 900

typedef struct {
    _Atomic uint32_t word;  /* of the writer: see word.h */
    _Atomic uint32_t begun; /* who has the word may have written */
    _Atomic uint32_t leave; /* to sleep on until readers leave: slots.h */
    pyc_bells bells;
    _Atomic uint32_t readers[READERS];
} rwlock_memory;

typedef struct {
    pyc_shared shared; /* extra: what to call when a writer has died */
    int64_t looked;    /* when others were last asked whether they are alive */
    int32_t last;      /* where this process read last */
} rwlock;

#define SELF ((rwlock *)self)
#define MEMORY PYC_MEMORY(self, rwlock_memory)

/* How an attempt ends, besides the exceptions below 0. */
enum { TOO_LATE, TAKEN };
enum { FAILED = -1, INTERRUPTED = -3 };

static pyc_slots
readers(PyObject *self)
{
    return (pyc_slots){MEMORY->readers, READERS};
}

static void
wake(PyObject *self, _Atomic uint32_t *word)
{
    pyc_wake(word, INT32_MAX);
    pyc_bells_ring(pyc_ipc_of(self), PYC_ARENA(self), &MEMORY->bells);
}

static bool
free_word(PyObject *self)
{
    atomic_store(&MEMORY->begun, 0);
    uint32_t was = pyc_word_free(&MEMORY->word);
    if ((was & PYC_SLEEPERS) != 0) {
        wake(self, &MEMORY->word);
    }
    return was != 0;
}

static bool
stop_reading(PyObject *self)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(self));
    if (pyc_slots_change(readers(self), (uint32_t)pyc_load(SELF->last), me, 0) <
        0) {
        return false;
    }
    if (pyc_slots_call(&MEMORY->leave)) {
        wake(self, &MEMORY->leave);
    }
    return true;
}

static bool
try_to_read(PyObject *self)
{
    if (pyc_word_look(&MEMORY->word) != 0) {
        return false;
    }
    int32_t at = pyc_slots_take(readers(self), (uint32_t)pyc_load(SELF->last),
                                pyc_arena_me(PYC_ARENA(self)));
    if (at < 0) {
        return false;
    }
    pyc_store(SELF->last, at);
    if (atomic_load(&MEMORY->word) == 0) {
        return true;
    }
    stop_reading(self);
    return false;
}

static bool
is_read(PyObject *self)
{
    for (uint32_t at = 0; at < READERS; at++) {
        if (atomic_load(&MEMORY->readers[at]) != 0) {
            return true;
        }
    }
    return false;
}

/* Takes the word if the writer is dead: whether that is so; *died: who it was,
 * 0 when it had not begun to write. */
static bool
take_over(PyObject *self, pyc_owner *died)
{
    pyc_arena *arena = PYC_ARENA(self);
    uint32_t seen = pyc_word_look(&MEMORY->word);
    pyc_owner owner = seen & PYC_OWNER;
    if (owner == 0 || !pyc_arena_owner_is_dead(arena, owner) ||
        !pyc_word_take_over(&MEMORY->word, seen, pyc_arena_me(arena))) {
        return false;
    }
    *died = atomic_load(&MEMORY->begun) != 0 ? owner : 0;
    return true;
}

static void
bury_readers(PyObject *self)
{
    pyc_arena *arena = PYC_ARENA(self);
    pyc_owner alive = pyc_arena_me(arena);
    for (uint32_t at = 0; at < READERS; at++) {
        uint32_t owner = pyc_word_look(&MEMORY->readers[at]);
        if (owner == 0 || owner == alive) {
            continue;
        }
        if (pyc_arena_owner_is_dead(arena, owner)) {
            pyc_word_swap(&MEMORY->readers[at], owner, 0);
        }
        else {
            alive = owner;
        }
    }
}

/* Calls `recover`, while nobody else reads or writes: 1; -1 when it raised;
 * PYC_TAKEN_BUT when there is none to call. */
static int
tell(PyObject *self, pyc_owner died)
{
    PyObject *recover = SELF->shared.extra;
    if (pyc_owner_died(self, died, recover) == 0) {
        return TAKEN;
    }
    return recover == NULL ? PYC_TAKEN_BUT : FAILED;
}

/* Whether to look if somebody died, after a sleep that ended so. */
static bool
may_ask(PyObject *self, int end)
{
    return end == PYC_SLICE_OVER ||
           (end == PYC_TOO_LATE && pyc_owner_may_ask(&SELF->looked));
}

/* Sleeps until nobody reads; the caller has the word. */
static int
wait_for_readers(PyObject *self, int64_t deadline)
{
    for (;;) {
        uint32_t expected = pyc_slots_doze(&MEMORY->leave);
        if (!is_read(self)) {
            return TAKEN;
        }
        int end = pyc_sleep(&MEMORY->leave, expected, deadline);
        if (may_ask(self, end)) {
            bury_readers(self);
        }
        if (end == PYC_INTERRUPTED) {
            return FAILED;
        }
        if (end == PYC_TOO_LATE) {
            return is_read(self) ? TOO_LATE : TAKEN;
        }
    }
}

/* The caller has the word of one who had begun to write and died. Of readers
 * none but such are left who look and leave at once. */
static int
inherit(PyObject *self, pyc_owner died)
{
    if (wait_for_readers(self, PYC_NO_DEADLINE) == TAKEN) {
        return tell(self, died);
    }
    /* The next one who finds it dead is to be told. */
    atomic_store(&MEMORY->word, died | PYC_SLEEPERS);
    return INTERRUPTED;
}

/* A reader that found the writer dead writes first, for `recover`; or stays one
 * who writes, so that it can repair what is half changed. */
static int
inherit_to_read(PyObject *self, pyc_owner died)
{
    int rc = inherit(self, died);
    if (rc == TAKEN) {
        pyc_store(SELF->last, pyc_slots_take(readers(self), 0,
                                             pyc_arena_me(PYC_ARENA(self))));
    }
    if (rc == TAKEN || rc == FAILED) {
        free_word(self);
    }
    return rc;
}

/* What a reader sleeps on, and the value of it: the word, or, while there are
 * too many readers, until one leaves; NULL: try again. */
static _Atomic uint32_t *
in_the_way_of_reading(PyObject *self, uint32_t *expected)
{
    *expected = pyc_word_ask(&MEMORY->word);
    if (*expected != 0) {
        return &MEMORY->word;
    }
    if (pyc_slots_free(readers(self)) > 0) {
        return NULL;
    }
    *expected = pyc_slots_doze(&MEMORY->leave);
    return &MEMORY->leave;
}

static int
read_when_free(PyObject *self, int64_t deadline)
{
    while (!try_to_read(self)) {
        uint32_t expected;
        pyc_owner died = 0;
        _Atomic uint32_t *word = in_the_way_of_reading(self, &expected);
        if (word == NULL) {
            continue;
        }
        int end = pyc_sleep(word, expected, deadline);
        if (may_ask(self, end)) {
            if (take_over(self, &died)) {
                if (died != 0) {
                    return inherit_to_read(self, died);
                }
                free_word(self);
                continue;
            }
            if (word == &MEMORY->leave) {
                bury_readers(self);
            }
        }
        if (end == PYC_INTERRUPTED) {
            return FAILED;
        }
        if (end == PYC_TOO_LATE) {
            return try_to_read(self) ? TAKEN : TOO_LATE;
        }
    }
    return TAKEN;
}

/* Sleeps until it has the word. */
static int
wait_for_word(PyObject *self, int64_t deadline, pyc_owner *died)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(self));
    bool slept = false;
    uint32_t seen;
    while (!pyc_word_step(&MEMORY->word, me, slept, &seen)) {
        int end = pyc_sleep(&MEMORY->word, seen, deadline);
        if (may_ask(self, end) && take_over(self, died)) {
            return TAKEN;
        }
        if (end == PYC_INTERRUPTED) {
            return FAILED;
        }
        if (end == PYC_TOO_LATE) {
            return pyc_word_step(&MEMORY->word, me, true, &seen) ? TAKEN
                                                                 : TOO_LATE;
        }
        slept = true;
    }
    return TAKEN;
}

/* With the word: waits for readers, and writes. */
static int
begin_to_write(PyObject *self, pyc_owner died, int64_t deadline)
{
    int rc = died != 0 ? inherit(self, died) : wait_for_readers(self, deadline);
    if (rc == TAKEN) {
        atomic_store(&MEMORY->begun, 1);
    }
    else if (rc == FAILED || rc == TOO_LATE) {
        free_word(self);
    }
    return rc;
}

static int
write_when_free(PyObject *self, int64_t deadline)
{
    pyc_owner died = 0;
    int rc = wait_for_word(self, deadline, &died);
    return rc == TAKEN ? begin_to_write(self, died, deadline) : rc;
}

static int
deadline_of(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
            int64_t *deadline)
{
    int rc = pyc_lock_deadline(args, nargs, kwnames, deadline);
    if (*deadline == 0) {
        *deadline = 1; /* long ago */
    }
    return rc;
}

static PyObject *
result_of(int rc)
{
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
rwlock_acquire_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    int64_t deadline;
    return deadline_of(args, nargs, kwnames, &deadline) < 0
               ? NULL
               : result_of(read_when_free(self, deadline));
}

static PyObject *
rwlock_acquire_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    int64_t deadline;
    return deadline_of(args, nargs, kwnames, &deadline) < 0
               ? NULL
               : result_of(write_when_free(self, deadline));
}

static PyObject *
done(bool ok)
{
    if (!ok) {
        PyErr_SetString(PyExc_ValueError,
                        "semaphore or lock released too many times");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
rwlock_release_read(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return done(stop_reading(self));
}

static PyObject *
rwlock_release_write(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return done(free_word(self));
}

/* How a task takes it: the word first; nobody reads then. */
static PyObject *
rwlock_attempt_read(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return result_of(read_when_free(self, 1));
}

static PyObject *
rwlock_attempt_word(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    pyc_owner died = 0;
    int rc = wait_for_word(self, 1, &died);
    if (rc == TAKEN && died != 0) {
        rc = begin_to_write(self, died, PYC_NO_DEADLINE);
    }
    return result_of(rc);
}

static PyObject *
rwlock_attempt_write(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (is_read(self) && pyc_owner_may_ask(&SELF->looked)) {
        bury_readers(self);
    }
    if (is_read(self)) {
        Py_RETURN_FALSE;
    }
    atomic_store(&MEMORY->begun, 1);
    Py_RETURN_TRUE;
}

static PyObject *
rwlock_is_written(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(pyc_word_look(&MEMORY->word) != 0);
}

static PyObject *
rwlock_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t key = pyc_bells_arm(PYC_ARENA(self), &MEMORY->bells);
    pyc_word_ask(&MEMORY->word);
    pyc_slots_doze(&MEMORY->leave);
    return PyLong_FromUnsignedLongLong(key);
}

static PyObject *
rwlock_get_recover(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *recover = SELF->shared.extra;
    return Py_NewRef(recover == NULL ? Py_None : recover);
}

static PyObject *
rwlock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"recover", "ctx", NULL};
    PyObject *recover = Py_None, *ctx = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OO:ReadWriteLock", names,
                                     &recover, &ctx)) {
        return NULL;
    }
    if (recover != Py_None && !PyCallable_Check(recover)) {
        PyErr_SetString(PyExc_TypeError, "recover must be callable or None");
        return NULL;
    }
    PyObject *self =
        pyc_shared_new(type, sizeof(rwlock_memory), PYC_KIND_RWLOCK);
    if (self != NULL) {
        SELF->shared.extra = recover == Py_None ? NULL : Py_NewRef(recover);
    }
    return self;
}

static PyObject *
rwlock_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    return pyc_shared_receive((PyTypeObject *)type, args, nargs,
                              PYC_KIND_RWLOCK);
}

/* clang-format off */
PyDoc_STRVAR(acquire_read_doc,
"acquire_read($self, /, block=True, timeout=None)\n--\n\n"
"Waits until nobody writes or wants to, and reads: True, or False when block is\n"
"false or timeout seconds have passed. OwnerDied when the process that wrote has\n"
"died, unless the lock has a recover=: with the lock taken to write, so that what\n"
"is half changed can be repaired before release_write().");
PyDoc_STRVAR(acquire_write_doc,
"acquire_write($self, /, block=True, timeout=None)\n--\n\n"
"Waits until nobody reads or writes, and writes: as acquire_read(), with\n"
"OwnerDied, too.");
PyDoc_STRVAR(release_read_doc,
"release_read($self, /)\n--\n\n"
"This process reads no longer. ValueError when it does not read.");
PyDoc_STRVAR(release_write_doc,
"release_write($self, /)\n--\n\n"
"Nobody writes any longer. ValueError when nobody does.");
/* clang-format on */

static PyMethodDef rwlock_methods[] = {
    {"acquire_read", PYC_KEYWORDS(rwlock_acquire_read),
     METH_FASTCALL | METH_KEYWORDS, acquire_read_doc},
    {"acquire_write", PYC_KEYWORDS(rwlock_acquire_write),
     METH_FASTCALL | METH_KEYWORDS, acquire_write_doc},
    {"release_read", rwlock_release_read, METH_NOARGS, release_read_doc},
    {"release_write", rwlock_release_write, METH_NOARGS, release_write_doc},
    {"receive", PYC_KEYWORDS(rwlock_receive), METH_FASTCALL | METH_CLASS,
     PYC_RECEIVE_DOC},
    {"_attempt_read", rwlock_attempt_read, METH_NOARGS,
     "_attempt_read($self, /)\n--\n\nReads, if it can."},
    {"_attempt_word", rwlock_attempt_word, METH_NOARGS,
     "_attempt_word($self, /)\n--\n\n"
     "Keeps new readers and writers away, if nobody does."},
    {"_attempt_write", rwlock_attempt_write, METH_NOARGS,
     "_attempt_write($self, /)\n--\n\n"
     "Writes, if nobody reads any longer, after _attempt_word()."},
    {"_is_written", rwlock_is_written, METH_NOARGS,
     "_is_written($self, /)\n--\n\nWhether anybody writes, or wants to."},
    {"arm", rwlock_arm, METH_NOARGS,
     "arm($self, /)\n--\n\n"
     "Has who leaves ring this process's bell: with which key."},
    PYC_SHARED_METHODS,
    {NULL},
};

static PyGetSetDef rwlock_getset[] = {
    {"_recover", rwlock_get_recover, NULL, "As it was made with.", NULL},
    {NULL},
};

static PyType_Slot rwlock_slots[] = {
    {Py_tp_doc, "ReadWriteLock(*, recover=None, ctx=None)\n--\n\nWhat "
                "ReadWriteLock does in C."},
    {Py_tp_new, rwlock_new},
    {Py_tp_methods, rwlock_methods},
    {Py_tp_getset, rwlock_getset},
    PYC_SHARED_SLOTS,
    {0, NULL},
};

PyType_Spec pyc_rwlock_spec = {
    .name = "pyconc._ipc.ReadWriteLock",
    .basicsize = sizeof(rwlock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = rwlock_slots,
};
