/* SPDX-License-Identifier: MIT */
#include "sync/mailbox.h"

#include "sync/interrupt.h"

/* What the loop calls: the letters to be delivered then. They belong to the
 * call that the loop has scheduled, and go when it drops that. */
struct pyc_mailbag {
    PyObject_HEAD
    pyc_mailbox *mailbox;
    pyc_letter *letters; /* under the mailbox's lock */
    Py_ssize_t count;
    Py_ssize_t size;
};

/* What asyncio's futures are given for an exception of concurrent.futures:
 * asyncio's own of the same name. A new reference, NULL with an exception. */
static PyObject *
convert(pyc_state *module, PyObject *exception)
{
    PyObject *type = (PyObject *)Py_TYPE(exception);
    PyObject *other = type == module->base_CancelledError
                          ? module->asyncio_CancelledError
                      : type == module->base_InvalidStateError
                          ? module->asyncio_InvalidStateError
                          : NULL;
    if (other != NULL) {
        PyObject *args = PyObject_GetAttrString(exception, "args");
        PyObject *converted =
            args == NULL ? NULL : PyObject_Call(other, args, NULL);
        Py_XDECREF(args);
        return converted;
    }
    if (!PyErr_GivenExceptionMatches(type, PyExc_StopIteration)) {
        return Py_NewRef(exception);
    }
    /* An asyncio future refuses it: it would end the awaiting coroutine. */
    PyObject *converted = PyObject_CallFunction(
        PyExc_RuntimeError, "s",
        "StopIteration interacts badly with generators and cannot be raised "
        "into a Future");
    if (converted != NULL) {
        PyException_SetCause(converted, Py_NewRef(exception));
        PyException_SetContext(converted, Py_NewRef(exception));
    }
    return converted;
}

int
pyc_mailbox_deliver(pyc_state *module, const pyc_letter *letter)
{
    PyObject *done =
        PyObject_CallMethodNoArgs(letter->future, module->str_done);
    if (done == NULL) {
        return -1;
    }
    int already = done == Py_True;
    Py_DECREF(done);
    if (already) {
        return 0;
    }
    PyObject *set = NULL;
    if (letter->outcome == PYC_CANCEL) {
        set = PyObject_CallMethodNoArgs(letter->future, module->str_cancel);
    }
    else if (letter->outcome == PYC_RESULT) {
        set = PyObject_CallMethodOneArg(letter->future, module->str_set_result,
                                        letter->value);
    }
    else {
        PyObject *exception = convert(module, letter->value);
        if (exception != NULL) {
            set = PyObject_CallMethodOneArg(
                letter->future, module->str_set_exception, exception);
            Py_DECREF(exception);
        }
    }
    Py_XDECREF(set);
    return set == NULL ? -1 : 0;
}

static void
drop(pyc_letter *letters, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_DECREF(letters[i].future);
        Py_XDECREF(letters[i].value);
    }
    PyMem_Free(letters);
}

/* Under the lock. */
static pyc_letter *
take_letters(pyc_mailbag *self, Py_ssize_t *count)
{
    pyc_letter *letters = self->letters;
    *count = self->count;
    self->letters = NULL;
    self->count = self->size = 0;
    return letters;
}

/* The letters of a bag that the loop calls: what comes from now on is to be
 * announced, in the same bag. */
static pyc_letter *
open_bag(pyc_mailbag *self, Py_ssize_t *count)
{
    pyc_mailbox *mailbox = self->mailbox;
    pyc_lock_take(&mailbox->lock);
    pyc_letter *letters = take_letters(self, count);
    if (mailbox->bag == self && mailbox->announced) {
        mailbox->announced = 0;
        Py_INCREF(self);
    }
    pyc_lock_give(&mailbox->lock);
    return letters;
}

/* An exception that is no Exception, as Ctrl-C during a letter, ends the loop
 * once the others are delivered. */
static PyObject *
mailbag_call(PyObject *op, PyObject *Py_UNUSED(args),
             PyObject *Py_UNUSED(kwargs))
{
    pyc_mailbag *self = (pyc_mailbag *)op;
    PyObject *interrupt = NULL;
    Py_ssize_t count;
    pyc_letter *letters = open_bag(self, &count);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (pyc_mailbox_deliver(self->mailbox->module, &letters[i]) == 0) {
            continue;
        }
        if (interrupt == NULL && !PyErr_ExceptionMatches(PyExc_Exception)) {
            interrupt = pyc_take_exception();
        }
        else {
            PyErr_WriteUnraisable(letters[i].future);
        }
    }
    drop(letters, count);
    if (interrupt != NULL) {
        pyc_put_exception(interrupt);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* 1, 0 or -1 with an exception set. */
static int
is_closed(pyc_state *module, PyObject *loop)
{
    PyObject *closed = PyObject_CallMethodNoArgs(loop, module->str_is_closed);
    int yes = closed == NULL ? -1 : PyObject_IsTrue(closed);
    Py_XDECREF(closed);
    return yes;
}

/* Whether the collector is taking it apart, or the module: who gives up a wait
 * then still wakes the next one. */
static int
is_cleared(pyc_mailbox *self)
{
    return self->loop == NULL || pyc_state_is_cleared(self->module);
}

/* A new reference; NULL when it is gone. */
static PyObject *
loop_of(pyc_mailbox *self)
{
    return is_cleared(self) ? NULL : pyc_weakref_get(self->loop);
}

int
pyc_mailbox_is_open(pyc_mailbox *self)
{
    PyObject *loop = loop_of(self);
    int closed = loop == NULL ? 1 : is_closed(self->module, loop);
    if (closed < 0) {
        pyc_interrupt_later(loop);
    }
    Py_XDECREF(loop);
    return closed <= 0;
}

/* Has the loop call the bag: 1, 0 when it is closed, -1 with an exception
 * set. */
static int
tell(pyc_mailbag *bag, PyObject *loop)
{
    pyc_state *module = bag->mailbox->module;
    PyObject *handle = PyObject_CallMethodOneArg(
        loop, module->str_call_soon_threadsafe, (PyObject *)bag);
    if (handle != NULL) {
        Py_DECREF(handle);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        return -1;
    }
    PyObject *refusal = pyc_take_exception();
    int closed = is_closed(module, loop);
    if (closed == 0) {
        pyc_put_exception(refusal);
        return -1;
    }
    Py_DECREF(refusal);
    return closed < 0 ? -1 : 0;
}

/* The loop could not be told: whoever puts the next letter tells it again.
 * Takes over the reference to the bag. */
static void
take_back(pyc_mailbox *self, pyc_mailbag *bag)
{
    pyc_lock_take(&self->lock);
    int ours = self->bag == bag && self->announced;
    if (ours) {
        self->announced = 0;
    }
    pyc_lock_give(&self->lock);
    if (!ours) { /* the loop has called it nevertheless */
        Py_DECREF(bag);
    }
}

/* How often a loop is told that raises: signals do not come that often. */
#define TRIES 8

/* Has the loop call the bag, and takes over the reference to it: 0 when the
 * loop is closed. Of asyncio's own loops this is Python code, in which a signal
 * handler may raise: that must not cost a letter. */
static int
announce(pyc_mailbox *self, pyc_mailbag *bag)
{
    PyObject *loop = loop_of(self);
    PyObject *raised = NULL;
    int told = loop == NULL ? 0 : tell(bag, loop);
    for (int i = 1; told < 0 && i < TRIES; i++) {
        PyObject *exception = pyc_take_exception();
        Py_XSETREF(raised, exception);
        told = tell(bag, loop);
    }
    if (told < 0) {
        pyc_interrupt_later(loop);
        take_back(self, bag);
    }
    else { /* it is the loop's now, or goes with its letters */
        Py_DECREF(bag);
    }
    if (raised != NULL) {
        pyc_put_exception(raised);
        pyc_interrupt_later(loop);
    }
    Py_XDECREF(loop);
    return told != 0;
}

/* Not under the lock: what is collected meanwhile may come here, too. */
static int
hang_bag(pyc_mailbox *self)
{
    PyTypeObject *type = self->module->mailbag_type;
    pyc_mailbag *bag = (pyc_mailbag *)type->tp_alloc(type, 0);
    if (bag == NULL) {
        return -1;
    }
    bag->mailbox = (pyc_mailbox *)Py_NewRef(self);
    pyc_lock_take(&self->lock);
    int needed = self->bag == NULL;
    if (needed) {
        self->bag = bag;
    }
    pyc_lock_give(&self->lock);
    if (!needed) {
        Py_DECREF(bag);
    }
    return 0;
}

/* Takes the lock, with a bag there: 0, or -1 without both and with an exception
 * set. */
static int
take_lock(pyc_mailbox *self)
{
    pyc_lock_take(&self->lock);
    while (self->bag == NULL) {
        pyc_lock_give(&self->lock);
        if (hang_bag(self) < 0) {
            return -1;
        }
        pyc_lock_take(&self->lock);
    }
    return 0;
}

/* Under the lock: 0, or -1 when there is no room. */
static int
add(pyc_mailbag *self, PyObject *future, pyc_outcome outcome, PyObject *value)
{
    if (self->count == self->size) {
        Py_ssize_t size = self->size == 0 ? 16 : self->size * 2;
        pyc_letter *grown =
            PyMem_Realloc(self->letters, (size_t)size * sizeof(*grown));
        if (grown == NULL) {
            return -1;
        }
        self->letters = grown;
        self->size = size;
    }
    self->letters[self->count++] =
        (pyc_letter){Py_NewRef(future), Py_XNewRef(value), outcome};
    return 0;
}

int
pyc_mailbox_put(pyc_mailbox *self, PyObject *future, pyc_outcome outcome,
                PyObject *value)
{
    if (is_cleared(self)) {
        return 0;
    }
    if (take_lock(self) < 0) {
        PyErr_WriteUnraisable(future);
        return 1;
    }
    pyc_mailbag *bag = self->bag;
    int full = add(bag, future, outcome, value) < 0;
    int first = !full && !self->announced;
    if (first) {
        self->announced = 1;
    }
    pyc_lock_give(&self->lock);
    if (full) {
        PyErr_NoMemory();
        PyErr_WriteUnraisable(future);
        return 1;
    }
    return first ? announce(self, bag) : PYC_FOLLOWS;
}

int
pyc_mailbox_serves(pyc_mailbox *self, PyObject *loop)
{
    PyObject *mine = loop_of(self);
    Py_XDECREF(mine);
    return mine == loop;
}

static pyc_mailbox *
mailbox_new(pyc_state *module, PyObject *loop)
{
    PyTypeObject *type = module->mailbox_type;
    pyc_mailbox *self = (pyc_mailbox *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->module = module;
    self->loop = PyWeakref_NewRef(loop, NULL);
    if (self->loop == NULL) {
        Py_CLEAR(self);
    }
    return self;
}

pyc_mailbox *
pyc_mailbox_of(pyc_state *module, PyObject *loop)
{
    PyObject *found =
        PyObject_CallMethodOneArg(module->mailboxes, module->str_get, loop);
    if (found == NULL || found != Py_None) {
        return (pyc_mailbox *)found;
    }
    Py_DECREF(found);
    PyObject *fresh = (PyObject *)mailbox_new(module, loop);
    if (fresh == NULL) {
        return NULL;
    }
    /* Another thread may have been quicker. */
    found = PyObject_CallMethodObjArgs(
        module->mailboxes, module->str_setdefault, loop, fresh, NULL);
    Py_DECREF(fresh);
    return (pyc_mailbox *)found;
}

static int
mailbag_traverse(PyObject *op, visitproc visit, void *arg)
{
    pyc_mailbag *self = (pyc_mailbag *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->mailbox);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_VISIT(self->letters[i].future);
        Py_VISIT(self->letters[i].value);
    }
    return 0;
}

static int
mailbag_clear(PyObject *op)
{
    pyc_mailbag *self = (pyc_mailbag *)op;
    Py_ssize_t count;
    pyc_lock_take(&self->mailbox->lock);
    pyc_letter *letters = take_letters(self, &count);
    pyc_lock_give(&self->mailbox->lock);
    drop(letters, count);
    return 0;
}

static void
mailbag_dealloc(PyObject *op)
{
    pyc_mailbag *self = (pyc_mailbag *)op;
    pyc_mailbox *mailbox = self->mailbox;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    pyc_lock_take(&mailbox->lock);
    if (mailbox->bag == self) {
        mailbox->bag = NULL;
        mailbox->announced = 0;
    }
    pyc_lock_give(&mailbox->lock);
    mailbag_clear(op);
    Py_DECREF(mailbox);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot mailbag_slots[] = {
    {Py_tp_call, mailbag_call},
    {Py_tp_traverse, mailbag_traverse},
    {Py_tp_clear, mailbag_clear},
    {Py_tp_dealloc, mailbag_dealloc},
    {0, NULL},
};

static PyType_Spec mailbag_spec = {
    .name = "pyconc._core.Mailbag",
    .basicsize = sizeof(pyc_mailbag),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = mailbag_slots,
};

static int
mailbox_traverse(PyObject *op, visitproc visit, void *arg)
{
    pyc_mailbox *self = (pyc_mailbox *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    if (!self->announced) {
        Py_VISIT(self->bag);
    }
    return 0;
}

static int
mailbox_clear(PyObject *op)
{
    pyc_mailbox *self = (pyc_mailbox *)op;
    pyc_mailbag *bag = NULL;
    pyc_lock_take(&self->lock);
    if (!self->announced) {
        bag = self->bag;
        self->bag = NULL;
    }
    pyc_lock_give(&self->lock);
    Py_XDECREF(bag);
    Py_CLEAR(self->loop);
    return 0;
}

static PyType_Slot mailbox_slots[] = {
    {Py_tp_traverse, mailbox_traverse},
    {Py_tp_clear, mailbox_clear},
    {Py_tp_dealloc, pyc_dealloc},
    {0, NULL},
};

static PyType_Spec mailbox_spec = {
    .name = "pyconc._core.Mailbox",
    .basicsize = sizeof(pyc_mailbox),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = mailbox_slots,
};

int
pyc_mailbox_register(PyObject *module, pyc_state *state)
{
    state->mailboxes = PyObject_CallNoArgs(state->weak_dict);
    if (state->mailboxes == NULL) {
        return -1;
    }
    if (pyc_add_type(module, &mailbag_spec, NULL, &state->mailbag_type) < 0) {
        return -1;
    }
    return pyc_add_type(module, &mailbox_spec, NULL, &state->mailbox_type);
}
