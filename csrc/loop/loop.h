/* SPDX-License-Identifier: MIT */
/* The event loop: what the folders below build on.
 *
 * A loop belongs to the thread that runs it. Everything here is called in that
 * thread with the GIL held, unless it says otherwise. */
#ifndef PYC_LOOP_LOOP_H
#define PYC_LOOP_LOOP_H

#include "py/compat.h"
#include "py/lock.h"
#include "py/state.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/ring.h"
#include "base/wake.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

typedef struct pyc_loop pyc_loop;
typedef struct pyc_watcher pyc_watcher;
typedef struct pyc_watchdog pyc_watchdog;

/* Runs once, soon; `arg` is still owned by the caller of this function.
 * Whatever it raises it has to report itself (pyc_loop_report). */
typedef void (*pyc_soon_fn)(pyc_loop *loop, PyObject *arg);

/* The descriptor is ready: `events` is UV_READABLE, UV_WRITABLE or both. With
 * an error or hang-up on it, all that were asked for are given. May close the
 * watcher. */
typedef void (*pyc_watcher_fn)(pyc_watcher *watcher, int events);

/* One descriptor watched by one loop. Made and freed by the loop; `owner` is
 * borrowed and for the callback alone. */
struct pyc_watcher {
    uv_poll_t poll;
    pyc_loop *loop; /* borrowed; NULL once the loop is closed */
    pyc_watcher_fn ready;
    /* Its descriptor was closed under it and has been opened anew: closes the
     * watcher. NULL: the loop just lets it watch nothing. */
    void (*gone)(pyc_watcher *watcher);
    void *owner;
    /* Owned: what lives as long as the loop or this does; or NULL, and then
     * maybe a weak reference to the user. */
    PyObject *keep;
    PyObject *user;
    int fd;         /* -1 once a new descriptor has taken its number */
    int events;     /* asked for, as libuv knows it */
    pyc_link fresh; /* in loop->fresh until the next poll */
    pyc_link late;  /* in loop->late until the loop's thread has the GIL */
    int late_events;
    int late_close;
    int retired;        /* another watcher has taken its descriptor */
    atomic_int done_by; /* then: the first to be done, its owner or libuv */
};

/* Something to do once before the next poll: in a list at most once. */
typedef struct pyc_flush pyc_flush;
struct pyc_flush {
    pyc_link link;
    void (*run)(pyc_flush *flush);
};

typedef struct pyc_inbox {
    uv_mutex_t lock;
    pyc_ring items;
    atomic_size_t len;
} pyc_inbox;

struct pyc_loop {
    PyObject_HEAD
    PyObject *weakrefs;
    PyObject *module; /* keeps the state until the loop is gone */
    pyc_state *state;
    /* Set while the poll runs without the GIL; changes with the GIL only, so
     * that other threads can rely on it. */
    PyThreadState *saved;
    pyc_link late; /* watchers that other threads want changed meanwhile */
    /* Without a GIL: of `late`, and of all that libuv has while the loop does
     * not run. Another thread's garbage may have a watcher any time. */
    pyc_lock watching;
    pyc_ring ready;
    pyc_heap timers;
    atomic_size_t timers_cancelled; /* still in the heap, more or less */
    pyc_link flushes;
    unsigned turn;  /* counts the polls */
    pyc_link fresh; /* watchers started since the last poll */
    char *scratch;  /* PYC_SCRATCH_SIZE bytes for reads, made when needed */
    char *tls_out;  /* for records on their way out; NULL while in use */
    size_t tls_out_size;
    unsigned tls_cleared; /* the turn in which OpenSSL's errors were cleared */
    PyObject *failure;    /* an exception that ends run_forever, or NULL */
    atomic_ulong thread;  /* PyThread ident of the running thread, or 0 */
    unsigned fork_generation;
    unsigned parted_generation; /* see pyc_loop_part() */
    atomic_char closed;
    char stopping;
    char uv_wanted;  /* libuv has something to do in the next poll */
    char poll_awake; /* the next poll is likely to find something at once */
    unsigned char polls_asleep; /* in a row */
    char poll_wanted; /* ready callbacks are to wait for the next poll */
    char debug;
    char executor_shutdown;  /* shutdown_default_executor() was called */
    atomic_char initialized; /* the libuv loop is there */
    pyc_watcher **watchers;  /* by descriptor, or NULL */
    size_t watchers_size;
    struct pyc_handle *free_handles; /* linked by their callback field */
    int free_handles_len;
    PyObject *context_copy; /* of the context callbacks were last made in */
    PyObject *context_used; /* the copy of it that one has run in */
    int handles_dying;      /* how deep, one inside the other */
    /* Threads that wait for a handle's run to end, and what they sleep on. */
    _Atomic uint32_t run_waiters;
    _Atomic uint32_t runs_ended;
    pyc_watcher *deadline;      /* NULL until a timer has to end a poll */
    double deadline_armed;      /* when it will end one; 0: not set */
    PyObject *task_factory;     /* or NULL */
    PyObject *default_executor; /* or NULL */
    PyObject *future_kwargs;    /* {"loop": self}, while it runs */
    PyObject *sock_poll;        /* of the sock_*() operations, or NULL */
    atomic_int polling;         /* 1 while a producer has to wake the loop */
    pyc_watcher *wake;          /* ends a poll; NULL until one has to sleep */
    pyc_inbox inbox;
    atomic_size_t served;   /* events of descriptors, for the watchdog */
    double watchdog_limit;  /* seconds, or 0 */
    pyc_watchdog *watchdog; /* NULL before the first run with a limit */
    uv_loop_t uv;
};

#define PYC_SCRATCH_SIZE (256 * 1024)

/* ---- entering and leaving ---------------------------------------------- */

void pyc_loop_wake_up(pyc_loop *loop);

/* The first thing in every callback that libuv makes: takes the GIL back if
 * the poll gave it away. */
static inline void
pyc_loop_enter(pyc_loop *loop)
{
    if (PYC_UNLIKELY(loop->saved != NULL)) {
        pyc_loop_wake_up(loop);
    }
}

/* 0, or -1 with RuntimeError: the loop is closed, or was made before a
 * fork(). */
int pyc_loop_check_usable(pyc_loop *loop);
/* 0, or -1 with RuntimeError: the loop runs in another thread. */
int pyc_loop_check_thread(pyc_loop *loop);

static inline int
pyc_loop_runs_elsewhere(pyc_loop *loop)
{
    unsigned long thread = loop->thread;
    return thread != 0 && thread != PyThread_get_thread_ident();
}

/* In debug mode: -1 with TypeError for what `method` cannot call later. */
int pyc_loop_check_callback(pyc_loop *loop, PyObject *callback,
                            const char *method);
/* Counts the forks this process descends from: process-wide by nature. */
extern atomic_uint pyc_fork_generation;

/* Whether this process is a child of the one that made the loop. */
static inline int
pyc_loop_forked(pyc_loop *loop)
{
    return loop->fork_generation !=
           atomic_load_explicit(&pyc_fork_generation, memory_order_relaxed);
}

/* In a child: takes the libuv loop away from the parent's, whose kernel side
 * the two share, so that closing here changes nothing there. */
void pyc_loop_part(pyc_loop *loop);

/* ---- scheduling -------------------------------------------------------- */

/* Runs fn(loop, arg) in the next turn; takes a reference of its own.
 * 0, or -1 with MemoryError. */
int pyc_loop_soon(pyc_loop *loop, pyc_soon_fn fn, PyObject *arg);

/* loop.call_soon(callback, *args, context=context); context may be NULL.
 * 0, or -1 with an exception. */
int pyc_loop_call_soon(pyc_loop *loop, PyObject *callback,
                       PyObject *const *args, Py_ssize_t nargs,
                       PyObject *context);

/* Has `flush` run once before the next poll. */
static inline void
pyc_loop_flush_later(pyc_loop *loop, pyc_flush *flush)
{
    if (pyc_link_alone(&flush->link)) {
        pyc_link_insert(&loop->flushes, &flush->link);
        if (PYC_UNLIKELY(loop->saved != NULL)) {
            pyc_wake_set(loop->wake->fd); /* from another thread */
        }
    }
}

/* Seconds of CLOCK_MONOTONIC, the value time.monotonic() gives. */
double pyc_loop_time(void);

/* ---- errors ------------------------------------------------------------ */

/* Ends run_forever() with `exc`, a reference to which is stolen. The first one
 * wins. */
void pyc_loop_fail(pyc_loop *loop, PyObject *exc);

/* Takes the exception now raised: SystemExit and KeyboardInterrupt end
 * run_forever() and are raised from it; any other goes to the loop's exception
 * handler with `message` and, if not NULL, `protocol` and `transport`. */
void pyc_loop_report(pyc_loop *loop, const char *message, PyObject *protocol,
                     PyObject *transport);

/* ---- descriptors ------------------------------------------------------- */

/* A watcher of `fd` that asks for nothing yet; NULL with OSError. `fd` is put
 * into non-blocking mode. A stale one of an earlier descriptor with this
 * number gives way. */
pyc_watcher *pyc_watcher_open(pyc_loop *loop, int fd, pyc_watcher_fn ready,
                              void *owner);
/* Asks for `events` (UV_READABLE | UV_WRITABLE, or 0). Cheap when nothing
 * changes. 0, or -1 with OSError. */
int pyc_watcher_set(pyc_watcher *watcher, int events);
/* The same for a user whom nobody else has to keep while it watches. */
int pyc_watcher_set_for(pyc_watcher *watcher, int events, PyObject *user);
/* Ends it; the memory goes when libuv is done with it. Does not close the
 * descriptor, which has to be open still: close it afterwards. */
void pyc_watcher_close(pyc_watcher *watcher);
/* The object that uses the descriptor, for complaints: a new reference, or NULL
 * when it is garbage and has not closed its watcher yet. */
PyObject *pyc_watcher_user(pyc_watcher *watcher);

/* The shared read buffer, PYC_SCRATCH_SIZE bytes; NULL with MemoryError. Good
 * until Python code runs. */
char *pyc_loop_scratch(pyc_loop *loop);

/* ---- the object -------------------------------------------------------- */

int pyc_loop_register(PyObject *module, pyc_state *state);

/* The loop behind an argument, or NULL with TypeError. */
pyc_loop *pyc_loop_from(pyc_state *state, PyObject *object);

#endif
