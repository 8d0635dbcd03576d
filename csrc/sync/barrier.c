/* SPDX-License-Identifier: MIT */
/* threading.Barrier. Each of those who wait is told how its round ended when
 * it is woken, so that the next round begins at once. */
#include "sync/object.h"
#include "sync/sync.h"
#include "sync/wait.h"

#include "py/arguments.h"

enum { FILLING = 1, ACTING = 2, BROKEN = 4, ANY = 7 };

typedef struct {
    PYC_SYNC_HEAD
    PyObject *action;  /* NULL: none */
    PyObject *timeout; /* the default, NULL: none */
    Py_ssize_t parties;
    Py_ssize_t count; /* how many have come */
    pyc_waiters waiters;
    pyc_waiters outside; /* who came while the action was running */
    pyc_lock guard;
    int state;
} barrier;

#define SELF ((barrier *)self)

/* Where a wait is. */
enum { OUTSIDE, INSIDE, LAST };

/* The number of one that has none yet. */
#define NOT_IN (-1)

static int
is_told(const pyc_waiter *waiter)
{
    return waiter->granted || waiter->refused;
}

/* Under the guard: all who wait inside know how it ended, whenever they come to
 * look; those of the next round come after them. */
static void
tell_inside(barrier *self, pyc_verdict verdict)
{
    pyc_link *head = &self->waiters.head;
    for (pyc_link *at = head->next; at != head; at = at->next) {
        pyc_waiter *waiter = pyc_container(at, pyc_waiter, link);
        if (!is_told(waiter)) {
            waiter->granted = verdict == PYC_GRANTED;
            waiter->refused = verdict == PYC_REFUSED;
        }
    }
}

/* Under the guard: takes one out who was told. */
static pyc_wakeup
pop_told(barrier *self)
{
    pyc_waiter *first = pyc_waiters_first(&self->waiters);
    if (first == NULL || !is_told(first)) {
        return (pyc_wakeup){NULL, NULL, NULL};
    }
    return pyc_waiters_pop(&self->waiters,
                           first->granted ? PYC_GRANTED : PYC_REFUSED);
}

/* Ends the round of all who wait inside, if its state is one of `from`, bits.
 */
static void
end_round(barrier *self, pyc_verdict verdict, int state, int from)
{
    pyc_lock_take(&self->guard);
    if (!(self->state & from)) {
        pyc_lock_give(&self->guard);
        return;
    }
    Py_ssize_t inside = self->waiters.length;
    Py_ssize_t outside = self->outside.length;
    self->state = state;
    self->count = 0;
    tell_inside(self, verdict);
    pyc_lock_give(&self->guard);
    for (Py_ssize_t i = 0; i < inside + outside; i++) {
        pyc_lock_take(&self->guard);
        pyc_wakeup wakeup =
            i < inside ? pop_told(self)
                       : pyc_waiters_pop(&self->outside, PYC_TRY_AGAIN);
        pyc_lock_give(&self->guard);
        pyc_wakeup_send(&wakeup, NULL, NULL, NULL, NULL);
    }
}

static int
raise_broken(barrier *self)
{
    PyErr_SetNone(self->module->threading_BrokenBarrierError);
    return -1;
}

/* Under the guard: a wait that has not come in yet. */
static int
enter(barrier *self, pyc_wait *wait, int join)
{
    if (self->state == BROKEN) {
        wait->waiter.refused = 1;
        return 1;
    }
    if (self->state == ACTING) {
        if (join) {
            pyc_waiters_join(&self->outside, &wait->waiter);
        }
        return 0;
    }
    if (self->count + 1 == self->parties) {
        wait->number = self->count;
        wait->phase = LAST;
        self->state = ACTING;
        return 1;
    }
    if (join) {
        wait->number = self->count++;
        wait->phase = INSIDE;
        /* Whom the end of an action woke goes in front of nobody: there may be
         * those who were told, and a waiter before them would hide them. */
        atomic_store_explicit(&wait->waiter.woken, 0, memory_order_relaxed);
        pyc_waiters_join(&self->waiters, &wait->waiter);
    }
    return 0;
}

/* The last one lets all go, after the action. */
static int
trip(barrier *self)
{
    PyObject *done = self->action == NULL ? Py_NewRef(Py_None)
                                          : PyObject_CallNoArgs(self->action);
    Py_XDECREF(done);
    if (done == NULL) {
        PyObject *pending = pyc_take_exception();
        end_round(self, PYC_REFUSED, BROKEN, ACTING);
        pyc_put_exception(pending);
        return -1;
    }
    end_round(self, PYC_GRANTED, FILLING, ACTING); /* not after abort() */
    return 1;
}

static int
give_number(pyc_wait *wait)
{
    wait->result = PyLong_FromSsize_t(wait->number);
    return wait->result == NULL ? -1 : 1;
}

/* All have come, so that no deadline counts any more: waits for the action. */
static int
hear(barrier *self, pyc_wait *wait)
{
    int slept = pyc_waiter_sleep(&wait->waiter, PYC_NO_DEADLINE, 0);
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(&wait->waiter);
    pyc_lock_give(&self->guard);
    if (slept < 0) {
        return -1;
    }
    return wait->waiter.refused ? raise_broken(self) : give_number(wait);
}

static int
waiting_attempt(pyc_wait *wait, int join)
{
    barrier *self = (barrier *)wait->subject;
    pyc_waiter *waiter = &wait->waiter;
    int over;
    pyc_lock_take(&self->guard);
    int stood = pyc_waiter_leave(waiter);
    if (wait->phase == OUTSIDE) {
        over = enter(self, wait, join);
    }
    else {
        over = is_told(waiter);
        if (!over && stood && self->state == ACTING) {
            pyc_waiters_join(&self->waiters, waiter);
            pyc_lock_give(&self->guard);
            return hear(self, wait);
        }
        if (!over && stood) { /* the deadline has passed */
            self->count--;
        }
    }
    int last = wait->phase == LAST, broken = waiter->refused;
    pyc_lock_give(&self->guard);
    if (over && broken) {
        return raise_broken(self);
    }
    if (over && last && trip(self) < 0) {
        return -1;
    }
    return over ? give_number(wait) : 0;
}

static int
waiting_leave(pyc_wait *wait, int Py_UNUSED(good))
{
    barrier *self = (barrier *)wait->subject;
    pyc_lock_take(&self->guard);
    if (pyc_waiter_leave(&wait->waiter) && wait->phase == INSIDE &&
        !is_told(&wait->waiter)) {
        self->count--;
    }
    pyc_lock_give(&self->guard);
    return 0;
}

static const pyc_operation waiting = {
    .attempt = waiting_attempt,
    .leave = waiting_leave,
};

static int
entering_attempt(pyc_wait *wait, int join)
{
    barrier *self = (barrier *)wait->subject;
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(&wait->waiter);
    int may_enter = self->state != ACTING;
    if (!may_enter && join) {
        pyc_waiters_join(&self->outside, &wait->waiter);
    }
    pyc_lock_give(&self->guard);
    return may_enter;
}

/* Waits while an action is running, as a thread whose time counts from when it
 * may come in: 0, or -1 when a signal handler raised. */
static int
wait_outside(barrier *self)
{
    static const pyc_operation entering = {
        .attempt = entering_attempt,
        .leave = waiting_leave,
    };
    pyc_wait wait = {.operation = &entering,
                     .module = self->module,
                     .subject = (PyObject *)self};
    return pyc_wait_block(&wait, PYC_NO_DEADLINE) < 0 ? -1 : 0;
}

/* wait() with the timeout: 1, 0 when it has passed inside, -1 with an exception
 * set. */
static int
wait_in_time(barrier *self, PyObject *timeout, PyObject **number)
{
    pyc_wait wait = {.operation = &waiting,
                     .module = self->module,
                     .subject = (PyObject *)self,
                     .number = NOT_IN};
    int rc = 0;
    while (rc == 0 && wait.number == NOT_IN) {
        int64_t deadline;
        if ((timeout != NULL && wait_outside(self) < 0) ||
            pyc_timeout_wait(self->module, timeout, &deadline) < 0) {
            return -1;
        }
        /* It breaks the barrier, so it must come in first. */
        rc = pyc_wait_block(&wait, deadline == PYC_NO_WAIT ? 1 : deadline);
    }
    *number = wait.result;
    return rc;
}

static PyObject *
barrier_wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames)
{
    static const pyc_signature signature = {"wait", {"timeout"}};
    PyObject *timeout = NULL, *number = NULL;
    if (pyc_arguments(&signature, args, nargs, kwnames, &timeout) < 0) {
        return NULL;
    }
    if (timeout == NULL || timeout == Py_None) {
        timeout = SELF->timeout;
    }
    if (wait_in_time(SELF, timeout, &number) == 0) {
        /* A round that has been filled without us is none of ours. */
        end_round(SELF, PYC_REFUSED, BROKEN, FILLING | BROKEN);
        raise_broken(SELF);
    }
    return number;
}

static PyObject *
barrier_wait_async(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_wait wait = {
        .operation = &waiting, .module = SELF->module, .subject = self};
    return pyc_wait_async(&wait);
}

static PyObject *
barrier_reset(PyObject *self, PyObject *Py_UNUSED(unused))
{
    end_round(SELF, PYC_REFUSED, FILLING, ANY);
    Py_RETURN_NONE;
}

static PyObject *
barrier_abort(PyObject *self, PyObject *Py_UNUSED(unused))
{
    end_round(SELF, PYC_REFUSED, BROKEN, ANY);
    Py_RETURN_NONE;
}

static PyObject *
barrier_get_parties(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(SELF->parties);
}

static PyObject *
barrier_get_n_waiting(PyObject *self, void *Py_UNUSED(closure))
{
    pyc_lock_take(&SELF->guard);
    Py_ssize_t count = SELF->state == BROKEN ? 0 : SELF->count;
    pyc_lock_give(&SELF->guard);
    return PyLong_FromSsize_t(count);
}

static PyObject *
barrier_get_broken(PyObject *self, void *Py_UNUSED(closure))
{
    pyc_lock_take(&SELF->guard);
    int broken = SELF->state == BROKEN;
    pyc_lock_give(&SELF->guard);
    return PyBool_FromLong(broken);
}

static PyObject *
barrier_after_fork(PyObject *self, PyObject *Py_UNUSED(unused))
{
    pyc_lock_reset(&SELF->guard);
    pyc_waiters_init(&SELF->waiters);
    pyc_waiters_init(&SELF->outside);
    Py_RETURN_NONE;
}

static int
barrier_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"parties", "action", "timeout", NULL};
    PyObject *action = Py_None, *timeout = Py_None;
    Py_ssize_t parties;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|OO:Barrier", names,
                                     &parties, &action, &timeout)) {
        return -1;
    }
    if (parties < 1) {
        PyErr_SetString(PyExc_ValueError, "parties must be > 0");
        return -1;
    }
    SELF->parties = parties;
    int acts = PyObject_IsTrue(action);
    if (acts < 0) {
        return -1;
    }
    Py_XSETREF(SELF->action, acts ? Py_NewRef(action) : NULL);
    Py_XSETREF(SELF->timeout, timeout == Py_None ? NULL : Py_NewRef(timeout));
    return 0;
}

static PyObject *
barrier_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
            PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = pyc_sync_new(type);
    if (self != NULL) {
        SELF->parties = 1;
        SELF->state = FILLING;
        pyc_waiters_init(&SELF->waiters);
        pyc_waiters_init(&SELF->outside);
    }
    return self;
}

static int
barrier_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(SELF->action);
    Py_VISIT(SELF->timeout);
    return 0;
}

static int
barrier_clear(PyObject *self)
{
    Py_CLEAR(SELF->action);
    Py_CLEAR(SELF->timeout);
    return 0;
}

static void
barrier_dealloc(PyObject *self)
{
    pyc_sync_free(self, barrier_clear);
}

/* clang-format off */
PyDoc_STRVAR(wait_doc,
"wait($self, /, timeout=None)\n--\n\n"
"Waits until as many as the barrier has parties wait for it: the place in the\n"
"order of arrival, 0 for the first. BrokenBarrierError when the barrier is or\n"
"gets broken, which it does when timeout seconds (None: as the barrier was\n"
"made) have passed. Source: threading.Barrier.wait.");
PyDoc_STRVAR(wait_async_doc,
"wait_async($self, /)\n--\n\n"
"wait() as a coroutine of any asyncio loop. Who is cancelled has not come.");
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
    {"wait_async", barrier_wait_async, METH_NOARGS, wait_async_doc},
    {"reset", barrier_reset, METH_NOARGS, reset_doc},
    {"abort", barrier_abort, METH_NOARGS, abort_doc},
    {"_at_fork_reinit", barrier_after_fork, METH_NOARGS, NULL},
    {NULL},
};

static PyGetSetDef barrier_getset[] = {
    {"parties", barrier_get_parties, NULL, "How many have to come.", NULL},
    {"n_waiting", barrier_get_n_waiting, NULL, "How many have come.", NULL},
    {"broken", barrier_get_broken, NULL, "Whether it is broken.", NULL},
    {NULL},
};

static PyMemberDef barrier_members[] = {
    PYC_SYNC_WEAKREFS,
    {NULL},
};

static PyType_Slot barrier_slots[] = {
    {Py_tp_doc, "BarrierBase(parties, action=None, timeout=None)\n--\n\nWhat "
                "Barrier does in C."},
    {Py_tp_new, barrier_new},
    {Py_tp_init, barrier_init},
    {Py_tp_dealloc, barrier_dealloc},
    {Py_tp_traverse, barrier_traverse},
    {Py_tp_clear, barrier_clear},
    {Py_tp_methods, barrier_methods},
    {Py_tp_getset, barrier_getset},
    {Py_tp_members, barrier_members},
    {0, NULL},
};

static PyType_Spec barrier_spec = {
    .name = "pyconc._core.BarrierBase",
    .basicsize = sizeof(barrier),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = barrier_slots,
};

int
pyc_barrier_register(PyObject *module, pyc_state *state)
{
    return pyc_sync_add_type(module, &barrier_spec, "BarrierBase", NULL);
}
