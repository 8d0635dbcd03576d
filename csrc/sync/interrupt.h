/* SPDX-License-Identifier: MIT */
/* Exceptions that come to code that has something to finish first. */
#ifndef PYC_SYNC_INTERRUPT_H
#define PYC_SYNC_INTERRUPT_H

#include "py/compat.h"

/* Takes the exception that is set. One that is no Exception is raised in this
 * thread as soon as its Python code goes on: in the main thread itself, as it
 * may be a signal handler's, in another its type without arguments, as
 * PyThreadState_SetAsyncExc() does. Others are reported, with `where`. */
void pyc_interrupt_later(PyObject *where);

#endif
