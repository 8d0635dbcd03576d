/* SPDX-License-Identifier: MIT */
/* Memory of any size that processes share: a memfd of its own, sealed against
 * shrinking, all of it there from the beginning, so that a lack of memory is an
 * error here and no SIGBUS later. A block in an arena keeps count of who has
 * it. */
#ifndef PYC_IPC_SEGMENT_H
#define PYC_IPC_SEGMENT_H

#include "ipc/shared.h"

#include <stdbool.h>

extern PyType_Spec pyc_segment_spec;

/* The memory of a Segment object. */
void *pyc_segment_memory(PyObject *segment, size_t *size);

/* What receive() of a type with memory of its own begins with, of (block, pid,
 * fd): an object with that block, and the memory in *fd, which is the caller's.
 * A descriptor of pid 0 is this process's already and is taken over, with an
 * error too. NULL with an exception set. */
PyObject *pyc_memory_receive(PyTypeObject *type, PyObject *const *args,
                             Py_ssize_t nargs, uint32_t kind, int *fd);

/* Instead of receive(), of the object that there is already. */
PyObject *pyc_memory_arrived(PyObject *self, PyObject *ignored);
#define PYC_ARRIVED_METHOD                                                     \
    {"_arrived", pyc_memory_arrived, METH_NOARGS,                              \
     "_arrived($self, /)\n--\n\n"                                              \
     "A pickle of it has arrived where it is, and is received."}

/* Keeps memory whose object goes while a pickle of it is on its way, and takes
 * the block and the descriptor over. */
void pyc_memory_keep(pyc_ipc *state, pyc_block *block, int *fd);

/* Closes what was kept open for a receiver that has come, or all. */
void pyc_segments_forget(pyc_ipc *state, bool all);

#endif
