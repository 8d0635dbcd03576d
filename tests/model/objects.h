/* SPDX-License-Identifier: MIT */
/* What the models of Python's objects have in place of Python and of bells. */
#ifndef MODEL_OBJECTS_H
#define MODEL_OBJECTS_H

#include "ipc/bell.h"
#include "ipc/died.h"
#include "ipc/shared.h"
#include "ipc/sleep.h"

/* Each process has an object of its own, in the ghost memory. */
#define MODEL_OBJECT(object, at)                                               \
    do {                                                                       \
        ((pyc_shared *)(object))->block.arena = (pyc_arena *)1;                \
        ((pyc_shared *)(object))->block.memory = (at);                         \
    } while (0)

/* A word for each process, which a ring sets; in shared memory. NULL: no
 * coroutine waits. */
static _Atomic uint32_t *model_bells;

uint64_t
pyc_bells_arm(pyc_arena *arena, pyc_bells *bells)
{
    atomic_fetch_or(&bells->waiting, UINT64_C(1) << model_me);
    return 0;
}

void
pyc_bells_ring_now(pyc_ipc *state, pyc_arena *arena, pyc_bells *bells)
{
    uint64_t waiting = atomic_exchange(&bells->waiting, 0);
    for (int i = 0; i < MODEL_PROCESSES; i++) {
        if (waiting >> i & 1) {
            atomic_store(&model_bells[i], 1);
            model_wake(MODEL_SITE("a bell"), &model_bells[i], 1);
        }
    }
}

/* As until() of awaiting.py: whether it was not too late. `attempt` is 1 when
 * it is done. */
static inline bool
model_until(int (*attempt)(PyObject *),
            PyObject *(*arm)(PyObject *, PyObject *), PyObject *object,
            bool timed)
{
    _Atomic uint32_t *bell = &model_bells[model_me];
    while (attempt(object) != 1) {
        atomic_store(bell, 0);
        arm(object, NULL);
        if (attempt(object) == 1) {
            return true;
        }
        if (model_sleep(MODEL_SITE("its bell"), bell, 0,
                        timed ? MODEL_TIMED : MODEL_SLICED) == PYC_TOO_LATE) {
            return attempt(object) == 1;
        }
    }
    return true;
}

PyObject *
PyLong_FromUnsignedLongLong(unsigned long long number)
{
    return NULL;
}

/* So that the results of attempts can be told apart. */
PyObject *
PyBool_FromLong(long value)
{
    return (PyObject *)(uintptr_t)(value + 1);
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
