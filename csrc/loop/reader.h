/* SPDX-License-Identifier: MIT */
/* add_reader(), add_writer() and their opposites. */
#ifndef PYC_LOOP_READER_H
#define PYC_LOOP_READER_H

#include "py/compat.h"
#include "loop/loop.h"

#define PYC_FASTCALL(function)                                                 \
    ((PyCFunction)(void (*)(void))(function)), METH_FASTCALL | METH_KEYWORDS

#define PYC_READER_METHOD(name)                                                \
    PyObject *pyc_loop_##name(pyc_loop *self, PyObject *const *args,           \
                              Py_ssize_t nargs, PyObject *kwnames)
PYC_READER_METHOD(add_reader);
PYC_READER_METHOD(add_writer);
PYC_READER_METHOD(remove_reader);
PYC_READER_METHOD(remove_writer);
PYC_READER_METHOD(add_reader_unchecked);
PYC_READER_METHOD(add_writer_unchecked);
PYC_READER_METHOD(remove_reader_unchecked);
PYC_READER_METHOD(remove_writer_unchecked);
PyObject *pyc_loop_check_descriptor(pyc_loop *self, PyObject *fd);

/* For loop.c: when the loop closes or is collected. */
void pyc_readers_close(pyc_loop *loop);
int pyc_readers_traverse(pyc_loop *loop, visitproc visit, void *arg);

#define PYC_READER_METHODS                                                     \
    {"add_reader", PYC_FASTCALL(pyc_loop_add_reader),                          \
     "add_reader($self, /, fd, callback, *args)\n--\n\n"                       \
     "Call callback(*args) whenever `fd`, a descriptor or an object with "     \
     "fileno(), is readable.\n\nValueError for no descriptor, RuntimeError "   \
     "for one that a transport uses.\n\nSource: asyncio.loop.add_reader"},     \
        {"add_writer", PYC_FASTCALL(pyc_loop_add_writer),                      \
         "add_writer($self, /, fd, callback, *args)\n--\n\n"                   \
         "Call callback(*args) whenever `fd` is writable.\n\n"                 \
         "Source: asyncio.loop.add_writer"},                                   \
        {"remove_reader", PYC_FASTCALL(pyc_loop_remove_reader),                \
         "remove_reader($self, /, fd)\n--\n\n"                                 \
         "Undo add_reader(); whether there was something to undo.\n\n"         \
         "Source: asyncio.loop.remove_reader"},                                \
        {"remove_writer", PYC_FASTCALL(pyc_loop_remove_writer),                \
         "remove_writer($self, /, fd)\n--\n\n"                                 \
         "Undo add_writer(); whether there was something to undo.\n\n"         \
         "Source: asyncio.loop.remove_writer"},                                \
        {"_add_reader", PYC_FASTCALL(pyc_loop_add_reader_unchecked),           \
         "_add_reader($self, /, fd, callback, *args)\n--\n\n"                  \
         "add_reader() for a transport's own descriptor; returns the "         \
         "Handle."},                                                           \
        {"_add_writer", PYC_FASTCALL(pyc_loop_add_writer_unchecked),           \
         "_add_writer($self, /, fd, callback, *args)\n--\n\n"                  \
         "add_writer() for a transport's own descriptor; returns the "         \
         "Handle."},                                                           \
        {"_remove_reader", PYC_FASTCALL(pyc_loop_remove_reader_unchecked),     \
         "_remove_reader($self, /, fd)\n--\n\n"                                \
         "remove_reader() for a transport's own descriptor."},                 \
        {"_remove_writer", PYC_FASTCALL(pyc_loop_remove_writer_unchecked),     \
         "_remove_writer($self, /, fd)\n--\n\n"                                \
         "remove_writer() for a transport's own descriptor."},                 \
        {"_ensure_fd_no_transport", (PyCFunction)pyc_loop_check_descriptor,    \
         METH_O,                                                               \
         "_ensure_fd_no_transport($self, fd, /)\n--\n\n"                       \
         "RuntimeError when a transport uses `fd`."},

#endif
