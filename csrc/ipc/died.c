/* SPDX-License-Identifier: MIT */
#include "ipc/died.h"

static PyObject *
make_error(PyObject *self, pyc_owner died)
{
    int pid = pyc_arena_owner_pid(PYC_ARENA(self), died);
    PyObject *error = PyObject_CallFunction(
        pyc_ipc_of(self)->OwnerDied, "N",
        pid > 0 ? PyUnicode_FromFormat("process %d died and had this %s", pid,
                                       Py_TYPE(self)->tp_name)
                : PyUnicode_FromFormat("a process died and had this %s",
                                       Py_TYPE(self)->tp_name));
    PyObject *number = error == NULL ? NULL : PyLong_FromLong(pid);
    if (number == NULL || PyObject_SetAttrString(error, "pid", number) < 0 ||
        PyObject_SetAttrString(error, "lock", self) < 0) {
        Py_CLEAR(error);
    }
    Py_XDECREF(number);
    return error;
}

int
pyc_owner_died(PyObject *self, pyc_owner died, PyObject *recover)
{
    PyObject *error = make_error(self, died);
    if (error == NULL) {
        return -1;
    }
    if (recover == NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
        return -1;
    }
    PyObject *done = PyObject_CallOneArg(recover, error);
    Py_DECREF(error);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}
