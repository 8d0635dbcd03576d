/* SPDX-License-Identifier: MIT */
#include "py/asyncio.h"

#include <stddef.h>

static const struct {
    size_t slot;
    const char *name;
} names[] = {
#define X(field, name) {offsetof(pyc_state, field), name},
    PYC_STATE_ASYNCIO(X)
#undef X
};

enum { COUNT = sizeof(names) / sizeof(names[0]) };

/* Of two threads that bring the same object, the first has its way. */
static void
give_name(PyObject **slot, PyObject *found)
{
    PyObject *none = NULL;
    if (!__atomic_compare_exchange_n(slot, &none, found, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        Py_DECREF(found);
    }
}

/* All of them or none. */
static int
take_names(pyc_state *state, PyObject *asyncio)
{
    PyObject *found[COUNT];
    for (int i = 0; i < COUNT; i++) {
        found[i] = PyObject_GetAttrString(asyncio, names[i].name);
        if (found[i] == NULL) {
            while (--i >= 0) {
                Py_DECREF(found[i]);
            }
            return -1;
        }
    }
    for (int i = 0; i < COUNT; i++) {
        give_name((PyObject **)((char *)state + names[i].slot), found[i]);
    }
    atomic_store(&state->asyncio_is_there, 1);
    return 0;
}

int
pyc_asyncio_is_there(pyc_state *state)
{
    if (atomic_load(&state->asyncio_is_there)) {
        return 1;
    }
    if (pyc_state_is_cleared(state)) {
        return 0;
    }
    /* Not PyImport_GetModule: it would wait for the thread that is importing
     * it, and that one may wait for a lock of this one's. */
    PyObject *asyncio =
        pyc_dict_get(PyImport_GetModuleDict(), state->str_asyncio);
    int rc = asyncio == NULL ? -1 : take_names(state, asyncio);
    Py_XDECREF(asyncio);
    if (rc < 0) {
        PyErr_Clear(); /* there is none, or the import is under way */
    }
    return rc == 0;
}

PyObject *
pyc_running_loop(pyc_state *state)
{
    if (!pyc_asyncio_is_there(state)) {
        return Py_NewRef(Py_None);
    }
    return PyObject_CallNoArgs(state->asyncio_get_running_loop);
}
