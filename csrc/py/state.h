/* SPDX-License-Identifier: MIT */
/* The state of pyconc._core: types, exceptions and names, nothing else, so
 * that every folder may include it and it includes none of them. */
#ifndef PYC_PY_STATE_H
#define PYC_PY_STATE_H

#include "py/compat.h"
#include "py/lock.h"

#include "base/list.h"

#include <stdatomic.h>

extern struct PyModuleDef pyc_core_module;

/* Objects of the standard library, imported once a module: all that need no
 * asyncio, */
#define PYC_STATE_IMPORTED(X)                                                  \
    X(base_Future, "concurrent.futures", "Future")                             \
    X(base_ThreadPoolExecutor, "concurrent.futures", "ThreadPoolExecutor")     \
    X(base_InvalidStateError, "concurrent.futures", "InvalidStateError")       \
    X(base_CancelledError, "concurrent.futures", "CancelledError")             \
    X(threading_Condition, "threading", "Condition")                           \
    X(threading_BrokenBarrierError, "threading", "BrokenBarrierError")         \
    X(threading_allocate_lock, "_thread", "allocate_lock")                     \
    X(queue_Empty, "queue", "Empty")                                           \
    X(queue_Full, "queue", "Full")                                             \
    X(base_logger, "concurrent.futures._base", "LOGGER")                       \
    X(weak_dict, "weakref", "WeakKeyDictionary")                               \
    X(socket_type, "socket", "socket")                                         \
    X(sys_getswitchinterval, "sys", "getswitchinterval")                       \
    X(sys_setswitchinterval, "sys", "setswitchinterval")

/* what is taken from asyncio once a program has imported it: py/asyncio.h, */
#define PYC_STATE_ASYNCIO(X)                                                   \
    X(asyncio_get_running_loop, "_get_running_loop")                           \
    X(asyncio_set_running_loop, "_set_running_loop")                           \
    X(asyncio_current_task, "current_task")                                    \
    X(asyncio_CancelledError, "CancelledError")                                \
    X(asyncio_InvalidStateError, "InvalidStateError")

/* and what comes with the event loop: csrc/mod/core.c. */
#define PYC_STATE_LOOP_IMPORTED(X)                                             \
    X(asyncio_Handle, "asyncio", "Handle")                                     \
    X(asyncio_TimerHandle, "asyncio", "TimerHandle")                           \
    X(asyncio_ThreadSafeHandle, "asyncio.events", PYC_THREADSAFE_HANDLE)       \
    X(asyncio_Task, "asyncio", "Task")                                         \
    X(asyncio_Future, "asyncio", "Future")                                     \
    X(asyncio_Transport, "asyncio", "Transport")                               \
    X(asyncio_ReadTransport, "asyncio", "ReadTransport")                       \
    X(asyncio_WriteTransport, "asyncio", "WriteTransport")                     \
    X(asyncio_DatagramTransport, "asyncio", "DatagramTransport")               \
    X(asyncio_Protocol, "asyncio", "Protocol")                                 \
    X(asyncio_BufferedProtocol, "asyncio", "BufferedProtocol")                 \
    X(asyncio_logger, "asyncio.log", "logger")                                 \
    X(asyncio_wrap_future, "asyncio", "wrap_future")                           \
    X(extract_stack, "asyncio.format_helpers", "extract_stack")                \
    X(SelectorEventLoop, "asyncio", "SelectorEventLoop")                       \
    X(SendfileMode, "asyncio.constants", "_SendfileMode")                      \
    X(TransportSocket, "asyncio.trsock", "TransportSocket")                    \
    X(StreamReaderProtocol, "asyncio", "StreamReaderProtocol")

/* Interned names. */
#define PYC_STATE_NAMES(X)                                                     \
    X(asyncio)                                                                 \
    X(loop)                                                                    \
    X(context)                                                                 \
    X(name)                                                                    \
    X(call_exception_handler)                                                  \
    X(message)                                                                 \
    X(exception)                                                               \
    X(protocol)                                                                \
    X(connection_made)                                                         \
    X(connection_lost)                                                         \
    X(data_received)                                                           \
    X(eof_received)                                                            \
    X(get_buffer)                                                              \
    X(buffer_updated)                                                          \
    X(datagram_received)                                                       \
    X(error_received)                                                          \
    X(feed)                                                                    \
    X(pause_reading)                                                           \
    X(resume_reading)                                                          \
    X(pause_writing)                                                           \
    X(resume_writing)                                                          \
    X(sockname)                                                                \
    X(peername)                                                                \
    X(transport)                                                               \
    X(acquire)                                                                 \
    X(release)                                                                 \
    X(notify_all)                                                              \
    X(add_result)                                                              \
    X(add_exception)                                                           \
    X(add_cancelled)                                                           \
    X(add_done_callback)                                                       \
    X(create_future)                                                           \
    X(call_soon_threadsafe)                                                    \
    X(is_closed)                                                               \
    X(cancel)                                                                  \
    X(cancelled)                                                               \
    X(done)                                                                    \
    X(set_result)                                                              \
    X(set_exception)                                                           \
    X(get)                                                                     \
    X(setdefault)                                                              \
    X(_new_condition)                                                          \
    X(remove)                                                                  \
    X(source)                                                                  \
    X(submit)                                                                  \
    X(_start_worker)                                                           \
    X(__enter__)                                                               \
    X(locked)                                                                  \
    X(_at_fork_reinit)                                                         \
    X(fileno)                                                                  \
    X(remove_reader)                                                           \
    X(remove_writer)

#define PYC_USUAL_INTERVALS 4 /* switch intervals that a program uses */

/* Types of this module. */
#define PYC_STATE_TYPES(X)                                                     \
    X(handle_type)                                                             \
    X(timer_handle_type)                                                       \
    X(loop_type)                                                               \
    X(stream_type)                                                             \
    X(stream_source_type)                                                      \
    X(tls_type)                                                                \
    X(tls_transport_type)                                                      \
    X(clients_type)                                                            \
    X(read_pipe_type)                                                          \
    X(write_pipe_type)                                                         \
    X(datagram_type)                                                           \
    X(sock_op_type)                                                            \
    X(sock_poll_type)                                                          \
    X(listener_type)                                                           \
    X(future_type)                                                             \
    X(executor_type)                                                           \
    X(job_queue_type)                                                          \
    X(map_type)                                                                \
    X(waiter_type)                                                             \
    X(awaitable_type)                                                          \
    X(thread_lock_type)                                                        \
    X(rlock_type)                                                              \
    X(mailbox_type)                                                            \
    X(mailbag_type)                                                            \
    X(bridge_type)

typedef struct {
#define X(field, module, name) PyObject *field;
    PYC_STATE_IMPORTED(X)
    PYC_STATE_LOOP_IMPORTED(X)
#undef X
#define X(field, name) PyObject *field;
    PYC_STATE_ASYNCIO(X)
#undef X
#define X(name) PyObject *str_##name;
    PYC_STATE_NAMES(X)
#undef X
    atomic_int asyncio_is_there; /* what PYC_STATE_ASYNCIO lists is here */
    int has_loop;                /* what add_loop() adds has been added */
    PyObject *no_args;           /* () */
    PyObject *kwnames_loop;      /* ("loop",) */
    PyObject *kwnames_context;   /* ("context",) */
    PyObject *kwnames_seen;      /* equal to it, and the last one given */
    int context_known;           /* pyc_context_is_known() */
    PyObject *mailboxes;         /* loop, weakly: where its results wait */
    PyObject *queue_ShutDown;    /* queue's own where it has one */
    PyObject *watch_report;      /* who is told of deadlocks, NULL: nobody */
    pyc_link watched;            /* the threads that wait for locks, then */
    pyc_lock watch_guard;
    /* Whether a short switch interval is set; what to set instead: hurry.c. */
    int hurrying;
    double usual_intervals[PYC_USUAL_INTERVALS];
    PyObject *data_received;  /* of StreamReaderProtocol */
    PyObject *adopt_streams;  /* of pyconc.loop.streams, once needed */
    PyObject *source_of;      /* the same */
    PyObject *tls_again;      /* of ssl, once needed: what is no error */
    PyObject *tls_error;      /* SSLError */
    PyObject *tls_object;     /* SSLObject */
    PyObject *tls_memory_bio; /* MemoryBIO */
#define X(field) PyTypeObject *field;
    PYC_STATE_TYPES(X)
#undef X
} pyc_state;

/* The state behind the module that defines `type` or one of its bases. */
pyc_state *pyc_state_of_type(PyTypeObject *type);
pyc_state *pyc_state_of_module(PyObject *module);

/* Whether the collector has taken the module apart: some of its objects may
 * come after it. */
static inline int
pyc_state_is_cleared(const pyc_state *state)
{
    return state->no_args == NULL;
}

/* Makes the heap type of `spec` in `module`, with `bases` (a type, a tuple or
 * NULL), adds it under its short name and stores a reference in *slot,
 * which is NULL or another. 0, or -1 with an exception set. */
int pyc_add_type(PyObject *module, PyType_Spec *spec, PyObject *bases,
                 PyTypeObject **slot);

/* The tp_dealloc of a type whose tp_clear lets go of all that it has, and that
 * no other type is made from: its tp_clear would be called instead. */
void pyc_dealloc(PyObject *self);

#endif
