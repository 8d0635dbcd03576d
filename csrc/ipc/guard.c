/* SPDX-License-Identifier: MIT */
#include "ipc/guard.h"

#include "ipc/arena.h"
#include "ipc/bell.h"
#include "ipc/queue.h"
#include "ipc/segment.h"

#include <unistd.h>

static bool
is_forking(pyc_ipc *state)
{
    return atomic_load_explicit(&state->forker, memory_order_relaxed) ==
           PyThread_get_thread_ident();
}

/* Until it was free. Without the GIL, if the thread has it: who forks runs
 * Python code with the guard, and needs it. At the interpreter's end a thread
 * does not come back from waiting for the GIL, and must not have the guard. */
static void
wait_until_free(pyc_ipc *state)
{
    PyThreadState *thread =
        pyc_thread_state() == NULL ? NULL : PyEval_SaveThread();
    pthread_mutex_lock(&state->guard);
    pthread_mutex_unlock(&state->guard);
    if (thread != NULL) {
        PyEval_RestoreThread(thread);
    }
}

void
pyc_guard_take(pyc_ipc *state)
{
    if (PYC_UNLIKELY(is_forking(state))) {
        if (getpid() == state->pid) {
            return;
        }
        if (pyc_guard_after_fork_in_child(state) < 0) {
            PyErr_WriteUnraisable(NULL);
        }
    }
    while (pthread_mutex_trylock(&state->guard) != 0) {
        wait_until_free(state);
    }
}

void
pyc_guard_give(pyc_ipc *state)
{
    if (PYC_LIKELY(!is_forking(state))) {
        pthread_mutex_unlock(&state->guard);
    }
}

void
pyc_guard_before_fork(pyc_ipc *state)
{
    pyc_guard_take(state);
    atomic_store(&state->forker, PyThread_get_thread_ident());
    pyc_arenas_before_fork(state);
    pyc_queues_before_fork(state);
}

void
pyc_guard_after_fork_in_parent(pyc_ipc *state)
{
    if (is_forking(state)) {
        atomic_store(&state->forker, 0);
        pthread_mutex_unlock(&state->guard);
    }
}

int
pyc_guard_after_fork_in_child(pyc_ipc *state)
{
    if (!is_forking(state)) {
        return 0;
    }
    pyc_bell_close(state);
    int rc = pyc_ipc_introduce(state);
    pyc_arenas_after_fork_in_child(state);
    pyc_queues_after_fork_in_child(state);
    atomic_store(&state->forker, 0);
    pthread_mutex_unlock(&state->guard);
    pyc_segments_forget(state, true);
    return rc;
}
