/* SPDX-License-Identifier: MIT */
#include "sync/mutex.h"

int
pyc_mutex_attempt(pyc_mutex *self, pyc_waiter *waiter, int join)
{
    int got = 0;
    pyc_lock_take(&self->guard);
    pyc_waiter_leave(waiter);
    if (waiter->granted) {
        waiter->granted = 0;
        got = 1;
    }
    else if (!self->held) {
        pyc_store(self->held, 1);
        got = 1;
    }
    else if (join) {
        pyc_waiters_join(&self->waiters, waiter);
    }
    pyc_lock_give(&self->guard);
    return got;
}

/* Under the guard: lets go of it. */
static pyc_wakeup
hand_on(pyc_mutex *self)
{
    pyc_waiter *next = pyc_waiters_first(&self->waiters);
    int grants = next != NULL && next->lost;
    pyc_store(self->held, (char)grants);
    return pyc_waiters_pop(&self->waiters,
                           grants ? PYC_GRANTED : PYC_TRY_AGAIN);
}

/* Under the guard: passes on what `waiter`, which stands in no queue, was woken
 * for. */
static pyc_wakeup
pass_on(pyc_mutex *self, pyc_waiter *waiter)
{
    int free = waiter->granted || !self->held;
    waiter->granted = 0;
    return free ? hand_on(self) : (pyc_wakeup){NULL, NULL, NULL};
}

static pyc_wakeup
redirect(void *self, pyc_waiter *missed)
{
    return pass_on((pyc_mutex *)self, missed);
}

static void
wake(pyc_mutex *self, pyc_wakeup *wakeup)
{
    pyc_wakeup_send(wakeup, &self->waiters, &self->guard, redirect, self);
}

void
pyc_mutex_leave(pyc_mutex *self, pyc_waiter *waiter)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    pyc_lock_take(&self->guard);
    if (!pyc_waiter_leave(waiter) && waiter->woken) {
        wakeup = pass_on(self, waiter);
    }
    pyc_lock_give(&self->guard);
    wake(self, &wakeup);
}

int
pyc_mutex_release(pyc_mutex *self)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    pyc_lock_take(&self->guard);
    int was_held = self->held;
    if (PYC_LIKELY(self->waiters.length == 0)) {
        pyc_store(self->held, 0);
    }
    else if (was_held) {
        wakeup = hand_on(self);
    }
    pyc_lock_give(&self->guard);
    wake(self, &wakeup);
    return was_held ? 0 : -1;
}
