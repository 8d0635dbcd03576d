/* SPDX-License-Identifier: MIT */
#ifndef PYC_IPC_MODULE_H
#define PYC_IPC_MODULE_H

#include "ipc/state.h"

/* Makes this process, if it is a forked child, one of its own to all arenas. At
 * the latest the module's hook does it, but the hooks of others come first, and
 * what they let go of must not be the parent's. 0, or -1 with an exception. */
int pyc_ipc_check_fork(pyc_ipc *state);

#endif
