/* SPDX-License-Identifier: MIT */
/* A coroutine that waits: an awaitable with the methods of a coroutine, so that
 * asyncio makes a task of it where it is given one. It tries before it asks
 * for a loop; then it sleeps in a future of the running loop's, whichever
 * loop that is. */
#include "sync/wait.h"

#include "py/asyncio.h"

enum { FRESH, ASLEEP, ELSEWHERE, ENDED };

typedef struct {
    PyObject_HEAD
    pyc_wait wait;
    PyObject *iterator; /* of the future, while asleep; or who goes on */
    PyObject *error;    /* to be raised when the attempts have ended */
    int state;
    char running; /* Python code that it calls may come back to it */
} awaitable;

static void
forget_future(awaitable *self)
{
    Py_CLEAR(self->iterator);
    Py_CLEAR(self->wait.waiter.future);
    Py_CLEAR(self->wait.waiter.mailbox);
}

/* Gives up, keeping an exception that is set: 1 when attempts must go on. */
static int
give_up(awaitable *self, int good)
{
    PyObject *pending = pyc_take_exception();
    int more = self->wait.operation->leave(&self->wait, good);
    forget_future(self);
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
    return more;
}

/* A future of the running loop for the waiter to be woken by. */
static int
make_future(awaitable *self)
{
    pyc_state *module = self->wait.module;
    pyc_waiter *waiter = &self->wait.waiter;
    forget_future(self);
    PyObject *loop = pyc_running_loop(module);
    if (loop == Py_None) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this is awaited in a running event loop");
        Py_CLEAR(loop);
    }
    if (loop != NULL) {
        waiter->mailbox = pyc_mailbox_of(module, loop);
    }
    if (waiter->mailbox != NULL) {
        waiter->future =
            PyObject_CallMethodNoArgs(loop, module->str_create_future);
    }
    Py_XDECREF(loop);
    return waiter->future == NULL ? -1 : 0;
}

/* Yields what the future yields: 1 with *yielded, 0 when it is done. */
static int
sleep_in_future(awaitable *self, PyObject **yielded)
{
    PyObject *future = self->wait.waiter.future;
    PyAsyncMethods *methods = Py_TYPE(future)->tp_as_async;
    if (methods == NULL || methods->am_await == NULL) {
        PyErr_Format(PyExc_TypeError, "the loop's future is not awaitable: %R",
                     future);
        return -1;
    }
    self->iterator = methods->am_await(future);
    if (self->iterator == NULL) {
        return -1;
    }
    switch (PyIter_Send(self->iterator, Py_None, yielded)) {
    case PYGEN_NEXT:
        self->state = ASLEEP;
        return 1;
    case PYGEN_RETURN:
        Py_CLEAR(*yielded);
        return 0;
    default:
        return -1;
    }
}

static PySendResult
fail(awaitable *self)
{
    Py_CLEAR(self->error);
    self->state = ENDED;
    return PYGEN_ERROR;
}

/* The attempts have ended well. */
static PySendResult
finish(awaitable *self, PyObject **result)
{
    self->state = ENDED;
    forget_future(self);
    *result = self->wait.result;
    self->wait.result = NULL;
    if (self->error != NULL) {
        Py_CLEAR(*result);
        pyc_put_exception(self->error);
        self->error = NULL;
        return PYGEN_ERROR;
    }
    if (*result == NULL) {
        *result = Py_NewRef(Py_True);
    }
    return PYGEN_RETURN;
}

/* One step of the coroutine that goes on in our place. */
static PySendResult
step_elsewhere(awaitable *self, PyObject **result)
{
    PySendResult rc = PyIter_Send(self->iterator, Py_None, result);
    if (rc != PYGEN_NEXT) {
        self->state = ENDED;
        Py_CLEAR(self->iterator);
    }
    return rc;
}

static PySendResult
go_elsewhere(awaitable *self, PyObject **result)
{
    pyc_wait *wait = &self->wait;
    forget_future(self);
    PyObject *name = PyUnicode_FromString(wait->operation->elsewhere);
    if (name != NULL) {
        self->iterator =
            PyObject_CallMethodObjArgs(wait->subject, name, wait->item, NULL);
        Py_DECREF(name);
    }
    if (self->iterator == NULL) {
        return fail(self);
    }
    self->state = ELSEWHERE;
    return step_elsewhere(self, result);
}

/* Attempts until it is done or asleep. */
static PySendResult
advance(awaitable *self, PyObject **result)
{
    const pyc_operation *operation = self->wait.operation;
    int rc = operation->attempt(&self->wait, 0);
    while (rc == 0) {
        if (make_future(self) < 0) {
            give_up(self, 1);
            return fail(self);
        }
        rc = operation->attempt(&self->wait, 1);
        if (rc == 0) {
            int yields = sleep_in_future(self, result);
            if (yields > 0) {
                return PYGEN_NEXT;
            }
            if (yields < 0) {
                give_up(self, 1);
                return fail(self);
            }
        }
    }
    if (rc < 0) {
        forget_future(self);
        return fail(self);
    }
    return rc == PYC_OPEN ? go_elsewhere(self, result) : finish(self, result);
}

/* It is asked for by the task that called the method, although another one may
 * await it: asyncio's wait_for() makes one up to Python 3.11, as gather() and
 * others do. Outside of tasks, by who awaits it. */
static void
name_asker(pyc_wait *wait)
{
    if (wait->task != NULL) {
        return;
    }
    wait->who = PyThread_get_thread_ident();
    if (wait->operation->by_task) {
        wait->task = pyc_current_task(wait->module);
        if (wait->task != NULL) {
            wait->who = (uintptr_t)wait->task;
        }
    }
}

/* An exception that came to the sleeper. */
static PySendResult
interrupt(awaitable *self, PyObject **result)
{
    if (!give_up(self, 0)) {
        return fail(self);
    }
    Py_XSETREF(self->error, pyc_take_exception());
    return advance(self, result);
}

/* As of a coroutine: 0, or -1 with ValueError when it is running. */
static int
enter(awaitable *self)
{
    if (self->running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    self->running = 1;
    return 0;
}

static PySendResult
go_on(awaitable *self, PyObject **result)
{
    if (self->state == ENDED) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (self->state == FRESH) {
        name_asker(&self->wait);
        return advance(self, result);
    }
    if (self->state == ELSEWHERE) {
        return step_elsewhere(self, result);
    }
    switch (PyIter_Send(self->iterator, Py_None, result)) {
    case PYGEN_NEXT:
        return PYGEN_NEXT;
    case PYGEN_RETURN:
        Py_CLEAR(*result);
        return advance(self, result);
    default:
        return interrupt(self, result);
    }
}

static PySendResult
awaitable_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    awaitable *self = (awaitable *)op;
    *result = NULL;
    if (enter(self) < 0) {
        return PYGEN_ERROR;
    }
    PySendResult rc = go_on(self, result);
    self->running = 0;
    return rc;
}

/* What a generator's method returns: StopIteration carries the result. */
static PyObject *
as_iterator(PySendResult rc, PyObject *result)
{
    if (rc == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_DECREF(result);
        if (stop != NULL) {
            pyc_put_exception(stop);
        }
        return NULL;
    }
    return result;
}

static PyObject *
awaitable_next(PyObject *op)
{
    PyObject *result;
    PySendResult rc = awaitable_am_send(op, Py_None, &result);
    if (rc == PYGEN_RETURN && !PyTuple_Check(result) &&
        !PyExceptionInstance_Check(result)) {
        if (result != Py_None) {
            PyErr_SetObject(PyExc_StopIteration, result);
        }
        Py_DECREF(result);
        return NULL;
    }
    return as_iterator(rc, result);
}

static PyObject *
awaitable_send(PyObject *op, PyObject *value)
{
    PyObject *result;
    PySendResult rc = awaitable_am_send(op, value, &result);
    return as_iterator(rc, result);
}

/* Raises throw(type[, value[, traceback]]). */
static int
set_thrown(PyObject *type, PyObject *value, PyObject *traceback)
{
    if (PyExceptionInstance_Check(type)) {
        value = type;
        type = (PyObject *)Py_TYPE(value);
    }
    if (!PyExceptionClass_Check(type)) {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must be classes or instances deriving from "
                     "BaseException, not %s",
                     Py_TYPE(type)->tp_name);
        return -1;
    }
    if (traceback == Py_None) {
        traceback = NULL;
    }
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), Py_XNewRef(traceback));
    return 0;
}

static PyObject *
throw_elsewhere(awaitable *self, PyObject *args)
{
    PyObject *throw = PyObject_GetAttrString(self->iterator, "throw");
    PyObject *result = throw == NULL ? NULL : PyObject_CallObject(throw, args);
    Py_XDECREF(throw);
    if (result == NULL) {
        self->state = ENDED;
        Py_CLEAR(self->iterator);
    }
    return result;
}

static PyObject *
throw(awaitable *self, PyObject *args)
{
    PyObject *type, *value = NULL, *traceback = NULL, *result = NULL;
    if (self->state == ELSEWHERE) {
        return throw_elsewhere(self, args);
    }
    if (!PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback) ||
        set_thrown(type, value, traceback) < 0) {
        return NULL;
    }
    if (self->state != ASLEEP) {
        self->state = ENDED;
        return NULL;
    }
    PySendResult rc = interrupt(self, &result);
    return as_iterator(rc, result);
}

static PyObject *
awaitable_throw(PyObject *op, PyObject *args)
{
    awaitable *self = (awaitable *)op;
    if (enter(self) < 0) {
        return NULL;
    }
    PyObject *result = throw(self, args);
    self->running = 0;
    return result;
}

static void
end(awaitable *self)
{
    if (self->state == ASLEEP) {
        give_up(self, 1);
    }
    self->state = ENDED;
}

static PyObject *
awaitable_close(PyObject *op, PyObject *Py_UNUSED(unused))
{
    awaitable *self = (awaitable *)op;
    PyObject *closed = Py_None;
    if (enter(self) < 0) {
        return NULL;
    }
    if (self->state == ELSEWHERE) {
        self->state = ENDED;
        closed = PyObject_CallMethod(self->iterator, "close", NULL);
        Py_CLEAR(self->iterator);
    }
    else {
        end(self);
        Py_INCREF(closed);
    }
    self->running = 0;
    return closed;
}

PyObject *
pyc_wait_async(const pyc_wait *template)
{
    PyTypeObject *type = template->module->awaitable_type;
    awaitable *self = (awaitable *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->wait = *template;
        self->wait.waiter = (pyc_waiter){0};
        pyc_link_init(&self->wait.waiter.link);
        Py_XINCREF(self->wait.subject);
        Py_XINCREF(self->wait.item);
        name_asker(&self->wait);
    }
    return (PyObject *)self;
}

static int
none_attempt(pyc_wait *wait, int Py_UNUSED(join))
{
    wait->result = Py_NewRef(Py_None);
    return 1;
}

PyObject *
pyc_wait_none(pyc_state *module, int ok)
{
    static const pyc_operation none = {.attempt = none_attempt};
    pyc_wait wait = {.operation = &none, .module = module};
    return ok ? pyc_wait_async(&wait) : NULL;
}

PyObject *
pyc_current_task(pyc_state *module)
{
    PyObject *pending = pyc_take_exception();
    PyObject *task = NULL;
    PyObject *loop = pyc_running_loop(module);
    if (loop != NULL && loop != Py_None) {
        task = PyObject_CallOneArg(module->asyncio_current_task, loop);
    }
    Py_XDECREF(loop);
    if (task == Py_None) {
        Py_CLEAR(task);
    }
    PyErr_Clear();
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
    return task;
}

static int
awaitable_traverse(PyObject *op, visitproc visit, void *arg)
{
    awaitable *self = (awaitable *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->wait.subject);
    Py_VISIT(self->wait.task);
    Py_VISIT(self->wait.result);
    Py_VISIT(self->wait.item);
    Py_VISIT(self->wait.waiter.future);
    Py_VISIT(self->wait.waiter.mailbox);
    Py_VISIT(self->iterator);
    Py_VISIT(self->error);
    return 0;
}

static int
awaitable_clear(PyObject *op)
{
    awaitable *self = (awaitable *)op;
    end(self);
    forget_future(self);
    Py_CLEAR(self->wait.subject);
    Py_CLEAR(self->wait.task);
    Py_CLEAR(self->wait.result);
    Py_CLEAR(self->wait.item);
    Py_CLEAR(self->error);
    return 0;
}

static void
awaitable_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    awaitable_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef awaitable_methods[] = {
    {"send", awaitable_send, METH_O, NULL},
    {"throw", awaitable_throw, METH_VARARGS, NULL},
    {"close", awaitable_close, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot awaitable_slots[] = {
    {Py_tp_doc, "What an ..._async() method returns: await it, once."},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, awaitable_am_send},
    {Py_tp_iternext, awaitable_next},
    {Py_tp_methods, awaitable_methods},
    {Py_tp_traverse, awaitable_traverse},
    {Py_tp_clear, awaitable_clear},
    {Py_tp_dealloc, awaitable_dealloc},
    {0, NULL},
};

static PyType_Spec awaitable_spec = {
    .name = "pyconc._core.Wait",
    .basicsize = sizeof(awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaitable_slots,
};

int
pyc_awaitable_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &awaitable_spec, NULL, &state->awaitable_type);
}
