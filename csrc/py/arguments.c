/* SPDX-License-Identifier: MIT */
#include "py/arguments.h"

static Py_ssize_t
place_of(const pyc_signature *signature, Py_ssize_t count, PyObject *name)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyUnicode_CompareWithASCIIString(name, signature->names[i]) == 0) {
            return i;
        }
    }
    PyErr_Format(PyExc_TypeError,
                 "%s() got an unexpected keyword argument '%U'",
                 signature->function, name);
    return -1;
}

static int
keywords(const pyc_signature *signature, Py_ssize_t count, Py_ssize_t nargs,
         PyObject *const *values, PyObject *kwnames, PyObject **out)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        Py_ssize_t place = place_of(signature, count, name);
        if (place < 0) {
            return -1;
        }
        if (place < nargs) {
            PyErr_Format(PyExc_TypeError,
                         "%s() got multiple values for argument '%U'",
                         signature->function, name);
            return -1;
        }
        out[place] = values[i];
    }
    return 0;
}

int
pyc_arguments(const pyc_signature *signature, PyObject *const *args,
              Py_ssize_t nargs, PyObject *kwnames, PyObject **out)
{
    Py_ssize_t count = 0;
    while (signature->names[count] != NULL) {
        count++;
    }
    if (nargs > count) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes at most %zd arguments (%zd given)",
                     signature->function, count, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        out[i] = args[i];
    }
    if (kwnames != NULL &&
        keywords(signature, count, nargs, args + nargs, kwnames, out) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < signature->required; i++) {
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'",
                         signature->function, signature->names[i]);
            return -1;
        }
    }
    return 0;
}
