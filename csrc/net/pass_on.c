/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/outbox.h"
#include "net/pass_on.h"

#define MAX_ARGS 2

PyObject *
pyc_pass_on(PyObject *transport, pyc_loop *loop, const char *name,
            PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *stack[2 + MAX_ARGS] = {(PyObject *)loop}, *told = NULL;
    Py_ssize_t count = 2;
    stack[1] = PyObject_GetAttrString(transport, name);
    if (stack[1] == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < nargs; i++, count++) {
        int mutable = PyByteArray_Check(args[i]) || PyMemoryView_Check(args[i]);
        stack[count] =
            mutable ? PyBytes_FromObject(args[i]) : Py_NewRef(args[i]);
        if (stack[count] == NULL) {
            goto done;
        }
    }
    told = PyObject_VectorcallMethod(loop->state->str_call_soon_threadsafe,
                                     stack, (size_t)count, NULL);
done:
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_XDECREF(stack[i]);
    }
    if (told == NULL) {
        return NULL;
    }
    Py_DECREF(told);
    Py_RETURN_NONE;
}

PyObject *
pyc_pass_on_lines(PyObject *transport, pyc_loop *loop, PyObject *lines)
{
    PyObject *all = pyc_outbox_join(lines);
    if (all == NULL) {
        Py_DECREF(loop);
        return NULL;
    }
    PyObject *result = pyc_pass_on(transport, loop, "write", &all, 1);
    Py_DECREF(all);
    return result;
}

int
pyc_check_runs_here(PyObject *transport, pyc_loop *const *field,
                    const char *call)
{
    if (!pyc_is_passed_on(transport, field)) {
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError,
                 "%s called by another thread than the one that runs the loop",
                 call);
    return -1;
}
