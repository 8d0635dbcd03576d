/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/sock_op.h"
#include "net/sock_poll.h"

#include <errno.h>
#include <string.h>

enum { CREATED, WAITING, ENDED };

PyObject *
pyc_sock_op_new(pyc_loop *loop, const pyc_sock_action *action, PyObject *sock,
                PyObject *data, Py_ssize_t size, const pyc_address *address)
{
    PyTypeObject *type = loop->state->sock_op_type;
    pyc_sock_op *self = (pyc_sock_op *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->action = action;
    self->loop = (pyc_loop *)Py_NewRef(loop);
    self->sock = Py_NewRef(sock);
    self->data = Py_XNewRef(data);
    self->size = size;
    self->fd = -1;
    if (address != NULL) {
        self->address = PyMem_Malloc(sizeof(*address));
        if (self->address == NULL) {
            Py_DECREF(self);
            return PyErr_NoMemory();
        }
        *self->address = *address;
    }
    return (PyObject *)self;
}

/* ---- the operation ----------------------------------------------------- */

/* The socket's descriptor now: -1 with OSError when it is closed. */
static int
descriptor(pyc_sock_op *self)
{
    PyObject *number =
        PyObject_CallMethodNoArgs(self->sock, self->loop->state->str_fileno);
    int fd = number == NULL ? -1 : pyc_as_int(number);
    Py_XDECREF(number);
    if (fd < 0 && !PyErr_Occurred()) {
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return fd;
}

static void
forget(pyc_sock_op *self)
{
    if (self->future != NULL) {
        pyc_sock_forget(self->loop, self->fd, self->action->waits_for,
                        (PyObject *)self);
    }
}

static void
end(pyc_sock_op *self)
{
    forget(self);
    self->state = ENDED;
    Py_CLEAR(self->future);
    Py_CLEAR(self->waiting);
}

static PyObject *
new_future(pyc_loop *loop)
{
    PyObject *stack[] = {NULL, (PyObject *)loop};
    return PyObject_Vectorcall(loop->state->asyncio_Future, stack + 1,
                               PY_VECTORCALL_ARGUMENTS_OFFSET,
                               loop->state->kwnames_loop);
}

static int
begin_to_wait(pyc_sock_op *self)
{
    self->future = new_future(self->loop);
    if (self->future == NULL) {
        return -1;
    }
    PyAsyncMethods *async = Py_TYPE(self->future)->tp_as_async;
    self->waiting = async->am_await(self->future);
    if (self->waiting == NULL) {
        return -1;
    }
    self->state = WAITING;
    return pyc_sock_wait(self->loop, self->fd, self->sock,
                         self->action->waits_for, (PyObject *)self, self->anew);
}

/* The attempt at the first await. */
static int
begin(pyc_sock_op *self, PyObject **result)
{
    int kind = self->action->waits_for;
    self->fd = descriptor(self);
    if (self->fd < 0) {
        return PYC_OP_FAILED;
    }
    if (!pyc_sock_may_be_ready(self->loop, self->fd, self->sock, kind)) {
        return PYC_OP_BLOCKED;
    }
    int code = self->action->attempt(self, result);
    if (code == PYC_OP_BLOCKED) {
        pyc_sock_is_drained(self->loop, self->fd, self->sock, kind);
    }
    return code;
}

static int
resolve(pyc_sock_op *self, PyObject *name, PyObject *value)
{
    /* Whoever awaits it may end this operation meanwhile. */
    PyObject *future = Py_NewRef(self->future);
    PyObject *done = PyObject_CallMethodOneArg(future, name, value);
    Py_DECREF(future);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* 1, 0, or -1 with an exception. */
static int
is_done(pyc_sock_op *self)
{
    PyObject *done =
        PyObject_CallMethodNoArgs(self->future, self->loop->state->str_done);
    int code = done == NULL ? -1 : done == Py_True;
    Py_XDECREF(done);
    return code;
}

static int
attempt_again(pyc_sock_op *self, PyObject **result)
{
    int fd = descriptor(self);
    if (fd < 0) {
        return PYC_OP_FAILED;
    }
    if (fd != self->fd) {
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
        return PYC_OP_FAILED;
    }
    int code = self->action->attempt(self, result);
    if (code == PYC_OP_BLOCKED) {
        pyc_sock_is_drained(self->loop, fd, self->sock,
                            self->action->waits_for);
    }
    return code;
}

void
pyc_sock_op_ready(PyObject *op)
{
    pyc_sock_op *self = (pyc_sock_op *)op;
    pyc_state *state = self->loop->state;
    PyObject *result = NULL;
    int code = is_done(self);
    if (code == 0) {
        code = attempt_again(self, &result);
        if (code == PYC_OP_BLOCKED) {
            return;
        }
        forget(self);
        if (code == PYC_OP_DONE) {
            code = resolve(self, state->str_set_result, result);
            Py_DECREF(result);
        }
        else {
            PyObject *error = pyc_take_exception();
            code = resolve(self, state->str_set_exception, error);
            Py_DECREF(error);
        }
    }
    else {
        forget(self); /* it was cancelled */
    }
    if (code < 0) {
        pyc_loop_report(self->loop, "Exception in a socket operation", NULL,
                        NULL);
    }
}

/* ---- the coroutine ----------------------------------------------------- */

static PySendResult
op_send(PyObject *op, PyObject *value, PyObject **result)
{
    pyc_sock_op *self = (pyc_sock_op *)op;
    *result = NULL;
    if (self->state == ENDED) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (self->state == CREATED) {
        if (value != Py_None) {
            PyErr_SetString(PyExc_TypeError, "can't send non-None value to a "
                                             "just-started coroutine");
            return PYGEN_ERROR;
        }
        self->state = ENDED;
        int code = begin(self, result);
        if (code != PYC_OP_BLOCKED) {
            return code == PYC_OP_DONE ? PYGEN_RETURN : PYGEN_ERROR;
        }
        if (begin_to_wait(self) < 0) {
            end(self);
            return PYGEN_ERROR;
        }
    }
    PySendResult sent = PyIter_Send(self->waiting, value, result);
    if (sent != PYGEN_NEXT) {
        end(self);
    }
    return sent;
}

/* A generator's way to return. */
static void
raise_stop(PyObject *value)
{
    if (value == Py_None) {
        PyErr_SetNone(PyExc_StopIteration);
        return;
    }
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
}

static PyObject *
op_next(PyObject *op)
{
    PyObject *result;
    PySendResult sent = op_send(op, Py_None, &result);
    if (sent != PYGEN_RETURN) {
        return result;
    }
    if (result != Py_None) { /* without an exception it is None */
        raise_stop(result);
    }
    Py_DECREF(result);
    return NULL;
}

PyDoc_STRVAR(send_doc, "send($self, value, /)\n--\n\n"
                       "Continue the operation. Same as coroutine.send().");

static PyObject *
op_send_method(PyObject *op, PyObject *value)
{
    PyObject *result;
    PySendResult sent = op_send(op, value, &result);
    if (sent == PYGEN_RETURN) {
        raise_stop(result);
        Py_CLEAR(result);
    }
    return result;
}

/* Raises the arguments of throw(). */
static void
raise_thrown(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *type = args[0], *value = nargs > 1 ? args[1] : Py_None;
    if (PyExceptionInstance_Check(type)) {
        PyErr_SetObject((PyObject *)Py_TYPE(type), type);
    }
    else if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value == Py_None ? NULL : value);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must be classes or instances deriving from "
                     "BaseException, not %s",
                     Py_TYPE(type)->tp_name);
    }
}

PyDoc_STRVAR(throw_doc,
             "throw($self, type, value=None, traceback=None, /)\n--\n\n"
             "End the operation with an exception. Same as\n"
             "coroutine.throw().");

static PyObject *
op_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        return PyErr_Format(PyExc_TypeError,
                            "throw() takes 1 to 3 arguments (%zd given)",
                            nargs);
    }
    end((pyc_sock_op *)op);
    raise_thrown(args, nargs);
    return NULL;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Give the operation up. Same as coroutine.close().");

static PyObject *
op_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    end((pyc_sock_op *)op);
    Py_RETURN_NONE;
}

/* ---- the object -------------------------------------------------------- */

static int
op_traverse(PyObject *op, visitproc visit, void *arg)
{
    pyc_sock_op *self = (pyc_sock_op *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->data);
    Py_VISIT(self->future);
    Py_VISIT(self->waiting);
    return 0;
}

static int
op_clear(PyObject *op)
{
    pyc_sock_op *self = (pyc_sock_op *)op;
    Py_CLEAR(self->future);
    Py_CLEAR(self->waiting);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->data);
    return 0;
}

static void
op_finalize(PyObject *op)
{
    pyc_sock_op *self = (pyc_sock_op *)op;
    if (self->state != CREATED || self->action == NULL) {
        return;
    }
    PyObject *error = PyErr_Occurred() ? pyc_take_exception() : NULL;
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                         "coroutine 'Loop.%s' was never awaited",
                         self->action->name) < 0) {
        PyErr_WriteUnraisable(op);
    }
    if (error != NULL) {
        pyc_put_exception(error);
    }
}

static void
op_dealloc(PyObject *op)
{
    pyc_sock_op *self = (pyc_sock_op *)op;
    if (self->state == CREATED && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    op_clear(op);
    Py_XDECREF(self->loop);
    PyMem_Free(self->address);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *
op_repr(PyObject *op)
{
    pyc_sock_op *self = (pyc_sock_op *)op;
    return PyUnicode_FromFormat("<coroutine object Loop.%s at %p>",
                                self->action->name, op);
}

static PyObject *
get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(((pyc_sock_op *)op)->action->name);
}

static PyObject *
get_qualname(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromFormat("Loop.%s", ((pyc_sock_op *)op)->action->name);
}

static PyObject *
get_running(PyObject *op, void *Py_UNUSED(closure))
{
    Py_RETURN_FALSE; /* nobody can look while it runs */
}

static PyObject *
get_await(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *waiting = ((pyc_sock_op *)op)->waiting;
    return Py_NewRef(waiting == NULL ? Py_None : waiting);
}

static PyGetSetDef op_getset[] = {
    {"__name__", get_name},
    {"__qualname__", get_qualname},
    {"cr_running", get_running, NULL, "Always false."},
    {"cr_await", get_await, NULL, "What it waits on, or None."},
    {NULL},
};

static PyMethodDef op_methods[] = {
    {"send", op_send_method, METH_O, send_doc},
    {"throw", (PyCFunction)(void (*)(void))op_throw, METH_FASTCALL, throw_doc},
    {"close", op_close, METH_NOARGS, close_doc},
    {NULL},
};

static PyType_Slot op_slots[] = {
    {Py_tp_doc, "What a sock_*() method returns: awaitable once."},
    {Py_tp_dealloc, op_dealloc},
    {Py_tp_finalize, op_finalize},
    {Py_tp_traverse, op_traverse},
    {Py_tp_clear, op_clear},
    {Py_tp_repr, op_repr},
    {Py_tp_methods, op_methods},
    {Py_tp_getset, op_getset},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, op_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, op_send},
    {0, NULL},
};

static PyType_Spec op_spec = {
    .name = "pyconc._core.SocketOperation",
    .basicsize = sizeof(pyc_sock_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = op_slots,
};

int
pyc_sock_op_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &op_spec, NULL, &state->sock_op_type);
}
