/* SPDX-License-Identifier: MIT */
#include "native/module.h"

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&pyc_native_module);
}
