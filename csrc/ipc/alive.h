/* SPDX-License-Identifier: MIT */
/* Whether a process is still the one it was, and running. */
#ifndef PYC_IPC_ALIVE_H
#define PYC_IPC_ALIVE_H

#include "py/compat.h"

#include <stdbool.h>
#include <stdint.h>

/* When the process started, in the kernel's ticks since boot; 0 when there is
 * no such process or no /proc. */
uint64_t pyc_process_start(int pid);

/* False once it has ended, even if its parent has not asked for its status yet,
 * and when the pid is another's now. Without /proc a pid used again is taken
 * for the process. */
bool pyc_process_is_alive(int pid, uint64_t start);

#endif
