/* SPDX-License-Identifier: MIT */
/* multiprocessing.Barrier. It breaks when one who waits at it is killed. */
#include "ipc/barrier.h"
#include "ipc/died.h"
#include "ipc/lock.h"
#include "ipc/luck.h"
#include "ipc/round.h"

#include "py/arguments.h"

typedef struct {
    pyc_shared shared; /* extra: (action, timeout) */
    int64_t looked;    /* when others were last asked whether they are alive */
    pyc_luck luck;
} barrier;

#define SELF ((barrier *)self)
#define ROUNDS PYC_MEMORY(self, pyc_rounds)

/* Where a wait is. */
enum { INSIDE, LAST, OUTSIDE, AT_BROKEN };

static inline void
lock(PyObject *self)
{
    pyc_mutex_lock(PYC_ARENA(self), &ROUNDS->mutex);
}

static inline void
unlock(PyObject *self)
{
    pyc_mutex_unlock(&ROUNDS->mutex);
}

/* Ends the round, if it is that one and its state one of `from`, bits. */
static bool
end_round(PyObject *self, uint32_t number, unsigned from, bool broken,
          uint32_t state)
{
    lock(self);
    uint32_t word = pyc_word_look(&ROUNDS->word);
    bool ends = PYC_ROUND_NUMBER(word) == number &&
                (from >> PYC_ROUND_STATE(word) & 1) != 0;
    if (ends) {
        pyc_rounds_end(ROUNDS, broken, state);
    }
    unlock(self);
    if (ends) {
        PYC_KILL_POINT("barrier.ended");
        pyc_wake(&ROUNDS->word, INT32_MAX);
        pyc_bells_ring(pyc_ipc_of(self), PYC_ARENA(self), &ROUNDS->bells);
    }
    return ends;
}

/* Ends whatever round it is. */
static void
end_any(PyObject *self, uint32_t state)
{
    uint32_t number;
    do {
        number = PYC_ROUND_NUMBER(atomic_load(&ROUNDS->word));
    } while (!end_round(self, number, 7, true, state));
}

static int
raise_broken(PyObject *self)
{
    PyErr_SetNone(pyc_ipc_of(self)->BrokenBarrierError);
    return -1;
}

static int
come(PyObject *self, uint32_t *number, uint32_t *index)
{
    pyc_owner me = pyc_arena_me(PYC_ARENA(self));
    int where = INSIDE;
    lock(self);
    uint32_t word = pyc_word_look(&ROUNDS->word);
    *number = PYC_ROUND_NUMBER(word);
    *index = PYC_ROUND_COUNT(word);
    if (PYC_ROUND_STATE(word) != PYC_FILLING) {
        where = PYC_ROUND_STATE(word) == PYC_ACTING ? OUTSIDE : AT_BROKEN;
    }
    else if (*index + 1 >= pyc_word_look(&ROUNDS->parties)) {
        where = LAST;
        pyc_rounds_act(ROUNDS, me);
    }
    else {
        pyc_rounds_come(ROUNDS, me);
    }
    unlock(self);
    return where;
}

static PyObject *
extra_of(PyObject *self, Py_ssize_t which)
{
    PyObject *extra = SELF->shared.extra;
    return extra == NULL || !PyTuple_Check(extra) ||
                   PyTuple_GET_SIZE(extra) <= which
               ? Py_None
               : PyTuple_GET_ITEM(extra, which);
}

/* The last one lets all go, after the action: 0, or -1 with an exception. */
static int
trip(PyObject *self, uint32_t number)
{
    PyObject *action = extra_of(self, 0);
    if (action != Py_None) {
        PyObject *done = PyObject_CallNoArgs(action);
        if (done == NULL) {
            PyObject *raised = pyc_take_exception();
            end_round(self, number, 7, true, PYC_BROKEN);
            pyc_put_exception(raised);
            return -1;
        }
        Py_DECREF(done);
    }
    end_round(self, number, 1 << PYC_ACTING, false, PYC_FILLING);
    return 0;
}

/* Breaks the round when one who has come to it is dead. */
static void
look_for_dead(PyObject *self, uint32_t number)
{
    pyc_arena *arena = PYC_ARENA(self);
    pyc_owner alive = pyc_arena_me(arena);
    bool died = false;
    lock(self);
    uint32_t word = pyc_word_look(&ROUNDS->word);
    uint32_t count = PYC_ROUND_COUNT(word), known = pyc_rounds_known(ROUNDS);
    bool acts = PYC_ROUND_STATE(word) == PYC_ACTING;
    if (PYC_ROUND_NUMBER(word) == number) {
        died = acts &&
               pyc_arena_owner_is_dead(arena, pyc_word_look(&ROUNDS->actor));
        for (uint32_t at = 0; !died && !acts && at < count && at < known;
             at++) {
            pyc_owner owner = pyc_word_look(&ROUNDS->inside[at]);
            died = owner != alive && pyc_arena_owner_is_dead(arena, owner);
            alive = owner;
        }
    }
    unlock(self);
    if (died) {
        end_round(self, number, 7, true, PYC_BROKEN);
    }
}

static bool
is_over(PyObject *self, uint32_t number)
{
    return PYC_ROUND_NUMBER(atomic_load(&ROUNDS->word)) != number;
}

/* 0, or -1 with BrokenBarrierError. */
static int
verdict(PyObject *self, uint32_t number)
{
    return pyc_rounds_was_broken(ROUNDS, number) ? raise_broken(self) : 0;
}

/* One of this process's no longer waits, unless the round is over or all have
 * come: whether that is so. */
static bool
leave(PyObject *self, uint32_t number)
{
    lock(self);
    uint32_t word = pyc_word_look(&ROUNDS->word);
    bool leaves = PYC_ROUND_NUMBER(word) == number &&
                  PYC_ROUND_STATE(word) == PYC_FILLING;
    if (leaves) {
        pyc_rounds_go(ROUNDS, pyc_arena_me(PYC_ARENA(self)));
    }
    unlock(self);
    return leaves;
}

/* Sleeps until the round is over: 0, or -1 with an exception set. */
static int
wait_inside(PyObject *self, uint32_t number, int64_t deadline)
{
    pyc_luck_watch(&SELF->luck, &ROUNDS->word, atomic_load(&ROUNDS->word));
    for (;;) {
        uint32_t word = atomic_load(&ROUNDS->word);
        if (PYC_ROUND_NUMBER(word) != number) {
            return verdict(self, number);
        }
        /* All have come, so that no deadline counts any more. */
        bool all = PYC_ROUND_STATE(word) == PYC_ACTING;
        switch (
            pyc_sleep(&ROUNDS->word, word, all ? PYC_NO_DEADLINE : deadline)) {
        case PYC_INTERRUPTED:
            leave(self, number);
            return -1;
        case PYC_SLICE_OVER:
            look_for_dead(self, number);
            break;
        case PYC_TOO_LATE:
            if (end_round(self, number, 1 << PYC_FILLING, true, PYC_BROKEN)) {
                return raise_broken(self);
            }
            break;
        default:
            break;
        }
    }
}

/* Sleeps while somebody acts: 0, or -1 with an exception set. */
static int
wait_outside(PyObject *self, uint32_t number)
{
    uint32_t word;
    while (!is_over(self, number)) {
        word = atomic_load(&ROUNDS->word);
        if (PYC_ROUND_STATE(word) != PYC_ACTING) {
            break;
        }
        switch (pyc_sleep(&ROUNDS->word, word, PYC_NO_DEADLINE)) {
        case PYC_INTERRUPTED:
            return -1;
        case PYC_SLICE_OVER:
            look_for_dead(self, number);
            break;
        default:
            break;
        }
    }
    return 0;
}

static PyObject *
barrier_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames)
{
    static const pyc_signature signature = {"wait", {"timeout"}};
    PyObject *timeout = Py_None;
    uint32_t number, index;
    int64_t deadline;
    int where, rc = 0;
    if (pyc_arguments(&signature, args, nargs, kwnames, &timeout) < 0) {
        return NULL;
    }
    if (timeout == Py_None) {
        timeout = extra_of(self, 1);
    }
    while ((where = come(self, &number, &index)) == OUTSIDE) {
        if (wait_outside(self, number) < 0) {
            return NULL;
        }
    }
    if (where == AT_BROKEN) {
        rc = raise_broken(self);
    }
    else if (where == LAST) {
        rc = trip(self, number);
    }
    else if (pyc_sleep_deadline(NULL, timeout, &deadline) < 0) {
        leave(self, number);
        rc = -1;
    }
    else {
        rc = wait_inside(self, number, deadline);
    }
    return rc < 0 ? NULL : PyLong_FromUnsignedLong(index);
}

/* What a task does instead of wait(): (index, None) when it was the last,
 * (index, round) when it has to wait, None when it has to come again. */
static PyObject *
barrier_come(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    uint32_t number, index;
    switch (come(self, &number, &index)) {
    case OUTSIDE:
        look_for_dead(self, number);
        Py_RETURN_NONE;
    case AT_BROKEN:
        raise_broken(self);
        return NULL;
    case LAST:
        return trip(self, number) < 0 ? NULL
                                      : Py_BuildValue("IO", index, Py_None);
    default:
        return Py_BuildValue("II", index, number);
    }
}

static int
as_number(PyObject *given, uint32_t *number)
{
    unsigned long value = PyLong_AsUnsignedLong(given);
    *number = (uint32_t)value;
    return value == (unsigned long)-1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *
barrier_is_over(PyObject *self, PyObject *given)
{
    uint32_t number;
    if (as_number(given, &number) < 0) {
        return NULL;
    }
    if (!is_over(self, number) && pyc_owner_may_ask(&SELF->looked)) {
        look_for_dead(self, number);
    }
    if (!is_over(self, number)) {
        Py_RETURN_FALSE;
    }
    return verdict(self, number) < 0 ? NULL : Py_NewRef(Py_True);
}

static PyObject *
barrier_give_up(PyObject *self, PyObject *given)
{
    uint32_t number;
    if (as_number(given, &number) < 0) {
        return NULL;
    }
    return PyBool_FromLong(
        end_round(self, number, 1 << PYC_FILLING, true, PYC_BROKEN));
}

static PyObject *
barrier_leave(PyObject *self, PyObject *given)
{
    uint32_t number;
    return as_number(given, &number) < 0 ? NULL
                                         : PyBool_FromLong(leave(self, number));
}

static PyObject *
barrier_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(
        pyc_bells_arm(PYC_ARENA(self), &ROUNDS->bells));
}

static PyObject *
barrier_reset(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    end_any(self, PYC_FILLING);
    Py_RETURN_NONE;
}

static PyObject *
barrier_abort(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    end_any(self, PYC_BROKEN);
    Py_RETURN_NONE;
}

static PyObject *
barrier_get_parties(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(pyc_word_look(&ROUNDS->parties));
}

static PyObject *
barrier_get_n_waiting(PyObject *self, void *Py_UNUSED(closure))
{
    uint32_t word = atomic_load(&ROUNDS->word);
    bool filling = PYC_ROUND_STATE(word) == PYC_FILLING;
    return PyLong_FromUnsignedLong(filling ? PYC_ROUND_COUNT(word) : 0);
}

static PyObject *
barrier_get_broken(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(PYC_ROUND_STATE(atomic_load(&ROUNDS->word)) ==
                           PYC_BROKEN);
}

static PyObject *
barrier_get_timeout(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(extra_of(self, 1));
}

static PyObject *
barrier_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"parties", "action", "timeout", "ctx", NULL};
    PyObject *action = Py_None, *timeout = Py_None, *ctx = Py_None;
    int parties;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|OO$O:Barrier", names,
                                     &parties, &action, &timeout, &ctx)) {
        return NULL;
    }
    if (parties < 1 || parties > PYC_PARTIES_MOST) {
        PyErr_Format(PyExc_ValueError, "parties must be 1 to %d",
                     PYC_PARTIES_MOST);
        return NULL;
    }
    int known = parties < PYC_PARTIES_KNOWN ? parties : PYC_PARTIES_KNOWN;
    PyObject *self = pyc_shared_new(
        type, sizeof(pyc_rounds) + (size_t)known * sizeof(_Atomic uint32_t),
        PYC_KIND_BARRIER);
    if (self == NULL) {
        return NULL;
    }
    atomic_init(&ROUNDS->parties, (uint32_t)parties);
    SELF->shared.extra = PyTuple_Pack(2, action, timeout);
    if (SELF->shared.extra == NULL) {
        Py_CLEAR(self);
    }
    return self;
}

static PyObject *
barrier_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    return pyc_shared_receive((PyTypeObject *)type, args, nargs,
                              PYC_KIND_BARRIER);
}

/* clang-format off */
PyDoc_STRVAR(wait_doc,
"wait($self, /, timeout=None)\n--\n\n"
"Waits until as many as the barrier has parties wait for it: the place in the\n"
"order of arrival, 0 for the first. BrokenBarrierError when the barrier is or\n"
"gets broken, which it does when timeout seconds (None: as the barrier was\n"
"made) have passed, or when the process of one who waits dies.\n"
"Source: multiprocessing.Barrier.wait.");
PyDoc_STRVAR(reset_doc,
"reset($self, /)\n--\n\n"
"Empties and repairs the barrier; those who wait get BrokenBarrierError.");
PyDoc_STRVAR(abort_doc,
"abort($self, /)\n--\n\n"
"Breaks the barrier; those who wait get BrokenBarrierError.");
/* clang-format on */

static PyMethodDef barrier_methods[] = {
    {"wait", PYC_KEYWORDS(barrier_wait), METH_FASTCALL | METH_KEYWORDS,
     wait_doc},
    {"reset", barrier_reset, METH_NOARGS, reset_doc},
    {"abort", barrier_abort, METH_NOARGS, abort_doc},
    {"receive", PYC_KEYWORDS(barrier_receive), METH_FASTCALL | METH_CLASS,
     PYC_RECEIVE_DOC},
    {"_come", barrier_come, METH_NOARGS,
     "_come($self, /)\n--\n\n"
     "A task comes: (index, round), the round None when it was the last; None "
     "while\nsomebody acts for the round before."},
    {"_is_over", barrier_is_over, METH_O,
     "_is_over($self, round, /)\n--\n\nWhether all have come to that round."},
    {"_give_up", barrier_give_up, METH_O,
     "_give_up($self, round, /)\n--\n\nBreaks a round that waits still."},
    {"_leave", barrier_leave, METH_O,
     "_leave($self, round, /)\n--\n\nA task has not come after all."},
    {"arm", barrier_arm, METH_NOARGS,
     "arm($self, /)\n--\n\n"
     "Has the end of the round ring this process's bell: with which key."},
    PYC_SHARED_METHODS,
    {NULL},
};

static PyGetSetDef barrier_getset[] = {
    {"parties", barrier_get_parties, NULL, "How many have to come.", NULL},
    {"n_waiting", barrier_get_n_waiting, NULL, "How many have come.", NULL},
    {"broken", barrier_get_broken, NULL, "Whether it is broken.", NULL},
    {"_timeout", barrier_get_timeout, NULL, "Of wait(), in seconds.", NULL},
    {NULL},
};

static PyType_Slot barrier_slots[] = {
    {Py_tp_doc, "Barrier(parties, action=None, timeout=None, *, "
                "ctx=None)\n--\n\nWhat Barrier does in C."},
    {Py_tp_new, barrier_new},
    {Py_tp_methods, barrier_methods},
    {Py_tp_getset, barrier_getset},
    PYC_SHARED_SLOTS,
    {0, NULL},
};

PyType_Spec pyc_barrier_spec = {
    .name = "pyconc._ipc.Barrier",
    .basicsize = sizeof(barrier),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = barrier_slots,
};
