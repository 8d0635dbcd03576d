/* SPDX-License-Identifier: MIT */
/* Values and arrays of the simple C types, behind a lock. */
#ifndef PYC_IPC_VALUE_H
#define PYC_IPC_VALUE_H

#include "ipc/lock.h"

extern PyType_Spec pyc_cell_spec;
extern PyType_Spec pyc_value_spec;
extern PyType_Spec pyc_array_spec;

/* The memory of a Cell or a Segment; NULL with a TypeError for anything else.
 */
char *pyc_memory_of(pyc_ipc *state, PyObject *memory, size_t *size);

/* What Value and Array begin with. */
typedef struct {
    PyObject_HEAD
    pyc_ipc *state;
    PyObject *obj; /* the ctypes object; NULL before _bind() */
    PyObject *lock;
    PyObject *acquire; /* its methods */
    PyObject *release;
    PyObject *memory;    /* a Cell or Segment, or None: `obj` lies elsewhere */
    pyc_ipc_lock *rlock; /* `lock`, if it is an RLock of ours */
    char *at;            /* where the items are; NULL: ask `obj` */
    Py_ssize_t length;
    Py_ssize_t width;
    char code[2]; /* the items' type code, as a string */
} pyc_value;

/* How a lock was taken. */
enum { PYC_NOT_TAKEN = -1, PYC_HAD_IT, PYC_TAKEN, PYC_CALLED };

int pyc_value_wait(pyc_value *self);
int pyc_value_called(pyc_value *self, int how);

/* Takes the lock for a few lines that neither call Python nor leave anything
 * half done: that is why nobody is told when this process dies here, which is
 * what not saying who it is means to the lock. */
static inline int
pyc_value_take(pyc_value *self)
{
    pyc_ipc_lock *lock = self->rlock;
    if (PYC_LIKELY(lock != NULL)) {
        _Atomic uint32_t *word = &PYC_LOCK_MEMORY(lock)->word;
        if (pyc_word_look(word) != 0) {
            if (pyc_lock_is_mine(lock, pyc_lock_who(lock, pyc_thread()))) {
                return PYC_HAD_IT;
            }
        }
        else if (PYC_LIKELY(
                     pyc_word_try(word, pyc_arena_me(PYC_ARENA(lock))))) {
            return PYC_TAKEN;
        }
    }
    return pyc_value_wait(self);
}

/* 0, or -1 with an exception: of a lock that is not ours. */
static inline int
pyc_value_give(pyc_value *self, int how)
{
    if (PYC_LIKELY(how == PYC_TAKEN)) {
        pyc_lock_memory *memory = PYC_LOCK_MEMORY(self->rlock);
        if (PYC_UNLIKELY((pyc_word_free(&memory->word) & PYC_SLEEPERS) != 0)) {
            pyc_lock_wake(self->rlock);
        }
        return 0;
    }
    return how == PYC_HAD_IT ? 0 : pyc_value_called(self, how);
}

/* What is not for C: value or the item `key` of the ctypes object is read, or
 * written when `value` is given, under the lock. NULL with an exception. */
PyObject *pyc_value_ask(pyc_value *self, PyObject *key, PyObject *value);

/* Reads and writes of one item, each in one piece. */
static inline uint64_t
pyc_item_load(const char *at, Py_ssize_t width)
{
    switch (width) {
    case 1:
        return __atomic_load_n((const uint8_t *)at, __ATOMIC_RELAXED);
    case 2:
        return __atomic_load_n((const uint16_t *)at, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const uint32_t *)at, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED);
    }
}

static inline void
pyc_item_store(char *at, Py_ssize_t width, uint64_t bits)
{
    switch (width) {
    case 1:
        __atomic_store_n((uint8_t *)at, (uint8_t)bits, __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_store_n((uint16_t *)at, (uint16_t)bits, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n((uint32_t *)at, (uint32_t)bits, __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((uint64_t *)at, bits, __ATOMIC_RELAXED);
    }
}

/* An item's bits as a Python object. */
PyObject *pyc_item_object(char code, uint64_t bits);

/* A Python object as an item's bits: whether it is one of the usual types for
 * it. If not, ctypes knows what to make of it. */
int pyc_item_bits(char code, PyObject *value, uint64_t *bits);

/* A new object of the type, not bound yet; and its end. */
PyObject *pyc_value_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
int pyc_value_traverse(PyObject *self, visitproc visit, void *arg);
int pyc_value_clear(PyObject *self);
void pyc_value_dealloc(PyObject *self);
/* Whether it is bound; else an exception is set. */
int pyc_value_is_bound(pyc_value *self);

PyObject *pyc_value_bind(PyObject *self, PyObject *const *args,
                         Py_ssize_t nargs);
PyObject *pyc_value_get_obj(PyObject *self, PyObject *ignored);
PyObject *pyc_value_get_lock(PyObject *self, PyObject *ignored);
PyObject *pyc_value_enter(PyObject *self, PyObject *ignored);
PyObject *pyc_value_exit(PyObject *self, PyObject *const *args,
                         Py_ssize_t nargs);
extern PyMemberDef pyc_value_members[];

#define PYC_VALUE_METHODS                                                      \
    {"_bind", PYC_KEYWORDS(pyc_value_bind), METH_FASTCALL, NULL},              \
        {"get_obj", pyc_value_get_obj, METH_NOARGS,                            \
         "get_obj($self, /)\n--\n\nThe ctypes object behind the lock."},       \
        {"get_lock", pyc_value_get_lock, METH_NOARGS,                          \
         "get_lock($self, /)\n--\n\nThe lock."},                               \
        {"__enter__", pyc_value_enter, METH_NOARGS, NULL},                     \
    {                                                                          \
        "__exit__", PYC_KEYWORDS(pyc_value_exit), METH_FASTCALL, NULL          \
    }

#define PYC_VALUE_SLOTS                                                        \
    {Py_tp_new, pyc_value_new}, {Py_tp_traverse, pyc_value_traverse},          \
        {Py_tp_clear, pyc_value_clear}, {Py_tp_dealloc, pyc_value_dealloc},    \
    {                                                                          \
        Py_tp_members, pyc_value_members                                       \
    }

#endif
