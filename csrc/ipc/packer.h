/* SPDX-License-Identifier: MIT */
/* Pickles, with their large buffers beside them.
 *
 * A packer is a pickler of the standard library's that is used again and again,
 * together with the file it writes to, what takes its buffers, and the reducers
 * it asks: those of multiprocessing's ForkingPickler and of copyreg as they are
 * at that moment. A thread takes one out of the module's, so that neither
 * another thread nor a __reduce__ that pickles finds it busy. */
#ifndef PYC_IPC_PACKER_H
#define PYC_IPC_PACKER_H

#include "ipc/state.h"

#define PYC_BUFFER_LEAST 65536 /* bytes; smaller ones stay in the pickle */
#define PYC_BUFFERS_MOST 256   /* of one pickle */

extern PyType_Spec pyc_packer_spec;

typedef struct {
    PyObject *first;   /* bytes: what was written first */
    PyObject *rest;    /* a list of bytes, or NULL */
    PyObject *buffers; /* a list of PickleBuffer, or NULL */
} pyc_packed;

/* 0, or -1 with an exception set. */
int pyc_pack(pyc_ipc *state, PyObject *object, pyc_packed *packed);
void pyc_packed_clear(pyc_packed *packed);

/* The object of a pickle, with `buffers`, a list or NULL. */
PyObject *pyc_unpack(pyc_ipc *state, PyObject *data, PyObject *buffers);

#endif
