/* SPDX-License-Identifier: MIT */
/* What Lock and RLock share, and what Condition needs of them. */
#ifndef PYC_IPC_LOCK_H
#define PYC_IPC_LOCK_H

#include "ipc/bell.h"
#include "ipc/shared.h"
#include "ipc/sleep.h"
#include "ipc/word.h"

#include <stdbool.h>

extern PyType_Spec pyc_lock_spec;
extern PyType_Spec pyc_rlock_spec;

typedef struct {
    _Atomic uint32_t word;
    _Atomic uint32_t depth; /* of an RLock */
    _Atomic uint64_t who;   /* see pyc_lock_who(); 0 when nobody, or before the
                               owner has said so */
    pyc_bells bells;
} pyc_lock_memory;

typedef struct {
    pyc_shared shared; /* extra: what to call when an owner has died */
    int64_t looked;    /* when an owner was last asked whether it is alive */
    bool recursive;    /* it is an RLock */
} pyc_ipc_lock;

#define PYC_LOCK_MEMORY(self) PYC_MEMORY(self, pyc_lock_memory)

/* The calling thread. A task is its address with the lowest bit set, which no
 * thread's has. */
static inline uint64_t
pyc_thread(void)
{
#if __has_builtin(__builtin_thread_pointer)
    return (uintptr_t)__builtin_thread_pointer();
#else
    return (uint64_t)PyThread_get_thread_ident();
#endif
}

/* What `who` is of a thread or task of this process. Its process is in it, as
 * the word and `who` are read one after the other: meanwhile another process
 * may have taken the lock, whose thread has the same address after a fork; and
 * one who died leaves his. */
static inline uint64_t
pyc_lock_who(pyc_ipc_lock *self, uint64_t here)
{
    return here ^ (uint64_t)pyc_arena_me(PYC_ARENA(self)) << 34;
}

/* Whether it is the caller's, who is a thread or a task. */
static inline bool
pyc_lock_is_mine(pyc_ipc_lock *self, uint64_t who)
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    return (pyc_word_look(&memory->word) & PYC_OWNER) ==
               pyc_arena_me(PYC_ARENA(self)) &&
           atomic_load_explicit(&memory->who, memory_order_relaxed) == who;
}

/* Whether it is the calling thread's, or the running task's; `*who`: which. */
bool pyc_lock_is_held_here(pyc_ipc_lock *self, uint64_t *who);

/* The caller has it now. */
static inline void
pyc_lock_mark(pyc_lock_memory *memory, uint64_t who)
{
    atomic_store_explicit(&memory->depth, 1, memory_order_relaxed);
    atomic_store_explicit(&memory->who, who, memory_order_relaxed);
}

/* Waits for it. 1: taken; 0: too late; -1: an exception, and not taken; -2: an
 * exception, and taken: it was found to be a dead process's, and whoever made
 * the lock wants to be told so. */
#define PYC_TAKEN_BUT (-2)
int pyc_lock_wait(pyc_ipc_lock *self, uint64_t who, int64_t deadline);

/* How somebody waited who takes a lock again. Who slept may have been moved to
 * the lock's word, and have been woken there; who slept for a whole slice looks
 * at once whether its owner is dead. */
typedef enum { PYC_STAYED_AWAKE, PYC_SLEPT, PYC_SLEPT_A_SLICE } pyc_rest;

/* Takes it again after wait() of a condition, come what may: 0, or -1 with an
 * exception set. One that is set already stays. */
int pyc_lock_retake(pyc_ipc_lock *self, uint64_t who, uint32_t depth,
                    pyc_rest rest);

/* Wakes those who were waiting for it when it was let go of. */
void pyc_lock_wake(pyc_ipc_lock *self);

/* Lets go of it, all of it: whether somebody had it. */
static inline bool
pyc_lock_free(pyc_ipc_lock *self)
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    atomic_store_explicit(&memory->who, 0, memory_order_relaxed);
    uint32_t was = pyc_word_free(&memory->word);
    if (PYC_UNLIKELY((was & PYC_SLEEPERS) != 0)) {
        pyc_lock_wake(self);
    }
    return was != 0;
}

/* An RLock once more, if it is the caller's already. */
static inline bool
pyc_lock_again(pyc_ipc_lock *self, uint64_t who)
{
    pyc_lock_memory *memory = PYC_LOCK_MEMORY(self);
    if (!pyc_lock_is_mine(self, who)) {
        return false;
    }
    uint32_t depth = atomic_load_explicit(&memory->depth, memory_order_relaxed);
    atomic_store_explicit(&memory->depth, depth + 1, memory_order_relaxed);
    return true;
}

/* The arguments of acquire(). */
int pyc_lock_deadline(PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames, int64_t *deadline);
/* What __enter__() makes of an attempt. */
PyObject *pyc_lock_entered(PyObject *self, int taken);

/* The methods of either type. */
PyObject *pyc_lock_acquire(PyObject *self, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyc_lock_enter(PyObject *self, PyObject *ignored);
PyObject *pyc_lock_release(PyObject *self, PyObject *ignored);
PyObject *pyc_rlock_acquire(PyObject *self, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyc_rlock_enter(PyObject *self, PyObject *ignored);
PyObject *pyc_rlock_release(PyObject *self, PyObject *ignored);

/* And of both. */
PyObject *pyc_lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs,
                       uint32_t kind);
PyObject *pyc_lock_receive(PyObject *type, PyObject *const *args,
                           Py_ssize_t nargs, uint32_t kind);
PyObject *pyc_lock_locked(PyObject *self, PyObject *ignored);
PyObject *pyc_lock_holder(PyObject *self, PyObject *ignored);
PyObject *pyc_lock_is_of_thread(PyObject *self, PyObject *ignored);
PyObject *pyc_lock_depth(PyObject *self, PyObject *ignored);
PyObject *pyc_lock_attempt(PyObject *self, PyObject *task);
PyObject *pyc_lock_arm(PyObject *self, PyObject *ignored);

#define PYC_RECEIVE_DOC                                                        \
    "receive($type, sent, extra, /)\n--\n\n"                                   \
    "The object that send() of another process gave out."

#define PYC_LOCK_METHODS                                                       \
    {"_holder", pyc_lock_holder, METH_NOARGS,                                  \
     "_holder($self, /)\n--\n\n"                                               \
     "Whose it is: 'caller', 'thread' (another one), 'process' (another one) " \
     "or ''."},                                                                \
        {"_is_of_thread", pyc_lock_is_of_thread, METH_NOARGS,                  \
         "_is_of_thread($self, /)\n--\n\n"                                     \
         "Whether the calling thread has it, and none of its tasks."},         \
        {"_depth", pyc_lock_depth, METH_NOARGS,                                \
         "_depth($self, /)\n--\n\nHow often its owner took it."},              \
        {"_attempt", pyc_lock_attempt, METH_O,                                 \
         "_attempt($self, task, /)\n--\n\nTakes it for a task, if it can."},   \
        {"arm", pyc_lock_arm, METH_NOARGS,                                     \
         "arm($self, /)\n--\n\n"                                               \
         "Has who lets go of it ring this process's bell: with which key."}

#endif
