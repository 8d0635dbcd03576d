/* SPDX-License-Identifier: MIT */
#include "pool/aside.h"

#include "py/asyncio.h"

static void
set_running_loop(pyc_state *module, PyObject *loop)
{
    PyObject *done =
        PyObject_CallOneArg(module->asyncio_set_running_loop, loop);
    if (done == NULL) {
        PyErr_WriteUnraisable(loop);
    }
    Py_XDECREF(done);
}

/* The loop's current task until now, None or NULL: from 3.14 on it is the
 * thread's, too, and no other loop can run beside it. Before 3.12 there is no
 * such function, and no need of it. */
static PyObject *
swap_task(PyObject *loop, PyObject *task)
{
    PyObject *tasks = PyImport_ImportModule("asyncio.tasks");
    PyObject *before = tasks == NULL
                           ? NULL
                           : PyObject_CallMethod(tasks, "_swap_current_task",
                                                 "OO", loop, task);
    Py_XDECREF(tasks);
    if (before == NULL) {
        PyErr_Clear();
    }
    return before;
}

void
pyc_aside_begin(pyc_state *module, pyc_aside *self)
{
    self->pending = pyc_take_exception();
    self->handled = PyErr_GetHandledException();
    PyErr_SetHandledException(NULL);
    self->loop = pyc_running_loop(module);
    if (self->loop == NULL) {
        PyErr_Clear();
    }
    self->task = NULL;
    if (self->loop != NULL && self->loop != Py_None) {
        self->task = swap_task(self->loop, Py_None);
        set_running_loop(module, Py_None);
    }
}

void
pyc_aside_end(pyc_state *module, pyc_aside *self)
{
    if (self->loop != NULL && self->loop != Py_None) {
        set_running_loop(module, self->loop);
    }
    if (self->task != NULL) {
        Py_XDECREF(swap_task(self->loop, self->task));
        Py_DECREF(self->task);
    }
    Py_XDECREF(self->loop);
    PyErr_SetHandledException(self->handled);
    Py_XDECREF(self->handled);
    if (self->pending != NULL) {
        pyc_put_exception(self->pending);
    }
}
