/* SPDX-License-Identifier: MIT */
#include "sync/interrupt.h"

static int
raise_now(void *exception)
{
    pyc_put_exception((PyObject *)exception);
    return -1;
}

/* Signal handlers run in the main thread of the main interpreter only. */
static int
handles_signals(void)
{
    return pyc_is_main_thread() &&
           PyInterpreterState_Get() == PyInterpreterState_Main();
}

void
pyc_interrupt_later(PyObject *where)
{
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_WriteUnraisable(where);
        return;
    }
    PyObject *exception = pyc_take_exception();
    if (!handles_signals()) {
        PyThreadState_SetAsyncExc(PyThread_get_thread_ident(),
                                  (PyObject *)Py_TYPE(exception));
        Py_DECREF(exception);
    }
    else if (Py_AddPendingCall(raise_now, exception) < 0) {
        pyc_put_exception(exception);
        PyErr_WriteUnraisable(where);
    }
}
