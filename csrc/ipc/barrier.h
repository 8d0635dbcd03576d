/* SPDX-License-Identifier: MIT */
#ifndef PYC_IPC_BARRIER_H
#define PYC_IPC_BARRIER_H

#include "ipc/shared.h"

extern PyType_Spec pyc_barrier_spec;

#endif
