/* SPDX-License-Identifier: MIT */
#include "pool/hurry.h"

#define SHORT 1e-5 /* seconds */

#ifdef Py_GIL_DISABLED

void
pyc_hurry_begin(pyc_state *Py_UNUSED(module))
{
}

void
pyc_hurry_end(pyc_state *Py_UNUSED(module))
{
}

#else

/* 0 when it could not be read. */
static double
interval(pyc_state *module)
{
    PyObject *value = PyObject_CallNoArgs(module->sys_getswitchinterval);
    double seconds = value == NULL ? 0 : PyFloat_AsDouble(value);
    Py_XDECREF(value);
    return seconds;
}

static void
set_interval(pyc_state *module, double seconds)
{
    PyObject *value = PyFloat_FromDouble(seconds);
    PyObject *done =
        value == NULL
            ? NULL
            : PyObject_CallOneArg(module->sys_setswitchinterval, value);
    Py_XDECREF(value);
    Py_XDECREF(done);
}

/* What is set now is of no interest: all stays as it was. */
static void
restore(PyObject *pending)
{
    PyErr_Clear();
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
}

void
pyc_hurry_begin(pyc_state *module)
{
    if (module->switch_interval != 0) { /* somebody has, and will end it */
        return;
    }
    PyObject *pending = pyc_take_exception();
    double seconds = interval(module);
    if (seconds > SHORT) {
        set_interval(module, SHORT);
        module->switch_interval = seconds;
    }
    restore(pending);
}

void
pyc_hurry_end(pyc_state *module)
{
    if (module->switch_interval == 0) {
        return;
    }
    PyObject *pending = pyc_take_exception();
    /* Unless the program has chosen another meanwhile. */
    if (interval(module) <= SHORT) {
        set_interval(module, module->switch_interval);
    }
    module->switch_interval = 0;
    restore(pending);
}

#endif
