/* SPDX-License-Identifier: MIT */
/* A thread that notices when a callback has held the loop for too long. It
 * never ticks while the loop sleeps, and no callback does anything for it: it
 * looks at how many the loop has taken up, which the loop counts anyway. */
#ifndef PYC_LOOP_WATCHDOG_H
#define PYC_LOOP_WATCHDOG_H

#include "py/compat.h"
#include "loop/loop.h"

PyObject *pyc_loop_watch(pyc_loop *self, PyObject *limit);
PyObject *pyc_loop_watched(pyc_loop *self, PyObject *unused);
PyObject *pyc_loop_end_watch(pyc_loop *self, PyObject *unused);

/* A run begins, with loop->thread set. 0, or -1 with RuntimeError. */
int pyc_watchdog_run_begins(pyc_loop *loop);
/* Ends the thread, and waits for that; the limit stays. Callable twice. */
void pyc_watchdog_end(pyc_loop *loop);

/* Of a loop that has one: before and after it sleeps or stands still. */
void pyc_watchdog_rest(pyc_watchdog *watchdog);
void pyc_watchdog_rise(pyc_watchdog *watchdog);

#define PYC_WATCHDOG_METHODS                                                   \
    {"_watch", (PyCFunction)pyc_loop_watch, METH_O,                            \
     "_watch($self, seconds, /)\n--\n\nTell of callbacks that hold the loop "  \
     "for so long; 0: of none."},                                              \
        {"_watched", (PyCFunction)pyc_loop_watched, METH_NOARGS,               \
         "_watched($self, /)\n--\n\nWhat _watch() was given last."},           \
        {"_end_watch", (PyCFunction)pyc_loop_end_watch, METH_NOARGS,           \
         "_end_watch($self, /)\n--\n\nEnd the watchdog's thread: the "         \
         "interpreter is about to end."},

#endif
