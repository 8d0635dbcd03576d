/* SPDX-License-Identifier: MIT */
/* multiprocessing.Semaphore and BoundedSemaphore. One with owners gets back the
 * units of a process that died. */
#include "ipc/bell.h"
#include "ipc/count.h"
#include "ipc/died.h"
#include "ipc/luck.h"
#include "ipc/semaphore.h"
#include "ipc/slots.h"

#include "py/arguments.h"

typedef struct {
    pyc_bells bells;
    _Atomic uint32_t word; /* see count.h; with owners: slots.h */
    uint32_t most;         /* units there may be */
    uint32_t owners;       /* units whose owner is known, 0: none */
    _Atomic uint32_t units[];
} semaphore_memory;

#define MOST_OWNERS 960

typedef struct {
    pyc_shared shared; /* extra: what to call when an owner has died */
    int64_t looked;    /* when owners were last asked whether they are alive */
    int32_t last;      /* the unit taken last: where to look first */
    pyc_luck luck;
} semaphore;

#define SELF ((semaphore *)self)
#define MEMORY PYC_MEMORY(self, semaphore_memory)

static inline pyc_slots
slots_of(semaphore_memory *memory)
{
    /* The memory is shared: no more than was made, whatever it says. */
    uint32_t count =
        memory->owners < MOST_OWNERS ? memory->owners : MOST_OWNERS;
    return (pyc_slots){memory->units, count};
}

static inline bool
has_owners(semaphore_memory *memory)
{
    return memory->owners != 0;
}

static inline uint32_t
hint(PyObject *self)
{
    return (uint32_t)pyc_load(SELF->last);
}

static inline bool
take_owned(PyObject *self)
{
    int32_t at = pyc_slots_take(slots_of(MEMORY), hint(self),
                                pyc_arena_me(PYC_ARENA(self)));
    if (at < 0) {
        return false;
    }
    pyc_store(SELF->last, at);
    return true;
}

static void
wake(PyObject *self)
{
    pyc_wake(&MEMORY->word, 1);
    pyc_bells_ring(pyc_ipc_of(self), PYC_ARENA(self), &MEMORY->bells);
}

/* One who has slept, or gives up after it: others may sleep still, and only one
 * was woken. */
static void
care_for_others(PyObject *self)
{
    pyc_slots_doze(&MEMORY->word);
    if (pyc_slots_free(slots_of(MEMORY)) > 0 && pyc_slots_call(&MEMORY->word)) {
        wake(self);
    }
}

static bool
take(PyObject *self, bool slept)
{
    bool pass_on = false;
    if (has_owners(MEMORY)) {
        if (!take_owned(self)) {
            return false;
        }
        if (slept) {
            care_for_others(self);
        }
        return true;
    }
    if (!pyc_count_take(&MEMORY->word, slept, &pass_on)) {
        return false;
    }
    if (pass_on) {
        pyc_wake(&MEMORY->word, 1);
    }
    return true;
}

/* What to sleep on. */
static uint32_t
doze(PyObject *self)
{
    if (has_owners(MEMORY)) {
        return pyc_slots_doze(&MEMORY->word);
    }
    pyc_count_doze(&MEMORY->word);
    return PYC_SLEEPERS;
}

static void
give_up(PyObject *self)
{
    if (has_owners(MEMORY)) {
        care_for_others(self);
    }
    else if (pyc_count_leave(&MEMORY->word)) {
        pyc_wake(&MEMORY->word, 1);
    }
}

/* Takes a unit of a dead process: who that was, else 0. Unless somebody is to
 * be told of each, the others become free. */
static pyc_owner
take_over(PyObject *self)
{
    pyc_arena *arena = PYC_ARENA(self);
    pyc_owner me = pyc_arena_me(arena), alive = me, died = 0;
    pyc_slots slots = slots_of(MEMORY);
    for (uint32_t at = 0; at < slots.count; at++) {
        uint32_t owner = pyc_word_look(&slots.units[at]);
        if (owner == 0 || owner == PYC_ABSENT || owner == alive) {
            continue;
        }
        if (owner != died && !pyc_arena_owner_is_dead(arena, owner)) {
            alive = owner;
        }
        else if (died == 0) {
            if (pyc_word_swap(&slots.units[at], owner, me)) {
                pyc_store(SELF->last, (int32_t)at);
                died = owner;
            }
        }
        else if (SELF->shared.extra == NULL &&
                 pyc_word_swap(&slots.units[at], owner, 0)) {
            wake(self);
        }
    }
    return died;
}

/* Another process may give one back in a moment. */
static bool
spin(PyObject *self)
{
    if (!has_owners(MEMORY)) {
        uint32_t now = pyc_word_look(&MEMORY->word);
        return ((now & PYC_COUNT_MOST) != 0 ||
                pyc_luck_watch(&SELF->luck, &MEMORY->word, now)) &&
               take(self, (now & PYC_SLEEPERS) != 0);
    }
    for (int pauses = 1; pauses <= PYC_PAUSES; pauses *= 2) {
        pyc_pause(pauses);
        if (take(self, false)) {
            return true;
        }
    }
    return false;
}

/* 1: taken; 0: too late; -1: an exception of a signal's handler. */
static int
sleep_for_one(PyObject *self, int64_t deadline, pyc_owner *died)
{
    bool slept = false;
    for (;;) {
        uint32_t expected = doze(self);
        if (take(self, slept)) {
            return 1;
        }
        int end = pyc_sleep(&MEMORY->word, expected, deadline);
        if (end == PYC_INTERRUPTED) {
            give_up(self);
            return -1;
        }
        if (end == PYC_SLICE_OVER ||
            (end == PYC_TOO_LATE && pyc_owner_may_ask(&SELF->looked))) {
            *died = take_over(self);
            if (*died != 0) {
                return 1;
            }
        }
        if (end == PYC_TOO_LATE) {
            if (take(self, true)) {
                return 1;
            }
            give_up(self);
            return 0;
        }
        slept = true;
    }
}

static bool
give(PyObject *self)
{
    bool sleepers = false;
    if (has_owners(MEMORY)) {
        if (pyc_slots_give(slots_of(MEMORY), hint(self),
                           pyc_arena_me(PYC_ARENA(self))) < 0) {
            return false;
        }
        sleepers = pyc_slots_call(&MEMORY->word);
    }
    else if (!pyc_count_give(&MEMORY->word, MEMORY->most, &sleepers)) {
        return false;
    }
    if (PYC_UNLIKELY(sleepers)) {
        wake(self);
    }
    return true;
}

static int
wait_for_one(PyObject *self, int64_t deadline)
{
    pyc_owner died = 0;
    int taken = 0;
    if (deadline != 0) {
        taken = spin(self) ? 1 : sleep_for_one(self, deadline, &died);
    }
    else if (take(self, false)) {
        taken = 1;
    }
    else if (has_owners(MEMORY) && pyc_owner_may_ask(&SELF->looked)) {
        died = take_over(self);
        taken = died != 0;
    }
    if (died != 0 && SELF->shared.extra != NULL &&
        pyc_owner_died(self, died, SELF->shared.extra) < 0) {
        give(self);
        return -1;
    }
    return taken;
}

static PyObject *
semaphore_acquire(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    static const pyc_signature signature = {"acquire", {"block", "timeout"}};
    PyObject *given[2] = {NULL, NULL};
    int64_t deadline = PYC_NO_DEADLINE;
    if (PYC_UNLIKELY(nargs > 0 || kwnames != NULL) &&
        (pyc_arguments(&signature, args, nargs, kwnames, given) < 0 ||
         pyc_sleep_deadline(given[0], given[1], &deadline) < 0)) {
        return NULL;
    }
    if (PYC_LIKELY(take(self, false))) {
        Py_RETURN_TRUE;
    }
    int taken = wait_for_one(self, deadline);
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

static PyObject *
semaphore_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return semaphore_acquire(self, NULL, 0, NULL);
}

static PyObject *
semaphore_attempt(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    int taken;
    /* When there was a unit as arm() asked, and it was taken since, nobody
     * would ring. With owners somebody would. */
    do {
        taken = wait_for_one(self, 0);
    } while (taken == 0 && !has_owners(MEMORY) &&
             pyc_count_leave(&MEMORY->word));
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

static PyObject *
semaphore_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (PYC_UNLIKELY(!give(self))) {
        PyErr_SetString(PyExc_ValueError,
                        "semaphore or lock released too many times");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
semaphore_exit(PyObject *self, PyObject *const *Py_UNUSED(args),
               Py_ssize_t Py_UNUSED(nargs))
{
    return semaphore_release(self, NULL);
}

static uint32_t
value_of(PyObject *self)
{
    return has_owners(MEMORY) ? pyc_slots_free(slots_of(MEMORY))
                              : pyc_count_value(&MEMORY->word);
}

static PyObject *
semaphore_get_value(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLong(value_of(self));
}

static PyObject *
semaphore_locked(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(value_of(self) == 0);
}

static PyObject *
semaphore_most(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(MEMORY->most);
}

static PyObject *
semaphore_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t key = pyc_bells_arm(PYC_ARENA(self), &MEMORY->bells);
    doze(self);
    return PyLong_FromUnsignedLongLong(key);
}

/* value units, at most `most` of them, with an owner each if `owners`. */
static PyObject *
make(PyTypeObject *type, uint32_t value, uint32_t most, uint32_t owners)
{
    PyObject *self = pyc_shared_new(
        type, sizeof(semaphore_memory) + owners * sizeof(_Atomic uint32_t),
        PYC_KIND_SEMAPHORE);
    if (self != NULL) {
        MEMORY->most = most;
        MEMORY->owners = owners;
        for (uint32_t at = value; at < owners; at++) {
            atomic_init(&MEMORY->units[at], PYC_ABSENT);
        }
        atomic_init(&MEMORY->word, owners == 0 ? value : 0);
    }
    return self;
}

static int
check(long long value, PyObject *recover)
{
    if (value < 0 || value > PYC_COUNT_MOST) {
        PyErr_SetString(PyExc_ValueError,
                        value < 0 ? "semaphore initial value must be >= 0"
                                  : "semaphore initial value is too large");
        return -1;
    }
    if (recover == Py_None) {
        return 0;
    }
    if (!PyCallable_Check(recover)) {
        PyErr_SetString(PyExc_TypeError, "recover must be callable or None");
        return -1;
    }
    if (value > MOST_OWNERS) {
        PyErr_Format(PyExc_ValueError,
                     "the owners of more than %d units cannot be kept",
                     MOST_OWNERS);
        return -1;
    }
    return 0;
}

static PyObject *
semaphore_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"value", "bounded", "recover", NULL};
    long long value = 1;
    int bounded = 0;
    PyObject *recover = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|LpO:Semaphore", names,
                                     &value, &bounded, &recover) ||
        check(value, recover) < 0) {
        return NULL;
    }
    uint32_t most = bounded ? (uint32_t)value : PYC_COUNT_MOST, owners = 0;
    if (bounded) {
        owners = value <= MOST_OWNERS ? (uint32_t)value : 0;
    }
    else if (recover != Py_None) {
        owners = most = MOST_OWNERS;
    }
    PyObject *self = make(type, (uint32_t)value, most, owners);
    if (self != NULL) {
        SELF->shared.extra = recover == Py_None ? NULL : Py_NewRef(recover);
    }
    return self;
}

static PyObject *
semaphore_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    return pyc_shared_receive((PyTypeObject *)type, args, nargs,
                              PYC_KIND_SEMAPHORE);
}

/* clang-format off */
PyDoc_STRVAR(acquire_doc,
"acquire($self, /, block=True, timeout=None)\n--\n\n"
"Takes a unit: True, or False when there is none and block is false or timeout\n"
"seconds have passed (None: waits for ever).\n"
"Source: multiprocessing.Semaphore.acquire.");
PyDoc_STRVAR(release_doc,
"release($self, /)\n--\n\n"
"Gives a unit back. ValueError when there are as many as there may be.");
PyDoc_STRVAR(get_value_doc,
"get_value($self, /)\n--\n\nHow many units are free.");
PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\nWhether no unit is free.");
PyDoc_STRVAR(semaphore_doc,
"Semaphore(value=1, bounded=False, recover=None)\n--\n\n"
"What Semaphore and BoundedSemaphore do in C.");
/* clang-format on */

static PyMethodDef semaphore_methods[] = {
    {"acquire", PYC_KEYWORDS(semaphore_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", semaphore_release, METH_NOARGS, release_doc},
    {"get_value", semaphore_get_value, METH_NOARGS, get_value_doc},
    {"locked", semaphore_locked, METH_NOARGS, locked_doc},
    {"__enter__", semaphore_enter, METH_NOARGS, NULL},
    {"__exit__", PYC_KEYWORDS(semaphore_exit), METH_FASTCALL, NULL},
    {"receive", PYC_KEYWORDS(semaphore_receive), METH_FASTCALL | METH_CLASS,
     PYC_RECEIVE_DOC},
    {"_attempt", semaphore_attempt, METH_NOARGS,
     "_attempt($self, /)\n--\n\nTakes a unit, if it can."},
    {"arm", semaphore_arm, METH_NOARGS,
     "arm($self, /)\n--\n\n"
     "Has the next unit ring this process's bell: with which key."},
    PYC_SHARED_METHODS,
    {NULL},
};

static PyGetSetDef semaphore_getset[] = {
    {"_most", semaphore_most, NULL, "How many units there may be.", NULL},
    {NULL},
};

static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, (void *)semaphore_doc},
    {Py_tp_new, semaphore_new},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_getset, semaphore_getset},
    PYC_SHARED_SLOTS,
    {0, NULL},
};

PyType_Spec pyc_semaphore_spec = {
    .name = "pyconc._ipc.Semaphore",
    .basicsize = sizeof(semaphore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = semaphore_slots,
};
