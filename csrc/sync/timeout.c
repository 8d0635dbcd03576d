/* SPDX-License-Identifier: MIT */
#include "sync/timeout.h"

#include "py/arguments.h"

#include <math.h>

#define MOST 9223372036.0 /* threading.TIMEOUT_MAX */

static int64_t
after(double seconds)
{
    int64_t delay = seconds > 0 ? (int64_t)ceil(seconds * 1e9) : 0;
    int64_t now = pyc_clock_now();
    return delay == 0
               ? PYC_NO_WAIT
               : (delay > INT64_MAX - 1 - now ? INT64_MAX - 1 : now + delay);
}

/* Not a number is no time at all or, in the latest releases, a ValueError:
 * threading knows. */
static int
refuse_nan(pyc_state *module, PyObject *nan)
{
    PyObject *waited = NULL, *taken = NULL;
    PyObject *condition = PyObject_CallNoArgs(module->threading_Condition);
    if (condition != NULL) {
        taken = PyObject_CallMethodNoArgs(condition, module->str_acquire);
    }
    if (taken != NULL) {
        waited = PyObject_CallMethod(condition, "wait", "O", nan);
    }
    Py_XDECREF(waited);
    Py_XDECREF(taken);
    Py_XDECREF(condition);
    return waited == NULL ? -1 : 0;
}

/* The deadline may be PYC_TOO_LONG. */
static int
parse(pyc_state *module, PyObject *timeout, int64_t *deadline)
{
    *deadline = PYC_NO_DEADLINE;
    if (timeout == NULL || timeout == Py_None) {
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds) && refuse_nan(module, timeout) < 0) {
        return -1;
    }
    *deadline = seconds > MOST ? PYC_TOO_LONG : after(seconds);
    return 0;
}

int
pyc_timeout_wait(pyc_state *module, PyObject *timeout, int64_t *deadline)
{
    if (parse(module, timeout, deadline) < 0) {
        return -1;
    }
    if (*deadline == PYC_TOO_LONG) {
        PyErr_Format(PyExc_OverflowError,
                     "timeout value is too large: %R seconds", timeout);
        return -1;
    }
    return 0;
}

/* Has the standard lock look at the arguments. */
static int
ask_lock(pyc_state *module, int blocking, PyObject *timeout)
{
    PyObject *taken = NULL;
    PyObject *lock = PyObject_CallNoArgs(module->threading_allocate_lock);
    if (lock != NULL) {
        taken = PyObject_CallMethod(lock, "acquire", "iO", blocking, timeout);
        Py_DECREF(lock);
    }
    Py_XDECREF(taken);
    return taken == NULL ? -1 : 0;
}

/* Seconds; not a number where only the standard lock knows. */
static double
seconds_of(PyObject *timeout)
{
    if (!PyFloat_Check(timeout) && !PyLong_Check(timeout)) {
        return NAN;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return NAN;
    }
    return seconds;
}

int
pyc_timeout_acquire(pyc_state *module, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames, int64_t *deadline)
{
    static const pyc_signature signature = {"acquire", {"blocking", "timeout"}};
    PyObject *given[2] = {NULL, NULL};
    if (pyc_arguments(&signature, args, nargs, kwnames, given) < 0) {
        return -1;
    }
    PyObject *blocking = given[0], *timeout = given[1];
    int blocks = blocking == NULL ? 1 : PyObject_IsTrue(blocking);
    if (blocks < 0) {
        return -1;
    }
    *deadline = blocks ? PYC_NO_DEADLINE : PYC_NO_WAIT;
    if (timeout == NULL) {
        return 0;
    }
    double seconds = seconds_of(timeout);
    if (seconds == -1.0) {
        return 0;
    }
    if (!blocks || !(seconds >= 0 && seconds <= MOST)) {
        if (ask_lock(module, blocks, timeout) < 0) {
            return -1;
        }
        seconds = PyFloat_AsDouble(timeout); /* a number of another type */
        if (seconds == -1.0 && PyErr_Occurred()) {
            return -1;
        }
    }
    *deadline = after(seconds);
    return 0;
}

int
pyc_timeout_queue(pyc_state *module, PyObject *block, PyObject *timeout,
                  int64_t *deadline)
{
    int blocks = block == NULL ? 1 : PyObject_IsTrue(block);
    if (blocks < 0) {
        return -1;
    }
    *deadline = PYC_NO_WAIT;
    if (!blocks) {
        return 0;
    }
    if (parse(module, timeout, deadline) < 0) {
        return -1;
    }
    if (timeout != NULL && timeout != Py_None) {
        double seconds = PyFloat_AsDouble(timeout);
        if (seconds < 0) {
            PyErr_SetString(PyExc_ValueError,
                            "'timeout' must be a non-negative number");
            return -1;
        }
    }
    return 0;
}
