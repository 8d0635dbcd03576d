/* SPDX-License-Identifier: MIT */
#ifndef PYC_IPC_MODULE_H
#define PYC_IPC_MODULE_H

#include "py/compat.h"

extern PyModuleDef pyc_ipc_module;

#endif
