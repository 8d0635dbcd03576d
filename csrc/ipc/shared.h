/* SPDX-License-Identifier: MIT */
/* What every Python object that lives in one block begins with, and what these
 * types have in common. Such a type is not a container: it holds no Python
 * objects but `extra`. */
#ifndef PYC_IPC_SHARED_H
#define PYC_IPC_SHARED_H

#include "ipc/arena.h"

typedef struct {
    PyObject_HEAD
    pyc_ipc *state;
    PyObject *module; /* keeps `state` there, at the interpreter's end, too */
    pyc_block block;
    PyObject *weakrefs;
    PyObject *extra; /* of this process: a recovery callback; pickled along
                        with the object; may be NULL */
} pyc_shared;

#define PYC_MEMORY(self, type) ((type *)((pyc_shared *)(self))->block.memory)
#define PYC_ARENA(self) (((pyc_shared *)(self))->block.arena)

static inline pyc_ipc *
pyc_ipc_of(PyObject *self)
{
    return ((pyc_shared *)self)->state;
}

/* A new object of `type` with a block of its own. */
PyObject *pyc_shared_new(PyTypeObject *type, size_t size, uint32_t kind);

/* What `type.receive(sent, extra)` does: the object of a block that another
 * process sent. */
PyObject *pyc_shared_receive(PyTypeObject *type, PyObject *const *args,
                             Py_ssize_t nargs, uint32_t kind);

/* send(): the tuple; descriptor(): that of the arena; __reduce__: by
 * state->reduce(self). */
PyObject *pyc_shared_send(PyObject *self, PyObject *ignored);
PyObject *pyc_shared_descriptor(PyObject *self, PyObject *ignored);
PyObject *pyc_shared_reduce(PyObject *self, PyObject *ignored);
int pyc_shared_traverse(PyObject *self, visitproc visit, void *arg);
int pyc_shared_clear(PyObject *self);
void pyc_shared_dealloc(PyObject *self);

#define PYC_SHARED_METHODS                                                     \
    {"send", pyc_shared_send, METH_NOARGS,                                     \
     "send($self, /)\n--\n\n"                                                  \
     "What receive() of the same type, in another process, makes the same "    \
     "object from."},                                                          \
        {"descriptor", pyc_shared_descriptor, METH_NOARGS,                     \
         "descriptor($self, /)\n--\n\n"                                        \
         "The descriptor of the memory the object lies in."},                  \
    {                                                                          \
        "__reduce__", pyc_shared_reduce, METH_NOARGS, NULL                     \
    }

/* Py_TPFLAGS_DEFAULT | HAVE_GC | BASETYPE types; the slots they share. */
#define PYC_SHARED_SLOTS                                                       \
    {Py_tp_traverse, pyc_shared_traverse}, {Py_tp_clear, pyc_shared_clear},    \
        {Py_tp_dealloc, pyc_shared_dealloc},                                   \
    {                                                                          \
        Py_tp_members, pyc_shared_members                                      \
    }
extern PyMemberDef pyc_shared_members[]; /* __weaklistoffset__ */

#endif
