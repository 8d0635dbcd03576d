/* SPDX-License-Identifier: MIT */
#ifndef PYC_IPC_RWLOCK_H
#define PYC_IPC_RWLOCK_H

#include "ipc/shared.h"

extern PyType_Spec pyc_rwlock_spec;

#endif
