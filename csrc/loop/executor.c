/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "loop/cycle.h"
#include "loop/executor.h"
#include "pool/bridge.h"
#include "pool/pool.h"

/* The executor to use, a new reference; NULL with RuntimeError after
 * shutdown_default_executor(). */
static PyObject *
choose(pyc_loop *self, PyObject *given)
{
    if (given != Py_None) {
        return Py_NewRef(given);
    }
    if (PYC_LIKELY(self->default_executor != NULL &&
                   !self->executor_shutdown)) {
        return Py_NewRef(self->default_executor);
    }
    return PyObject_CallMethod((PyObject *)self, "_make_default_executor",
                               NULL);
}

/* asyncio.wrap_future(executor.submit(func, *args), loop=loop) */
static PyObject *
submit_and_wrap(pyc_loop *self, PyObject *executor, PyObject *const *args,
                Py_ssize_t nargs)
{
    PyObject *wrapped = NULL;
    PyObject *submit = PyObject_GetAttrString(executor, "submit");
    if (submit == NULL) {
        return NULL;
    }
    PyObject *future = PyObject_Vectorcall(submit, args, (size_t)nargs, NULL);
    Py_DECREF(submit);
    if (future != NULL &&
        PyObject_TypeCheck(future, self->state->future_type)) {
        /* The loop is woken once for all that end meanwhile. */
        wrapped = pyc_future_wrap((pyc_future *)future, (PyObject *)self);
        Py_DECREF(future);
    }
    else if (future != NULL) {
        PyObject *stack[] = {NULL, future, (PyObject *)self};
        wrapped = PyObject_Vectorcall(
            self->state->asyncio_wrap_future, stack + 1,
            1 | PY_VECTORCALL_ARGUMENTS_OFFSET, self->state->kwnames_loop);
        Py_DECREF(future);
    }
    return wrapped;
}

PyObject *
pyc_loop_run_in_executor(pyc_loop *self, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs < 2 || kwnames != NULL) {
        return pyc_loop_by_name(self, "_run_in_executor_by_name", args, nargs,
                                kwnames);
    }
    if (pyc_loop_check_usable(self) < 0 ||
        pyc_loop_check_callback(self, args[1], "run_in_executor") < 0) {
        return NULL;
    }
    PyObject *executor = choose(self, args[0]);
    if (executor == NULL) {
        return NULL;
    }
    PyObject *future;
    if (pyc_pool_is_ours(self->state, executor)) {
        future = pyc_pool_submit_to_loop(executor, (PyObject *)self, args[1],
                                         args + 2, nargs - 2);
    }
    else {
        future = submit_and_wrap(self, executor, args + 1, nargs - 1);
    }
    Py_DECREF(executor);
    return future;
}
