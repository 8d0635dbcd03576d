/* SPDX-License-Identifier: MIT */
#include "sync/interrupt.h"

static int
raise_now(void *exception)
{
    pyc_put_exception((PyObject *)exception);
    return -1;
}

void
pyc_interrupt_later(PyObject *where)
{
    /* Signal handlers run in the main thread of the main interpreter only. */
    if (!PyErr_ExceptionMatches(PyExc_Exception) &&
        PyInterpreterState_Get() == PyInterpreterState_Main()) {
        PyObject *exception = pyc_take_exception();
        if (Py_AddPendingCall(raise_now, exception) == 0) {
            return;
        }
        pyc_put_exception(exception);
    }
    PyErr_WriteUnraisable(where);
}
