/* SPDX-License-Identifier: MIT */
#ifndef PYC_IPC_EVENT_H
#define PYC_IPC_EVENT_H

#include "ipc/shared.h"

extern PyType_Spec pyc_event_spec;

#endif
