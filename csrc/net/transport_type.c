/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/outbox.h"
#include "net/transport_type.h"

/* ---- types ------------------------------------------------------------- */

int
pyc_transport_add_type(PyObject *module, PyType_Spec *spec,
                       PyObject *base_object, PyTypeObject **slot)
{
    PyTypeObject *base = (PyTypeObject *)base_object;
    if (base->tp_basicsize != offsetof(pyc_transport_object, dict) ||
        base->tp_dictoffset != 0 || base->tp_weaklistoffset != 0) {
        PyErr_Format(PyExc_ImportError,
                     "%R has another layout than pyconc was built for", base);
        return -1;
    }
    return pyc_add_type(module, spec, base_object, slot);
}

int
pyc_transport_allow(PyTypeObject *type, pyc_state *state, const char *mode_name)
{
    PyObject *mode = PyObject_GetAttrString(state->SendfileMode, mode_name);
    int code = -1;
    if (mode != NULL) {
        code = PyObject_SetAttrString((PyObject *)type, "_sendfile_compatible",
                                      mode);
        Py_DECREF(mode);
    }
    return code < 0 ? -1
                    : PyObject_SetAttrString((PyObject *)type,
                                             "_start_tls_compatible", Py_True);
}

/* ---- objects ----------------------------------------------------------- */

int
pyc_transport_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return 0;
}

void
pyc_transport_finalize(PyObject *self, int open, int (*release)(PyObject *))
{
    PyObject *raised = pyc_take_exception();
    if (open &&
        PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0 &&
        PyErr_ExceptionMatches(PyExc_Warning)) {
        PyErr_WriteUnraisable(self);
    }
    PyErr_Clear();
    if (release != NULL && release(self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
}

int
pyc_transport_is_dead(PyObject *object)
{
    pyc_transport_object *self = (pyc_transport_object *)object;
    if (PYC_FREE_THREADED && self->weakrefs != NULL) {
        /* Or the loop could take one of ours while the finalizer runs, which
         * 3.13 would not notice. */
        PyObject_ClearWeakRefs(object);
    }
    if (PyObject_CallFinalizerFromDealloc(object) < 0) {
        return 0;
    }
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    return 1;
}

void
pyc_transport_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- writes ------------------------------------------------------------ */

int
pyc_transport_drop_write(pyc_state *state, unsigned *count, const char *message)
{
    if ((*count)++ < PYC_LOST_WRITES) {
        return 0;
    }
    PyObject *result =
        PyObject_CallMethod(state->asyncio_logger, "warning", "s", message);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
