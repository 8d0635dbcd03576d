/* SPDX-License-Identifier: MIT */
/* get_extra_info() of a TLS connection. */
#include "py/compat.h"
#include "net/tls/tls.h"

/* What ssl_object.name() gives, once the handshake is done. */
static PyObject *
ask(pyc_tls *self, PyObject *name, const char *method)
{
    if (self->info == NULL && (self->info = PyDict_New()) == NULL) {
        return NULL;
    }
    PyObject *value = PyDict_GetItemWithError(self->info, name);
    if (value != NULL || PyErr_Occurred()) {
        return Py_XNewRef(value);
    }
    value = PyObject_CallMethod(self->ssl_object, method, NULL);
    if (value != NULL && PyDict_SetItem(self->info, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

static int
is(PyObject *name, const char *text)
{
    return PyUnicode_CompareWithASCIIString(name, text) == 0;
}

PyObject *
pyc_tls_extra_info(pyc_tls *self, PyObject *name, PyObject *fallback)
{
    if (PyUnicode_Check(name)) {
        if (is(name, "sslcontext") && self->sslcontext != NULL) {
            return Py_NewRef(self->sslcontext);
        }
        if (self->shaken) {
            if (is(name, "ssl_object")) {
                return Py_NewRef(self->ssl_object);
            }
            if (is(name, "peercert")) {
                return ask(self, name, "getpeercert");
            }
            if (is(name, "cipher") || is(name, "compression")) {
                return ask(self, name, PyUnicode_AsUTF8(name));
            }
        }
    }
    PyObject *lower = pyc_field_get((PyObject *)self, &self->lower);
    PyObject *value = lower == Py_None
                          ? Py_NewRef(fallback)
                          : PyObject_CallMethod(lower, "get_extra_info", "OO",
                                                name, fallback);
    Py_DECREF(lower);
    return value;
}
