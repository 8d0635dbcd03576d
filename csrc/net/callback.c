/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/callback.h"

PyObject *
pyc_tell(PyObject *protocol, PyObject *context, PyObject *name, PyObject *arg)
{
    PyObject *args[2] = {Py_NewRef(protocol), arg};
    Py_INCREF(context);
    int entered = pyc_stream_enter(context);
    PyObject *result =
        PyObject_VectorcallMethod(name, args, arg == NULL ? 1 : 2, NULL);
    pyc_stream_leave(context, entered);
    Py_DECREF(args[0]);
    Py_DECREF(context);
    return result;
}

void
pyc_wake_waiter(pyc_loop *loop, PyObject *waiter)
{
    PyObject *result = PyObject_CallMethod(waiter, "cancelled", NULL);
    if (result == Py_False) {
        Py_DECREF(result);
        result = PyObject_CallMethod(waiter, "set_result", "O", Py_None);
    }
    if (result == NULL) {
        pyc_loop_report(loop, "Exception in callback set_result()", NULL, NULL);
    }
    Py_XDECREF(result);
}
