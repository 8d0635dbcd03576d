/* SPDX-License-Identifier: MIT */
/* What runs without an event loop knows of asyncio, which it does not import:
 * a process that has no loop does not pay for one. */
#ifndef PYC_PY_ASYNCIO_H
#define PYC_PY_ASYNCIO_H

#include "py/compat.h"
#include "py/state.h"

/* Whether asyncio has been imported, by whom ever: then what PYC_STATE_ASYNCIO
 * lists is in the state from now on. Where it has not, no loop runs. */
int pyc_asyncio_is_there(pyc_state *state);

/* The event loop that runs in this thread, or None; NULL with an exception. */
PyObject *pyc_running_loop(pyc_state *state);

#endif
