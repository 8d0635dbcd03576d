/* SPDX-License-Identifier: MIT */
#include "sync/waiter.h"

#include "py/asyncio.h"

#include "sync/interrupt.h"

#include <errno.h>
#include <unistd.h>

void
pyc_waiters_join(pyc_waiters *self, pyc_waiter *waiter)
{
    pyc_link *at = &self->head;
    if (atomic_load_explicit(&waiter->woken, memory_order_relaxed)) {
        waiter->lost = 1;
        at = at->next;
    }
    waiter->granted = waiter->refused = 0;
    atomic_store_explicit(&waiter->woken, 0, memory_order_relaxed);
    waiter->process = getpid();
    waiter->queue = self;
    pyc_link_insert(at, &waiter->link);
    self->length++;
}

pyc_waiter *
pyc_waiters_first(pyc_waiters *self)
{
    if (self->length == 0) {
        return NULL;
    }
    pid_t process = getpid();
    while (self->length > 0) {
        pyc_waiter *first = pyc_container(self->head.next, pyc_waiter, link);
        if (first->process == process) {
            return first;
        }
        pyc_waiter_leave(first);
    }
    return NULL;
}

pyc_wakeup
pyc_waiters_pop(pyc_waiters *self, pyc_verdict verdict)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    pyc_waiter *first = pyc_waiters_first(self);
    if (first == NULL) {
        return wakeup;
    }
    pyc_waiter_leave(first);
    first->granted = verdict == PYC_GRANTED;
    first->refused = verdict == PYC_REFUSED;
    if (first->future == NULL) {
        wakeup.word = &first->woken;
    }
    else {
        wakeup.future = Py_NewRef(first->future);
        wakeup.mailbox = (pyc_mailbox *)Py_NewRef(first->mailbox);
        first->called = 1;
        first->queue = self;
        pyc_link_insert(&self->called, &first->link);
    }
    atomic_store(&first->woken, 1);
    return wakeup;
}

/* How many wakes in a row leave the GIL to the woken. */
#define TURNS 64

/* Threads that take turns wake a partner and sleep. Woken while we hold the
 * GIL, the partner would only run into it and sleep again: who has slept
 * between its last wakes lets go of the GIL for the next ones. A hint only. */
static _Thread_local struct {
    int wakes; /* since this thread slept */
    int takes_turns;
} habit;

static void
wake_thread(_Atomic uint32_t *word)
{
    /* The thread may have gone meanwhile: this only names an address. */
    if (!PYC_FREE_THREADED && habit.takes_turns && habit.wakes++ < TURNS) {
        Py_BEGIN_ALLOW_THREADS
        pyc_futex_wake(word, 1);
        Py_END_ALLOW_THREADS
        return;
    }
    habit.wakes++;
    pyc_futex_wake(word, 1);
}

static void
note_sleep(void)
{
    if (habit.wakes > 0) {
        habit.takes_turns = habit.wakes <= TURNS;
        habit.wakes = 0;
    }
}

void
pyc_waiters_move(pyc_waiters *from, pyc_waiters *to)
{
    pyc_waiter *first = pyc_waiters_first(from);
    if (first != NULL) {
        pyc_waiter_leave(first);
        first->moved = 1;
        first->queue = to;
        pyc_link_insert(&to->head, &first->link);
        to->length++;
    }
}

/* Whether this thread is running the loop of the mailbox, so that nobody has
 * to be called. */
static int
is_here(pyc_mailbox *mailbox)
{
    if (pyc_state_is_cleared(mailbox->module)) {
        return 0;
    }
    PyObject *loop = pyc_running_loop(mailbox->module);
    if (loop == NULL) {
        PyErr_Clear();
        return 0;
    }
    int here = loop != Py_None && pyc_mailbox_serves(mailbox, loop);
    Py_DECREF(loop);
    return here;
}

/* Whether the wake has arrived; never an exception. */
static int
tell_coroutine(pyc_wakeup *wakeup)
{
    pyc_mailbox *mailbox = wakeup->mailbox;
    if (!is_here(mailbox)) {
        int sent =
            pyc_mailbox_put(mailbox, wakeup->future, PYC_RESULT, Py_None);
        return sent == PYC_FOLLOWS ? pyc_mailbox_is_open(mailbox) : sent;
    }
    pyc_letter letter = {wakeup->future, Py_None, PYC_RESULT};
    if (pyc_mailbox_deliver(mailbox->module, &letter) < 0) {
        pyc_interrupt_later(wakeup->future);
    }
    return 1;
}

/* Under the lock: takes the one out whom the wake did not reach; NULL when it
 * has given up meanwhile. */
static pyc_waiter *
recall(pyc_waiters *self, const pyc_wakeup *wakeup)
{
    pyc_link *head = &self->called;
    for (pyc_link *at = head->next; at != head; at = at->next) {
        pyc_waiter *waiter = pyc_container(at, pyc_waiter, link);
        if (waiter->future == wakeup->future) {
            pyc_waiter_leave(waiter);
            atomic_store(&waiter->woken, 0);
            return waiter;
        }
    }
    return NULL;
}

/* Who is to be woken instead, if the wake did not arrive. */
static pyc_wakeup
call_coroutine(pyc_wakeup *wakeup, pyc_waiters *queue, pyc_lock *guard,
               pyc_redirect redirect, void *owner)
{
    pyc_wakeup instead = {NULL, NULL, NULL};
    if (!tell_coroutine(wakeup) && redirect != NULL) {
        pyc_lock_take(guard);
        pyc_waiter *missed = recall(queue, wakeup);
        if (missed != NULL) {
            instead = redirect(owner, missed);
        }
        pyc_lock_give(guard);
    }
    Py_DECREF(wakeup->future);
    Py_DECREF(wakeup->mailbox);
    return instead;
}

void
pyc_wakeup_deliver(pyc_wakeup *wakeup, pyc_waiters *queue, pyc_lock *guard,
                   pyc_redirect redirect, void *owner)
{
    if (wakeup->future != NULL) {
        PyObject *pending = pyc_take_exception();
        do {
            *wakeup = call_coroutine(wakeup, queue, guard, redirect, owner);
        } while (wakeup->future != NULL);
        if (pending != NULL) {
            pyc_put_exception(pending);
        }
    }
    if (wakeup->word != NULL) {
        wake_thread(wakeup->word);
    }
}

int
pyc_waiter_doze(pyc_waiter *waiter, int64_t deadline)
{
    note_sleep();
    while (!atomic_load(&waiter->woken)) {
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = pyc_futex_wait(&waiter->woken, 0, deadline);
        Py_END_ALLOW_THREADS
        if (rc == -EINTR) {
            return -EINTR;
        }
        if (rc == -ETIMEDOUT) {
            return (int)atomic_load(&waiter->woken);
        }
    }
    return 1;
}

int
pyc_waiter_sleep(pyc_waiter *waiter, int64_t deadline, int deaf)
{
    int slept;
    while ((slept = pyc_waiter_doze(waiter, deadline)) == -EINTR) {
        if (!deaf && Py_MakePendingCalls() < 0) {
            return -1;
        }
    }
    return slept;
}
