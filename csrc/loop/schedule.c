/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "loop/cycle.h"
#include "loop/schedule.h"

/* ---- arguments --------------------------------------------------------- */

/* What call_soon and its like are to refuse, most of it in debug mode only.
 * Without a GIL a call from another thread would do harm at once. */
static int
check_call(pyc_loop *self, PyObject *callback, const char *method)
{
    if ((self->debug || PYC_FREE_THREADED) && pyc_loop_check_thread(self) < 0) {
        return -1;
    }
    return pyc_loop_check_callback(self, callback, method);
}

/* Whether the only keyword given is `context`. The names are compared once:
 * a call from the same place gives the same tuple of them. (CPython's Task
 * passes a name that is not interned.) */
static int
names_context(pyc_state *state, PyObject *kwnames)
{
    if (PYC_LIKELY(kwnames == state->kwnames_seen)) {
        return 1;
    }
    if (PyTuple_GET_SIZE(kwnames) != 1 ||
        PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), state->str_context)) {
        return 0;
    }
    PYC_BEGIN_CRITICAL_SECTION(state->kwnames_loop);
    Py_XSETREF(state->kwnames_seen, Py_NewRef(kwnames));
    PYC_END_CRITICAL_SECTION();
    return 1;
}

/* The `context` keyword of a scheduling method into *context (borrowed).
 * False for all other ways to give the arguments, right ones and wrong ones:
 * those are for pyc_loop_by_name(). */
static int
parse_context(pyc_loop *self, PyObject *const *args, Py_ssize_t nargs,
              Py_ssize_t required, PyObject *kwnames, PyObject **context)
{
    *context = NULL;
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        if (!names_context(self->state, kwnames)) {
            return 0;
        }
        *context = args[nargs];
    }
    return nargs >= required;
}

/* ---- callbacks --------------------------------------------------------- */

PyObject *
pyc_loop_call_soon_method(pyc_loop *self, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *context;
    if (PYC_UNLIKELY(!parse_context(self, args, nargs, 1, kwnames, &context))) {
        return pyc_loop_by_name(self, "_call_soon_by_name", args, nargs,
                                kwnames);
    }
    if (pyc_loop_check_usable(self) < 0 ||
        check_call(self, args[0], "call_soon") < 0) {
        return NULL;
    }
    pyc_handle *handle =
        pyc_handle_new(self, args[0], args + 1, nargs - 1, context);
    if (handle == NULL) {
        return NULL;
    }
    /* What another thread has scheduled before runs before. */
    pyc_inbox_drain(self);
    if (pyc_ring_push(&self->ready, NULL, handle) < 0) {
        Py_DECREF(handle);
        return PyErr_NoMemory();
    }
    return Py_NewRef(handle);
}

PyObject *
pyc_loop_call_soon_threadsafe(pyc_loop *self, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *context;
    if (PYC_UNLIKELY(!parse_context(self, args, nargs, 1, kwnames, &context))) {
        return pyc_loop_by_name(self, "_call_soon_threadsafe_by_name", args,
                                nargs, kwnames);
    }
    if (pyc_loop_check_usable(self) < 0 ||
        pyc_loop_check_callback(self, args[0], "call_soon_threadsafe") < 0) {
        return NULL;
    }
    pyc_handle *handle =
        pyc_handle_new(self, args[0], args + 1, nargs - 1, context);
    if (handle == NULL) {
        return NULL;
    }
    handle->threadsafe = 1;
    Py_INCREF(handle);
    if (pyc_inbox_put(self, handle) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    return (PyObject *)handle;
}

static PyObject *
schedule_at(pyc_loop *self, double when, PyObject *when_given,
            PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    if (PYC_UNLIKELY(when != when)) {
        PyErr_SetString(PyExc_ValueError,
                        "cannot schedule a callback at nan (not a number)");
        return NULL;
    }
    pyc_timer_handle *timer = (pyc_timer_handle *)pyc_timer_handle_new(
        self, args[0], args + 1, nargs - 1, context);
    if (timer == NULL) {
        return NULL;
    }
    timer->when = when;
    if (when_given != NULL && !PyFloat_CheckExact(when_given)) {
        timer->when_given = Py_NewRef(when_given);
    }
    if (pyc_timers_add(self, timer) < 0) {
        Py_DECREF(timer);
        return NULL;
    }
    return (PyObject *)timer;
}

PyObject *
pyc_loop_call_later(pyc_loop *self, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    PyObject *context;
    if (PYC_UNLIKELY(!parse_context(self, args, nargs, 2, kwnames, &context))) {
        return pyc_loop_by_name(self, "_call_later_by_name", args, nargs,
                                kwnames);
    }
    if (args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    double delay = PyFloat_AsDouble(args[0]);
    if ((delay == -1 && PyErr_Occurred()) || pyc_loop_check_usable(self) < 0 ||
        check_call(self, args[1], "call_later") < 0) {
        return NULL;
    }
    return schedule_at(self, pyc_loop_time() + delay, NULL, args + 1, nargs - 1,
                       context);
}

PyObject *
pyc_loop_call_at(pyc_loop *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    PyObject *context;
    if (PYC_UNLIKELY(!parse_context(self, args, nargs, 2, kwnames, &context))) {
        return pyc_loop_by_name(self, "_call_at_by_name", args, nargs, kwnames);
    }
    if (args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    double when = PyFloat_AsDouble(args[0]);
    if ((when == -1 && PyErr_Occurred()) || pyc_loop_check_usable(self) < 0 ||
        check_call(self, args[1], "call_at") < 0) {
        return NULL;
    }
    return schedule_at(self, when, args[0], args + 1, nargs - 1, context);
}

PyObject *
pyc_loop_get_time(pyc_loop *self, PyObject *unused)
{
    return PyFloat_FromDouble(pyc_loop_time());
}

/* ---- futures and tasks ------------------------------------------------- */

int
pyc_futures_run_begins(pyc_loop *self)
{
#if !PYC_FREE_THREADED /* other threads may call create_future() meanwhile */
    self->future_kwargs = PyDict_New();
    if (self->future_kwargs == NULL ||
        PyDict_SetItem(self->future_kwargs, self->state->str_loop,
                       (PyObject *)self) < 0) {
        return -1;
    }
#endif
    return 0;
}

PyObject *
pyc_loop_create_future(pyc_loop *self, PyObject *unused)
{
    /* The interpreter would make a dictionary of the keyword each time. */
    if (PYC_LIKELY(self->future_kwargs != NULL)) {
        PyTypeObject *type = (PyTypeObject *)self->state->asyncio_Future;
        PyObject *kwargs = Py_NewRef(self->future_kwargs);
        PyObject *future = type->tp_new(type, self->state->no_args, kwargs);
        if (PYC_LIKELY(future != NULL) &&
            type->tp_init(future, self->state->no_args, kwargs) < 0) {
            Py_CLEAR(future);
        }
        Py_DECREF(kwargs);
        return future;
    }
    PyObject *stack[] = {NULL, (PyObject *)self};
    return PyObject_Vectorcall(self->state->asyncio_Future, stack + 1,
                               PY_VECTORCALL_ARGUMENTS_OFFSET,
                               self->state->kwnames_loop);
}

/* Task(coro, loop=self, **kwargs) with the keywords of create_task(). */
static PyObject *
new_task(pyc_loop *self, PyObject *coro, PyObject *const *values,
         PyObject *kwnames)
{
    PyObject *stack[8] = {NULL, coro, (PyObject *)self};
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (count > 5) {
        PyErr_Format(PyExc_TypeError,
                     "create_task() got unexpected keyword arguments: %R",
                     kwnames);
        return NULL;
    }
    if (count == 0) {
        return PyObject_Vectorcall(self->state->asyncio_Task, stack + 1,
                                   1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                   self->state->kwnames_loop);
    }
    PyObject *names = PyTuple_New(count + 1);
    if (names == NULL) {
        return NULL;
    }
    PyTuple_SET_ITEM(names, 0, Py_NewRef(self->state->str_loop));
    for (Py_ssize_t i = 0; i < count; i++) {
        PyTuple_SET_ITEM(names, i + 1, Py_NewRef(PyTuple_GET_ITEM(kwnames, i)));
        stack[3 + i] = values[i];
    }
    PyObject *task =
        PyObject_Vectorcall(self->state->asyncio_Task, stack + 1,
                            1 | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
    Py_DECREF(names);
    return task;
}

PyObject *
pyc_loop_create_task(pyc_loop *self, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    if (nargs == 1 && self->task_factory == NULL) {
        if (pyc_loop_check_usable(self) < 0) {
            return NULL;
        }
        return new_task(self, args[0], args + nargs, kwnames);
    }
    /* What a factory is given differs by version: asyncio's loop knows. */
    return pyc_loop_by_name(self, "_create_task_by_factory", args, nargs,
                            kwnames);
}
