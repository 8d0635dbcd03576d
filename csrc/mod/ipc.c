/* SPDX-License-Identifier: MIT */
#include "ipc/module.h"

PyMODINIT_FUNC PyInit__ipc(void);

PyMODINIT_FUNC
PyInit__ipc(void)
{
    return PyModuleDef_Init(&pyc_ipc_module);
}
