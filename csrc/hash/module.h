/* SPDX-License-Identifier: MIT */
#ifndef PYC_HASH_MODULE_H
#define PYC_HASH_MODULE_H

#include "py/compat.h"

extern PyModuleDef pyc_hash_module;

#endif
