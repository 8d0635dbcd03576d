/* SPDX-License-Identifier: MIT */
/* How a task is ended that a worker has begun: a SIGINT says no task, so the
 * board does, and one that comes too late does not meet the next task. */
#include "ipc/channel.h"

#include "base/futex.h"

/* The task of a Future that `*worker` has begun; 0: none has. */
static uint64_t
begun(pyc_channel *self, PyObject *future, uint32_t *worker)
{
    uint64_t task = pyc_channel_find(self, future);
    uint32_t state = task == 0 ? PYC_OVER : pyc_board_state(self->board, task);
    *worker = state - PYC_BEGUN;
    return state < PYC_BEGUN || *worker >= self->board->workers ? 0 : task;
}

PyObject *
pyc_channel_interrupt(PyObject *object, PyObject *future)
{
    pyc_channel *self = (pyc_channel *)object;
    uint32_t worker;
    if (pyc_channel_check_parent(self) < 0) {
        return NULL;
    }
    uint64_t task = begun(self, future, &worker);
    if (task == 0) {
        Py_RETURN_NONE;
    }
    atomic_store(&pyc_board_worker(self->board, worker)->unwanted, task);
    return PyLong_FromUnsignedLong(worker);
}

PyObject *
pyc_channel_interrupted(PyObject *object, PyObject *number)
{
    pyc_channel *self = (pyc_channel *)object;
    uint32_t worker;
    if (pyc_channel_worker_of(self, number, &worker) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(
        atomic_exchange(&pyc_board_worker(self->board, worker)->unwanted, 0));
}

PyObject *
pyc_channel_ran(PyObject *object, PyObject *future)
{
    pyc_channel *self = (pyc_channel *)object;
    uint32_t worker;
    if (pyc_channel_check_parent(self) < 0) {
        return NULL;
    }
    uint64_t task = begun(self, future, &worker);
    if (task == 0) {
        Py_RETURN_NONE;
    }
    /* The worker writes `began`, then `task`; afterwards the other way round.
     */
    pyc_worker *record = pyc_board_worker(self->board, worker);
    int64_t now = pyc_clock_now();
    int64_t began = atomic_load(&record->began);
    int64_t ran = atomic_load(&record->task) == task ? now - began : 0;
    return PyFloat_FromDouble(ran < 0 ? 0.0 : (double)ran / 1e9);
}
