/* SPDX-License-Identifier: MIT */
/* Telling that an owner has died. */
#ifndef PYC_IPC_DIED_H
#define PYC_IPC_DIED_H

#include "ipc/shared.h"
#include "ipc/sleep.h"

/* Calls `recover`, which may be NULL, with an OwnerDied: 0, or -1 with the
 * exception that it raised or, without one to call, the OwnerDied. */
int pyc_owner_died(PyObject *self, pyc_owner died, PyObject *recover);

/* Whether to ask if owners are alive: once a slice, as attempts that do not
 * wait may come by the thousand. `looked`: when it was last done. */
static inline bool
pyc_owner_may_ask(int64_t *looked)
{
    int64_t now = pyc_clock_now();
    if (now - pyc_load(*looked) < PYC_SLICE) {
        return false;
    }
    pyc_store(*looked, now);
    return true;
}

#endif
