/* SPDX-License-Identifier: MIT */
/* The types of values beyond multiprocessing's. */
#ifndef PYC_IPC_VALUES_H
#define PYC_IPC_VALUES_H

#include "ipc/state.h"

extern PyType_Spec pyc_atomic_spec;
extern PyType_Spec pyc_snapshot_spec;

#endif
