/* SPDX-License-Identifier: MIT */
#ifndef PYC_IPC_SEMAPHORE_H
#define PYC_IPC_SEMAPHORE_H

#include "ipc/lock.h"

extern PyType_Spec pyc_semaphore_spec;

#endif
