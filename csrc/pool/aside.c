/* SPDX-License-Identifier: MIT */
#include "pool/aside.h"

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

void
pyc_aside_begin(pyc_state *module, pyc_aside *self)
{
    self->pending = pyc_take_exception();
    self->handled = PyErr_GetHandledException();
    PyErr_SetHandledException(NULL);
    self->loop = PyObject_CallNoArgs(module->asyncio_get_running_loop);
    if (self->loop == NULL) {
        PyErr_Clear();
    }
    if (self->loop != NULL && self->loop != Py_None) {
        set_running_loop(module, Py_None);
    }
}

void
pyc_aside_end(pyc_state *module, pyc_aside *self)
{
    if (self->loop != NULL && self->loop != Py_None) {
        set_running_loop(module, self->loop);
    }
    Py_XDECREF(self->loop);
    PyErr_SetHandledException(self->handled);
    Py_XDECREF(self->handled);
    if (self->pending != NULL) {
        pyc_put_exception(self->pending);
    }
}
