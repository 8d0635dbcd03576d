/* SPDX-License-Identifier: MIT */
/* Queues between processes, without a thread: put() writes into shared memory,
 * get() reads from it. */
#ifndef PYC_IPC_QUEUE_H
#define PYC_IPC_QUEUE_H

#include "ipc/bell.h"
#include "ipc/gate.h"
#include "ipc/mutex.h"
#include "ipc/patience.h"
#include "ipc/ring.h"
#include "ipc/shared.h"

extern PyType_Spec pyc_queue_spec;
extern PyType_Spec pyc_view_spec;

/* In shared memory, in the queue's block. */
typedef struct {
    /* Who puts has the first one, and with it the heap; who gets, the second.
     * Who needs both takes them in this order. */
    _Alignas(64) pyc_mutex putting;
    _Alignas(64) pyc_mutex getting;
    pyc_ring ring;
    _Alignas(64) pyc_gate items;
    pyc_bells item_bells;
    _Alignas(64) pyc_gate space;
    pyc_bells space_bells;
    _Alignas(64) pyc_gate finished; /* all tasks are done */
    pyc_bells finished_bells;
    _Atomic uint64_t done; /* tasks */
    _Atomic uint32_t shut;
    _Atomic uint32_t trimmed; /* seconds: when memory was given back */
    uint64_t maxsize;         /* 0: no limit; so is max_bytes */
    uint64_t max_bytes;
    uint32_t simple; /* a SimpleQueue: other errors when it is closed */
} pyc_queue_memory;

/* What may be done for a moment before a sleep: to let others have this CPU,
 * and to look again and again, where they run on another one. */
typedef struct {
    pyc_patience yielding, looking;
} pyc_patiences;

typedef struct pyc_queue {
    pyc_shared shared;
    pyc_store store;
    /* Its large buffers are in the lender's memory, which can be used in turn
     * for what goes there and what comes back. */
    struct pyc_queue *lender;   /* NULL: in its own; else a reference */
    struct pyc_queue *borrower; /* whose lender it is; not a reference */
    _Atomic uint32_t n_views;
    pyc_link link;      /* in the state's list */
    pyc_link views;     /* of memory of this queue */
    PyObject *failures; /* a list: errors of items that get_many() took */
    pyc_patiences for_item, for_space, for_end;
    char is_open;   /* it is in the state's list */
    char is_closed; /* in this process */
    char is_used;
} pyc_queue;

static inline pyc_queue_memory *
pyc_queue_shared(const pyc_queue *self)
{
    return (pyc_queue_memory *)self->shared.block.memory;
}

/* Where its large buffers are. */
static inline pyc_queue *
pyc_queue_home(pyc_queue *self)
{
    return self->lender != NULL ? self->lender : self;
}

/* The state of a piece that belongs to a record of this queue. */
static inline uint64_t
pyc_queue_carried(const pyc_queue *self, uint64_t number)
{
    return self->lender != NULL ? PYC_STATE(PYC_LENT, number)
                                : PYC_STATE(PYC_CARRIED, number);
}

/* In each process before it is used there. */
void pyc_queue_borrow(pyc_queue *self, pyc_queue *lender);

/* Sets the OSError for an error of the store, heap or ring. */
void pyc_queue_error(int error);

/* Frees what killed processes left, or else grows; the caller has `putting`.
 * `attempt` counts from 0. 0 or an error. */
int pyc_queue_make_room(pyc_queue *self, uint64_t size, int attempt);

/* Gives memory back once much of it is idle. */
void pyc_queue_trim(pyc_queue *self);
/* Gives back all that is free, for nobody will put anything more. */
void pyc_queue_give_back(pyc_queue *self);

/* Around a fork, with the guard. */
void pyc_queues_before_fork(pyc_ipc *state);
void pyc_queues_after_fork_in_child(pyc_ipc *state);

/* A buffer in the queue's memory, which is freed after it; the piece is this
 * process's, and freed even when there is an error. */
PyObject *pyc_view_new(pyc_queue *queue, pyc_piece *piece, uint64_t length);
/* What pyc_view_new() needs to be true of the piece. */
void pyc_view_hold(pyc_queue *queue, pyc_piece *piece);

/* Whether all that was put is done: the tasks of a JoinableQueue. */
uint64_t pyc_queue_unfinished(pyc_queue *self);
int pyc_queue_task_done(pyc_queue *self);
/* 1: all are done; 0: the deadline has passed; -1 with an exception set. */
int pyc_queue_join(pyc_queue *self, int64_t deadline);
void pyc_queue_shutdown(pyc_queue *self, int immediate);

/* queue_put.c: the items of `items`, or those of them there was room for until
 * the deadline; *done is how many. 0, or -1 with an exception set. */
int pyc_queue_put(pyc_queue *self, PyObject *const *items, Py_ssize_t n,
                  int64_t deadline, Py_ssize_t *done);

/* queue_get.c */
PyObject *pyc_queue_get(pyc_queue *self, int64_t deadline);
PyObject *pyc_queue_get_many(pyc_queue *self, Py_ssize_t most,
                             int64_t deadline);

/* What somebody waits for, at a gate. */
typedef struct {
    pyc_gate *gate;
    pyc_patiences *patience;
    bool (*is_ready)(pyc_queue *, uint64_t what);
    uint64_t what;
} pyc_queue_wish;

/* Waits until it is ready, or perhaps for no reason. 1: look again; 0: the
 * deadline has passed; -1 with an exception set. */
int pyc_queue_wait(pyc_queue *self, const pyc_queue_wish *wish,
                   int64_t deadline);

/* Raises ShutDown(*args). */
void pyc_queue_raise_shut(pyc_ipc *state, PyObject *args);

#endif
