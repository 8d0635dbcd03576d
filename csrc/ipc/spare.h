/* SPDX-License-Identifier: MIT */
/* Memory that a worker keeps from one job to the next.
 *
 * When the objects of a job are gone, Python gives the arenas that they were in
 * back to the kernel and the C library the end of its heap; the next job takes
 * as much, and the kernel clears every page of it again: a tenth of the time of
 * a job that makes many objects. */
#ifndef PYC_IPC_SPARE_H
#define PYC_IPC_SPARE_H

#include "py/compat.h"

/* Keeps memory from now on, in this process and those forked from it. 0, or -1
 * with MemoryError set. */
int pyc_spare_begin(void);

/* Gives back what is kept, which goes on. */
void pyc_spare_give_back(void);

#endif
