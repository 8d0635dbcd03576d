/* SPDX-License-Identifier: MIT */
#include "sync/waiter.h"

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
    PyObject *loop =
        PyObject_CallNoArgs(mailbox->module->asyncio_get_running_loop);
    if (loop == NULL) {
        PyErr_Clear();
        return 0;
    }
    int here = loop != Py_None && pyc_mailbox_serves(mailbox, loop);
    Py_DECREF(loop);
    return here;
}

void
pyc_wakeup_deliver(pyc_wakeup *wakeup)
{
    if (wakeup->word != NULL) {
        wake_thread(wakeup->word);
        return;
    }
    PyObject *pending = pyc_take_exception();
    if (is_here(wakeup->mailbox)) {
        pyc_letter letter = {wakeup->future, Py_None, PYC_RESULT};
        if (pyc_mailbox_deliver(wakeup->mailbox->module, &letter) < 0) {
            PyErr_WriteUnraisable(wakeup->future);
        }
    }
    else {
        pyc_mailbox_put(wakeup->mailbox, wakeup->future, PYC_RESULT, Py_None);
    }
    Py_DECREF(wakeup->future);
    Py_DECREF(wakeup->mailbox);
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
}

int
pyc_waiter_sleep(pyc_waiter *waiter, int64_t deadline, int deaf)
{
    note_sleep();
    while (!atomic_load(&waiter->woken)) {
        int rc;
        Py_BEGIN_ALLOW_THREADS
        rc = pyc_futex_wait(&waiter->woken, 0, deadline);
        Py_END_ALLOW_THREADS
        if (rc == -EINTR && !deaf && Py_MakePendingCalls() < 0) {
            return -1;
        }
        if (rc == -ETIMEDOUT) {
            return (int)atomic_load(&waiter->woken);
        }
    }
    return 1;
}
