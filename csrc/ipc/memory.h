/* SPDX-License-Identifier: MIT */
/* Files in memory: without a name, gone with the last process that has them. */
#ifndef PYC_IPC_MEMORY_H
#define PYC_IPC_MEMORY_H

#include "py/compat.h"

/* Whether so much memory can be had, and the others have some left, without
 * swapping or meeting a control group's limit, where that is known: the kernel
 * gives it out first and kills somebody afterwards. 0, or -1 with an OSError
 * set. It runs Python code. */
int pyc_memory_ask(size_t size);

/* Memory for all of a file's `size` bytes, without the GIL, so that a lack of
 * it is an error now and no SIGBUS later: 0; errno; or -1 with an exception
 * set, of pyc_memory_ask() or a signal's handler. */
int pyc_memory_fill(int fd, size_t size);

/* A memfd of `size` bytes that can grow but not shrink, with all its memory
 * there already. `name` is what /proc/PID/maps shows, `flags` are of
 * memfd_create. The descriptor, or -1 with an OSError set. */
int pyc_memory_open(const char *name, size_t size, unsigned flags);

/* Whether a descriptor that was passed on is one of these, of `size` bytes at
 * least: one that can shrink could kill who maps it. 0, or -1 with a ValueError
 * set. */
int pyc_memory_check(int fd, size_t size);

/* What another process has open under that number, opened here. -1 with an
 * OSError set: FileNotFoundError when that process has ended. */
int pyc_memory_open_of(int pid, int fd);

#endif
