/* SPDX-License-Identifier: MIT */
#include "py/context.h"

/* Sets `var` inside of `context`: 1 when that changes what we take for its
 * variables, and nothing but that; -1 with an exception. */
static int
changes_with(PyObject *context, PyObject *var)
{
    const void *before = pyc_context_vars(context);
    if (PyContext_Enter(context) < 0) {
        return -1;
    }
    int known = pyc_context_current() == context;
    PyObject *token = PyContextVar_Set(var, Py_None);
    Py_XDECREF(token);
    if (PyContext_Exit(context) < 0 || token == NULL) {
        return -1;
    }
    return known && pyc_context_vars(context) != before;
}

int
pyc_context_is_known(void)
{
    if (PYC_FREE_THREADED ||
        PyContext_Type.tp_basicsize < (Py_ssize_t)sizeof(pyc_context)) {
        return 0;
    }
    int known = -1;
    PyObject *context = PyContext_New(), *before = NULL, *after = NULL;
    PyObject *var = PyContextVar_New("pyconc", NULL);
    if (context == NULL || var == NULL) {
        goto done;
    }
    before = PyContext_Copy(context);
    if (before == NULL) {
        goto done;
    }
    known = changes_with(context, var);
    after = known < 0 ? NULL : PyContext_Copy(context);
    if (after == NULL) {
        known = -1;
        goto done;
    }
    known = known && pyc_context_vars(after) == pyc_context_vars(context) &&
            pyc_context_vars(after) != pyc_context_vars(before);
done:
    Py_XDECREF(after);
    Py_XDECREF(before);
    Py_XDECREF(var);
    Py_XDECREF(context);
    return known;
}
