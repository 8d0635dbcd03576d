/* SPDX-License-Identifier: MIT */
#include "sync/sync.h"

#include "sync/lock.h"
#include "sync/mailbox.h"
#include "sync/queue/queue.h"
#include "sync/wait.h"
#include "sync/watch.h"

int
pyc_sync_register(PyObject *module, pyc_state *state)
{
    int (*const parts[])(PyObject *, pyc_state *) = {
        pyc_mailbox_register,      pyc_awaitable_register,
        pyc_watch_register,        pyc_lock_register,
        pyc_rlock_register,        pyc_condition_register,
        pyc_semaphore_register,    pyc_event_register,
        pyc_barrier_register,      pyc_thread_queue_register,
        pyc_simple_queue_register,
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i](module, state) < 0) {
            return -1;
        }
    }
    return 0;
}
