/* SPDX-License-Identifier: MIT */
/* What Queue and SimpleQueue show in the same way. */
#ifndef PYC_SYNC_QUEUE_FACE_H
#define PYC_SYNC_QUEUE_FACE_H

#include "sync/queue/queue.h"

#include "py/arguments.h"

/* The methods of those names: 1, PYC_OPEN or -1 with an exception set. */
int pyc_thread_queue_put(pyc_thread_queue *self, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames);
int pyc_thread_queue_get(pyc_thread_queue *self, PyObject **item,
                         PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);
int pyc_thread_queue_put_many(pyc_thread_queue *self, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames);
int pyc_thread_queue_get_many(pyc_thread_queue *self, PyObject **items,
                              PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);

PyObject *pyc_thread_queue_async(pyc_thread_queue *self,
                                 const pyc_operation *operation,
                                 PyObject *item);
PyObject *pyc_thread_queue_put_async(PyObject *self, PyObject *item);
PyObject *pyc_thread_queue_get_async(PyObject *self, PyObject *unused);

/* Nobody waits and nobody holds the heap. */
void pyc_thread_queue_init(pyc_thread_queue *self);

PyObject *pyc_thread_queue_tp_new(PyTypeObject *type, PyObject *args,
                                  PyObject *kwargs);
int pyc_thread_queue_tp_traverse(PyObject *self, visitproc visit, void *arg);
int pyc_thread_queue_tp_clear(PyObject *self);
void pyc_thread_queue_tp_dealloc(PyObject *self);

#endif
