/* SPDX-License-Identifier: MIT */
/* Exceptions that come to code that has something to finish first. */
#ifndef PYC_SYNC_INTERRUPT_H
#define PYC_SYNC_INTERRUPT_H

#include "py/compat.h"

/* Takes the exception that is set. One that is no Exception, as Ctrl-C, is
 * raised in the main thread as soon as that goes on; others are reported, with
 * `where`. */
void pyc_interrupt_later(PyObject *where);

#endif
