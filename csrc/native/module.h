/* SPDX-License-Identifier: MIT */
#ifndef PYC_NATIVE_MODULE_H
#define PYC_NATIVE_MODULE_H

#include "py/compat.h"

extern PyModuleDef pyc_native_module;

#endif
