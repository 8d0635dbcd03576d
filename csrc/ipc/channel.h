/* SPDX-License-Identifier: MIT */
/* The channel between a pool and its workers: a queue of jobs, one of results,
 * and a board that says who has begun what.
 *
 * A worker claims a task on the board before it takes its record out of the
 * queue. So when it is killed, at whatever moment, either nobody has begun the
 * task and its record is still there for others, or the board says who has.
 *
 * The parent keeps the Future and the call of each task in a slot until the
 * task is over. Slots are changed under `lock`, in which no Python runs; a
 * result's record is taken and the board says so under the queue's `getting`,
 * so that who has it next finds no task begun whose result has been taken. */
#ifndef PYC_IPC_CHANNEL_H
#define PYC_IPC_CHANNEL_H

#include "ipc/board.h"
#include "ipc/message.h"

#include "base/source.h"

extern PyType_Spec pyc_channel_spec;

/* A call; owned by whoever has it. */
typedef struct {
    PyObject *future; /* NULL: none */
    PyObject *blob, *args, *kwargs;
} pyc_call;

typedef struct {
    pyc_call call;
    uint64_t number; /* of the tasks that were sent */
    uint64_t weight; /* bytes of its record and pieces */
    uint32_t generation;
    uint32_t next;   /* free slot; `slots`: none */
    bool is_arrived; /* some thread has its result and is ending the Future */
} pyc_slot;

typedef struct {
    PyObject_HEAD
    pyc_ipc *state;
    PyObject *module; /* keeps `state` there */
    pyc_queue *jobs, *results;
    PyObject *segment; /* of the board */
    pyc_board *board;
    PyObject *weakrefs;
    int pid; /* the parent; 0 in a process that received it */

    /* Of the parent. */
    pyc_source source;
    pyc_slot *slots;
    uint32_t first_free; /* `slots`: none */
    uint32_t in_flight;
    uint64_t sent;  /* tasks, ever */
    uint64_t bytes; /* of tasks in flight */
    uint64_t max_bytes;
    PyObject *refill;   /* a callable, or NULL */
    PyObject *describe; /* likewise */
    PyObject *relief;   /* likewise */
    PyObject *deferred; /* a list, or NULL: (Future, callbacks) */
    PyObject *capsule;  /* of the source; NULL until asked for */
    pyc_lock lock;
    _Atomic uint32_t wants_room;  /* a task had none */
    _Atomic uint32_t refilling;   /* threads that want it, or are at it */
    _Atomic unsigned long driver; /* the thread, or 0 */
    _Atomic uint32_t called;      /* the collector is to return */

    /* Of a worker. */
    int64_t parent_seen; /* clock: when it was alive */
    pyc_patience for_driver;
} pyc_channel;

static inline uint64_t
pyc_channel_task(const pyc_channel *self, uint32_t slot)
{
    return PYC_TASK(self->slots[slot].generation, slot);
}

void pyc_call_clear(pyc_call *call);

/* channel.c: the parent's side, sending. 1: sent; 0: there is no room; -1 with
 * an exception set. Borrows the call. */
int pyc_channel_send(pyc_channel *self, const pyc_call *call);

/* Ends the task: whether it was not over. The call is the caller's. */
bool pyc_channel_end(pyc_channel *self, uint64_t task, pyc_call *call);

/* The result has come: the task's Future, borrowed until the task is ended;
 * NULL: it was over. */
PyObject *pyc_channel_arrive(pyc_channel *self, uint64_t task);

/* Whether a worker has begun it and its Future is not ended yet. */
bool pyc_channel_is_running(pyc_channel *self, uint64_t task);

/* The task of a Future; 0: none. */
uint64_t pyc_channel_find(pyc_channel *self, PyObject *future);

/* A list of the Futures of all tasks, as they were sent; NULL with an exception
 * set. */
PyObject *pyc_channel_futures(pyc_channel *self);

/* The first task that a worker has begun and that is not over; 0: none. */
uint64_t pyc_channel_begun(pyc_channel *self, uint32_t worker);

/* Ends a task that nobody has begun, or else returns false. */
bool pyc_channel_revoke(pyc_channel *self, uint64_t task, pyc_call *call);

/* Only who made the channel is its parent, and has slots: 0, or -1 with
 * RuntimeError set. */
int pyc_channel_check_parent(pyc_channel *self);

/* The worker of a number from Python: 0, or -1 with ValueError set. */
int pyc_channel_worker_of(pyc_channel *self, PyObject *number,
                          uint32_t *worker);

/* channel_object.c: slots of the type, and methods. */
PyObject *pyc_channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *pyc_channel_attach(PyObject *type, PyObject *args);
PyObject *pyc_channel_reduce(PyObject *self, PyObject *ignored);
int pyc_channel_traverse(PyObject *self, visitproc visit, void *arg);
int pyc_channel_clear(PyObject *self);
void pyc_channel_dealloc(PyObject *self);

/* channel_interrupt.c: methods. */
PyObject *pyc_channel_interrupt(PyObject *self, PyObject *future);
PyObject *pyc_channel_interrupted(PyObject *self, PyObject *worker);
PyObject *pyc_channel_ran(PyObject *self, PyObject *future);

/* channel_collect.c: ends the Futures of all results there are, but not of
 * those that come meanwhile, as there may always be some: how many, or -1 with
 * an exception of a callback that is no Exception. Callbacks are left to
 * the collector, where that is possible, unless `calls`: a thread that waits
 * may hold a lock that they want. So are results that cannot be read, which
 * are an OSError where `calls`, or else PYC_UNREADABLE. */
#define PYC_UNREADABLE (-2)
Py_ssize_t pyc_channel_collect(pyc_channel *self, bool calls);

/* channel_wait.c: the parent's threads wait. */
void pyc_channel_source(pyc_source *source);
/* 1: there are results, perhaps; 0: it is too late; -1 with an exception. */
int pyc_channel_watch(pyc_channel *self, int64_t deadline);
void pyc_channel_wake(pyc_channel *self);

/* channel_work.c: a worker's side. take: a job; None when there will be no more
 * for this worker; NULL with an exception set, queue.Empty after the deadline.
 */
PyObject *pyc_channel_take(pyc_channel *self, uint32_t worker,
                           int64_t deadline);
PyObject *pyc_channel_load(PyObject *self, PyObject *job);
int pyc_channel_reply(pyc_channel *self, uint64_t task, PyObject *value,
                      bool failed);

#endif
