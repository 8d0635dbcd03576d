/* SPDX-License-Identifier: MIT */
/* The state of pyconc._ipc: types, exceptions, and the arenas of this
 * interpreter. */
#ifndef PYC_IPC_STATE_H
#define PYC_IPC_STATE_H

#include "py/compat.h"
#include "py/lock.h"

#include "base/list.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

extern PyModuleDef pyc_ipc_module;

/* What a block is for: a pickle of one never becomes another. */
enum {
    PYC_KIND_LOCK = 1,
    PYC_KIND_RLOCK,
    PYC_KIND_SEMAPHORE,
    PYC_KIND_CONDITION,
    PYC_KIND_EVENT,
    PYC_KIND_BARRIER,
    PYC_KIND_RWLOCK,
    PYC_KIND_VALUE,
    PYC_KIND_SEGMENT,
    PYC_KIND_QUEUE,
    PYC_KIND_SNAPSHOT,
    PYC_KIND_PIPE,
    PYC_KIND_ATOMIC,
};

#define PYC_PACKERS 4 /* kept for the next that needs one */

/* Objects of the standard library and of pyconc, imported with the module. */
#define PYC_IPC_IMPORTED(X)                                                    \
    X(queue_Empty, "queue", "Empty")                                           \
    X(queue_Full, "queue", "Full")                                             \
    X(pickle_loads, "pickle", "loads")                                         \
    X(BrokenBarrierError, "threading", "BrokenBarrierError")                   \
    X(struct_error, "struct", "error")

/* Types of the module: each file that makes one has an exported PyType_Spec. */
#define PYC_IPC_TYPES(X)                                                       \
    X(segment, pyc_segment_spec)                                               \
    X(queue, pyc_queue_spec)                                                   \
    X(view, pyc_view_spec)                                                     \
    X(packer, pyc_packer_spec)                                                 \
    X(lock, pyc_lock_spec)                                                     \
    X(rlock, pyc_rlock_spec)                                                   \
    X(semaphore, pyc_semaphore_spec)                                           \
    X(condition, pyc_condition_spec)                                           \
    X(event, pyc_event_spec)                                                   \
    X(barrier, pyc_barrier_spec)                                               \
    X(rwlock, pyc_rwlock_spec)                                                 \
    X(quick_method, pyc_quick_method_spec)                                     \
    X(quick_bound, pyc_quick_bound_spec)                                       \
    X(cell, pyc_cell_spec)                                                     \
    X(value, pyc_value_spec)                                                   \
    X(array, pyc_array_spec)                                                   \
    X(atomic, pyc_atomic_spec)                                                 \
    X(snapshot, pyc_snapshot_spec)                                             \
    X(mapping, pyc_mapping_spec)                                               \
    X(named, pyc_named_spec)                                                   \
    X(shareable_list, pyc_shareable_list_spec)                                 \
    X(channel, pyc_channel_spec)

/* Names of methods. */
#define PYC_IPC_NAMES(X)                                                       \
    X(set_result)                                                              \
    X(set_exception)

typedef struct pyc_ipc {
#define X(field, module, name) PyObject *field;
    PYC_IPC_IMPORTED(X)
#undef X
#define X(name, spec) PyTypeObject *name##_type;
    PYC_IPC_TYPES(X)
#undef X
#define X(name) PyObject *str_##name;
    PYC_IPC_NAMES(X)
#undef X
    PyObject *OwnerDied; /* the exception */
    PyObject *reduce; /* pyconc.multiprocessing.handover.reduce, once needed */
    pyc_link arenas;  /* mapped by this interpreter */
    struct pyc_arena *newest;     /* where new blocks come from; may be NULL */
    pthread_mutex_t guard;        /* of the arenas and what they count here, of
                                     `kept` and `queues`: see guard.h */
    _Atomic unsigned long forker; /* the thread that is forking, or 0 */
    pyc_link kept;   /* memory that was sent and is let go of here */
    pyc_link queues; /* of this process */
    PyObject *packers[PYC_PACKERS]; /* that nobody uses */
    pyc_lock packers_lock;
    int bell;   /* a socket, -1: not opened yet */
    int ringer; /* a socket, -1: not opened yet */
    unsigned char bell_name[16];
    int pid; /* the process that the above is about */
} pyc_ipc;

static inline pyc_ipc *
pyc_ipc_of_module(PyObject *module)
{
    return PyModule_GetState(module);
}

/* In builds for tests, the process dies where the environment says. */
#ifdef NDEBUG
#    define PYC_KILL_POINT(name) ((void)0)
#else
#    define PYC_KILL_POINT(name) pyc_kill_point(name)
void pyc_kill_point(const char *name);
#endif

#endif
