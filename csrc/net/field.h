/* SPDX-License-Identifier: MIT */
/* References of a transport that its loop's thread changes while any other may
 * ask for them: with the object locked, since there may be no GIL. The loop's
 * thread itself reads them as they are. */
#ifndef PYC_NET_FIELD_H
#define PYC_NET_FIELD_H

#include "py/compat.h"

/* A new reference, to None when there is nothing. */
static inline PyObject *
pyc_field_get(PyObject *self, PyObject *const *field)
{
    PyObject *value;
    PYC_BEGIN_CRITICAL_SECTION(self);
    value = Py_NewRef(*field == NULL ? Py_None : *field);
    PYC_END_CRITICAL_SECTION();
    return value;
}

/* Takes `value`, a reference or NULL. */
#define PYC_FIELD_SET(self, field, value)                                      \
    do {                                                                       \
        __typeof__((self)->field) field_new = (value), field_old;              \
        PYC_BEGIN_CRITICAL_SECTION(self);                                      \
        field_old = (self)->field;                                             \
        (self)->field = field_new;                                             \
        PYC_END_CRITICAL_SECTION();                                            \
        Py_XDECREF(field_old);                                                 \
    } while (0)

static inline PyObject *
pyc_field_getter(PyObject *self, void *offset)
{
    return pyc_field_get(self, (PyObject **)((char *)self + (size_t)offset));
}

/* An entry of a table of attributes. */
#define PYC_FIELD(name, struct_name, field)                                    \
    {name, pyc_field_getter, NULL, NULL, (void *)offsetof(struct_name, field)}

#endif
