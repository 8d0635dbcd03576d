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
        self->held = 1;
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
    self->held = next != NULL && next->lost;
    return pyc_waiters_pop(&self->waiters,
                           self->held ? PYC_GRANTED : PYC_TRY_AGAIN);
}

void
pyc_mutex_leave(pyc_mutex *self, pyc_waiter *waiter)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    pyc_lock_take(&self->guard);
    if (!pyc_waiter_leave(waiter) &&
        (waiter->granted || (waiter->woken && !self->held))) {
        wakeup = hand_on(self);
    }
    waiter->granted = 0;
    pyc_lock_give(&self->guard);
    pyc_wakeup_send(&wakeup);
}

int
pyc_mutex_release(pyc_mutex *self)
{
    pyc_wakeup wakeup = {NULL, NULL, NULL};
    pyc_lock_take(&self->guard);
    int was_held = self->held;
    if (PYC_LIKELY(self->waiters.length == 0)) {
        self->held = 0;
    }
    else if (was_held) {
        wakeup = hand_on(self);
    }
    pyc_lock_give(&self->guard);
    pyc_wakeup_send(&wakeup);
    return was_held ? 0 : -1;
}
