/* SPDX-License-Identifier: MIT */
/* What the models of Python's objects have in place of Python and of bells. */
#ifndef MODEL_OBJECTS_H
#define MODEL_OBJECTS_H

#include "ipc/bell.h"
#include "ipc/died.h"
#include "ipc/shared.h"

/* Each process has an object of its own, in the ghost memory. */
#define MODEL_OBJECT(object, at)                                               \
    do {                                                                       \
        ((pyc_shared *)(object))->block.arena = (pyc_arena *)1;                \
        ((pyc_shared *)(object))->block.memory = (at);                         \
    } while (0)

void
pyc_bells_ring_now(pyc_ipc *state, pyc_arena *arena, pyc_bells *bells)
{
}

/* Nobody wants to be asked: OwnerDied is raised. */
int
pyc_owner_died(PyObject *self, pyc_owner died, PyObject *recover)
{
    return -1;
}

void
_Py_Dealloc(PyObject *object)
{
}

#endif
