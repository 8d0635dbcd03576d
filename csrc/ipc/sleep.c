/* SPDX-License-Identifier: MIT */
#include "ipc/sleep.h"

#include <errno.h>
#include <math.h>

int
pyc_sleep(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    int64_t now = pyc_clock_now();
    if (now >= deadline) {
        return PYC_TOO_LATE;
    }
    int64_t slice = deadline - now > PYC_SLICE ? now + PYC_SLICE : deadline;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pyc_futex_wait_shared(word, expected, slice);
    Py_END_ALLOW_THREADS
    /* A signal that came just before the sleep has not ended it. */
    if (rc != 0 && PyErr_CheckSignals() < 0) {
        return PYC_INTERRUPTED;
    }
    if (rc == -ETIMEDOUT) {
        return slice == deadline ? PYC_TOO_LATE : PYC_SLICE_OVER;
    }
    return PYC_WOKEN;
}

void
pyc_wake(_Atomic uint32_t *word, int count)
{
    pyc_futex_wake_shared(word, count);
}

int
pyc_sleep_deadline(PyObject *block, PyObject *timeout, int64_t *deadline)
{
    int wanted = block == NULL ? 1 : PyObject_IsTrue(block);
    if (wanted < 0) {
        return -1;
    }
    *deadline = wanted ? PYC_NO_DEADLINE : 0;
    if (!wanted || timeout == NULL || timeout == Py_None) {
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "Invalid value NaN (not a number)");
        return -1;
    }
    int64_t now = pyc_clock_now();
    if (seconds <= 0) {
        *deadline = 0;
    }
    else if (seconds < 9e9) { /* some 285 years; more is for ever */
        *deadline = now + (int64_t)ceil(seconds * 1e9);
    }
    return 0;
}
