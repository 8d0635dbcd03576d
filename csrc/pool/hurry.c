/* SPDX-License-Identifier: MIT */
#include "pool/hurry.h"

/* A program that saves the switch interval to put it back later may read a
 * short one. So each usual interval has a short one of its own, which says what
 * to set instead when it is found; they are numbers that no program chooses. */
#define SHORT 11 /* microseconds, one more for each in usual_intervals */

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

/* Which of the short intervals it is, or -1. */
static int
which(pyc_state *module, double seconds)
{
    int i = seconds < 1 ? (int)(seconds * 1e6 + 0.5) - SHORT : -1;
    return i >= 0 && i < PYC_USUAL_INTERVALS && module->usual_intervals[i] != 0
               ? i
               : -1;
}

static void
shorten(pyc_state *module, double seconds)
{
    double *usual = module->usual_intervals;
    int i = 0;
    while (i < PYC_USUAL_INTERVALS - 1 && usual[i] != 0 &&
           usual[i] != seconds) {
        i++;
    }
    usual[i] = seconds;
    set_interval(module, (SHORT + i + 0.5) / 1e6); /* is rounded down */
}

void
pyc_hurry_begin(pyc_state *module)
{
    if (module->hurrying) { /* somebody has begun, and will end it */
        return;
    }
    PyObject *pending = pyc_take_exception();
    double seconds = interval(module);
    int is_short = which(module, seconds) >= 0; /* put back by the program */
    if (!is_short && seconds > (SHORT + PYC_USUAL_INTERVALS) / 1e6) {
        shorten(module, seconds);
        is_short = 1;
    }
    module->hurrying = is_short;
    restore(pending);
}

void
pyc_hurry_end(pyc_state *module)
{
    if (!module->hurrying) {
        return;
    }
    PyObject *pending = pyc_take_exception();
    int i = which(module, interval(module));
    if (i >= 0) { /* or else the program has chosen another meanwhile */
        set_interval(module, module->usual_intervals[i]);
    }
    module->hurrying = 0;
    restore(pending);
}

#endif
