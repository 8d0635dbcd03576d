/* SPDX-License-Identifier: MIT */
#include "hash/module.h"

PyMODINIT_FUNC PyInit__hash(void);

PyMODINIT_FUNC
PyInit__hash(void)
{
    return PyModuleDef_Init(&pyc_hash_module);
}
