/* SPDX-License-Identifier: MIT */
/* Shared memory that has a name, in /dev/shm, as multiprocessing.shared_memory
 * knows it. */
#ifndef PYC_IPC_POSIX_H
#define PYC_IPC_POSIX_H

#include "ipc/state.h"

/* A mapping of it: what a view holds. The memory goes with the last reference,
 * so that an array of numpy's, which keeps a reference without a Py_buffer,
 * never reads what is mapped no more. */
typedef struct {
    PyObject_HEAD
    char *memory;
    Py_ssize_t size;
    Py_ssize_t exports;
} pyc_mapping;

/* The base of SharedMemory. */
typedef struct {
    PyObject_HEAD
    PyObject *mapping; /* NULL before it is opened and after close() */
} pyc_named;

extern PyType_Spec pyc_mapping_spec;
extern PyType_Spec pyc_named_spec;
extern PyType_Spec pyc_shareable_list_spec;

/* The state of the module that made the type of `self` or a base of it. */
static inline pyc_ipc *
pyc_posix_state(PyObject *self)
{
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &pyc_ipc_module);
    return module == NULL ? NULL : pyc_ipc_of_module(module);
}

/* A new reference, or NULL with a ValueError when the memory is closed. */
pyc_mapping *pyc_named_mapping(PyObject *named);

#endif
