/* SPDX-License-Identifier: MIT */
/* A thread that waits. */
#include "sync/wait.h"
#include "sync/watch.h"

#include <errno.h>

static pyc_wait *
copy_of(const pyc_wait *self)
{
    pyc_wait *copy = PyMem_RawMalloc(sizeof(*copy));
    if (copy != NULL) {
        *copy = *self;
        copy->waiter = (pyc_waiter){0};
        pyc_link_init(&copy->waiter.link);
    }
    return copy;
}

/* As pyc_waiter_sleep, but in no queue while a signal handler runs; 1 also
 * after one. */
static int
sleep_aside(pyc_wait *self, int64_t deadline)
{
    int slept = pyc_waiter_doze(&self->waiter, deadline);
    if (slept == -EINTR) {
        self->operation->leave(self, 1);
        slept = Py_MakePendingCalls() < 0 ? -1 : 1;
        pyc_waiter_goes_first(&self->waiter);
    }
    return slept;
}

static int
run(pyc_wait *self, int64_t deadline, int deaf)
{
    const pyc_operation *operation = self->operation;
    int aside = operation->steps_aside && !deaf;
    int rc;
    while ((rc = operation->attempt(self, 1)) == 0) {
        int slept = aside ? sleep_aside(self, deadline)
                          : pyc_waiter_sleep(&self->waiter, deadline, deaf);
        if (slept == 0) {
            return operation->attempt(self, 0);
        }
        if (slept < 0) {
            operation->leave(self, 1);
            return -1;
        }
    }
    return rc;
}

int
pyc_wait_block(pyc_wait *self, int64_t deadline)
{
    if (deadline == PYC_NO_WAIT) {
        self->waiter = (pyc_waiter){0};
        return self->operation->attempt(self, 0);
    }
    pyc_wait *copy = copy_of(self);
    if (copy == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    pyc_watched *watched = NULL;
    if (pyc_load(self->module->watch_report) != NULL &&
        deadline == PYC_NO_DEADLINE && self->operation->holder != NULL) {
        watched = pyc_watch_begin(copy);
    }
    int rc = run(copy, deadline, 0);
    if (watched != NULL) {
        pyc_watch_end(watched);
    }
    self->result = copy->result;
    self->item = copy->item;
    self->number = copy->number;
    PyMem_RawFree(copy);
    return rc;
}

void
pyc_wait_deaf(pyc_wait *self)
{
    PyObject *pending = pyc_take_exception();
    pyc_wait *copy;
    while ((copy = copy_of(self)) == NULL) {
        Py_BEGIN_ALLOW_THREADS
        Py_END_ALLOW_THREADS
    }
    run(copy, PYC_NO_DEADLINE, 1);
    PyMem_RawFree(copy);
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
}
