/* SPDX-License-Identifier: MIT */
/* The methods that schedule: call_soon() and its like, futures and tasks. */
#ifndef PYC_LOOP_SCHEDULE_H
#define PYC_LOOP_SCHEDULE_H

#include "py/compat.h"
#include "loop/loop.h"

PyObject *pyc_loop_call_soon_method(pyc_loop *self, PyObject *const *args,
                                    Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyc_loop_call_soon_threadsafe(pyc_loop *self, PyObject *const *args,
                                        Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyc_loop_call_later(pyc_loop *self, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyc_loop_call_at(pyc_loop *self, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames);
PyObject *pyc_loop_get_time(pyc_loop *self, PyObject *unused);
PyObject *pyc_loop_create_future(pyc_loop *self, PyObject *unused);
/* As the loop begins to run: 0, or -1 with an exception. */
int pyc_futures_run_begins(pyc_loop *self);
PyObject *pyc_loop_create_task(pyc_loop *self, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames);

#define PYC_SCHEDULE_METHODS                                                   \
    {"call_soon", (PyCFunction)(void (*)(void))pyc_loop_call_soon_method,      \
     METH_FASTCALL | METH_KEYWORDS,                                            \
     "call_soon($self, /, callback, *args, context=None)\n--\n\n"              \
     "Run callback(*args) in the next turn of the loop, in `context` or a "    \
     "copy of the current one.\n\nReturns a Handle. RuntimeError when the "    \
     "loop "                                                                   \
     "is closed.\n\nSource: asyncio.loop.call_soon"},                          \
        {"call_soon_threadsafe",                                               \
         (PyCFunction)(void (*)(void))pyc_loop_call_soon_threadsafe,           \
         METH_FASTCALL | METH_KEYWORDS,                                        \
         "call_soon_threadsafe($self, /, callback, *args, "                    \
         "context=None)\n--\n\n"                                               \
         "call_soon() from any thread; wakes the loop.\n\n"                    \
         "Source: asyncio.loop.call_soon_threadsafe"},                         \
        {"call_later", (PyCFunction)(void (*)(void))pyc_loop_call_later,       \
         METH_FASTCALL | METH_KEYWORDS,                                        \
         "call_later($self, /, delay, callback, *args, context=None)\n--\n\n"  \
         "Run callback(*args) after `delay` seconds, never earlier.\n\n"       \
         "Returns a TimerHandle. TypeError for a delay that is no number, "    \
         "ValueError for nan.\n\nSource: asyncio.loop.call_later"},            \
        {"call_at", (PyCFunction)(void (*)(void))pyc_loop_call_at,             \
         METH_FASTCALL | METH_KEYWORDS,                                        \
         "call_at($self, /, when, callback, *args, context=None)\n--\n\n"      \
         "Run callback(*args) when time() reaches `when` seconds, never "      \
         "earlier.\n\nSource: asyncio.loop.call_at"},                          \
        {"time", (PyCFunction)pyc_loop_get_time, METH_NOARGS,                  \
         "time($self, /)\n--\n\nThe loop's clock in seconds: "                 \
         "time.monotonic().\n\nSource: asyncio.loop.time"},                    \
        {"create_future", (PyCFunction)pyc_loop_create_future, METH_NOARGS,    \
         "create_future($self, /)\n--\n\nA new asyncio.Future of this "        \
         "loop.\n\n"                                                           \
         "Source: asyncio.loop.create_future"},                                \
        {"create_task", (PyCFunction)(void (*)(void))pyc_loop_create_task,     \
         METH_FASTCALL | METH_KEYWORDS,                                        \
         "create_task($self, /, coro, **kwargs)\n--\n\n"                       \
         "A Task that runs `coro`; the keywords are those of the running "     \
         "Python's "                                                           \
         "asyncio.Task (name, context, eager_start).\n\n"                      \
         "Source: asyncio.loop.create_task"},

#endif
