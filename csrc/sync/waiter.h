/* SPDX-License-Identifier: MIT */
/* A queue of those who wait for one thing: threads, each asleep on a word of
 * its own, and coroutines, each reached through the mailbox of its loop.
 *
 * The queue is guarded by its owner's pyc_lock. Whoever provides what is
 * waited for takes a waiter out under that lock and wakes it after. A waiter
 * that comes and finds the thing gone again stands in front, and what is
 * provided next is granted to it, so that nobody starves. */
#ifndef PYC_SYNC_WAITER_H
#define PYC_SYNC_WAITER_H

#include "py/compat.h"
#include "py/lock.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/futex.h"
#include "base/list.h"
#include "sync/mailbox.h"

typedef struct {
    pyc_link head;
    Py_ssize_t length;
    pyc_link called; /* coroutines that were woken and have not looked yet */
} pyc_waiters;

typedef struct {
    pyc_link link;
    pyc_waiters *queue; /* NULL when it stands in none */
    char called;        /* and is among those of the queue that were woken */
    _Atomic uint32_t woken;
    char granted; /* what it waited for is its own already */
    char refused; /* was woken with something else than it waited for */
    char lost;    /* was woken in vain once */
    char moved;   /* from the queue it joined to another */
    pid_t process;
    PyObject *future; /* of a coroutine, else NULL */
    pyc_mailbox *mailbox;
} pyc_waiter;

/* Somebody to be woken once the lock is given back. */
typedef struct {
    _Atomic uint32_t *word;
    PyObject *future;
    pyc_mailbox *mailbox;
} pyc_wakeup;

/* How a waiter is woken. */
typedef enum { PYC_TRY_AGAIN, PYC_GRANTED, PYC_REFUSED } pyc_verdict;

static inline void
pyc_waiters_init(pyc_waiters *self)
{
    pyc_link_init(&self->head);
    pyc_link_init(&self->called);
    self->length = 0;
}

/* Under the lock: puts the waiter at the end, in front if it was woken in
 * vain. */
void pyc_waiters_join(pyc_waiters *self, pyc_waiter *waiter);

/* Under the lock: the one to be served next, or NULL. Those that a fork left
 * behind are gone. */
pyc_waiter *pyc_waiters_first(pyc_waiters *self);

/* Under the lock: takes the first out, if there is one. */
pyc_wakeup pyc_waiters_pop(pyc_waiters *self, pyc_verdict verdict);

/* Under the locks of both: has the first of one stand at the end of another. */
void pyc_waiters_move(pyc_waiters *from, pyc_waiters *to);

/* Under the lock: takes the waiter out of where it stands: whether it stood
 * somewhere. */
static inline int
pyc_waiter_leave(pyc_waiter *waiter)
{
    if (waiter->queue == NULL) {
        return 0;
    }
    int stood = !waiter->called;
    waiter->queue->length -= stood;
    waiter->called = 0;
    waiter->queue = NULL;
    pyc_link_remove(&waiter->link);
    return stood;
}

/* Has the waiter, which stands in no queue, stand in front when it joins one.
 */
static inline void
pyc_waiter_goes_first(pyc_waiter *waiter)
{
    atomic_store_explicit(&waiter->woken, 1, memory_order_relaxed);
}

/* Who is to be woken instead when a wake did not arrive, because the loop of
 * `missed` is closed: what was granted to it is to be taken back. Under the
 * lock. */
typedef pyc_wakeup (*pyc_redirect)(void *owner, pyc_waiter *missed);

void pyc_wakeup_deliver(pyc_wakeup *wakeup, pyc_waiters *queue, pyc_lock *guard,
                        pyc_redirect redirect, void *owner);

/* Not under the lock: may call Python code, and keeps an exception that is
 * set. What was taken out of `queue` goes to another by `redirect` if it does
 * not arrive; NULL: it need not. */
static inline void
pyc_wakeup_send(pyc_wakeup *wakeup, pyc_waiters *queue, pyc_lock *guard,
                pyc_redirect redirect, void *owner)
{
    if (PYC_UNLIKELY(wakeup->word != NULL || wakeup->future != NULL)) {
        pyc_wakeup_deliver(wakeup, queue, guard, redirect, owner);
    }
}

/* Sleeps, without the GIL, until woken: 1, 0 when the deadline passed first,
 * -EINTR after a signal. */
int pyc_waiter_doze(pyc_waiter *waiter, int64_t deadline);

/* The same, and handles signals: -1 when a handler raised (never if `deaf`). */
int pyc_waiter_sleep(pyc_waiter *waiter, int64_t deadline, int deaf);

#endif
