/* SPDX-License-Identifier: MIT */
/* Who needs the GIL beside a thread that is busy with Python code gets it after
 * the switch interval, 5 ms: twice that for a job whose result somebody waits
 * for. He who is about to let go of the GIL for a thread that was just woken
 * makes that interval short until the thread has come. */
#ifndef PYC_POOL_HURRY_H
#define PYC_POOL_HURRY_H

#include "py/compat.h"
#include "py/state.h"

void pyc_hurry_begin(pyc_state *module);

/* To be called by who has waited without the GIL and has it again. */
void pyc_hurry_end(pyc_state *module);

#endif
