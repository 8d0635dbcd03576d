/* SPDX-License-Identifier: MIT */
/* Whether it pays to let others have the CPU, or to look for a moment, before
 * sleeping: an object remembers, in each process, how that went. Two that
 * answer each other at once need not sleep at all: on one CPU they hand it to
 * each other, on two they look. */
#ifndef PYC_IPC_LUCK_H
#define PYC_IPC_LUCK_H

#include "ipc/patience.h"
#include "ipc/sleep.h"
#include "ipc/word.h"

#include "py/lock.h"

enum { PYC_LUCK_LEAST = -1, PYC_LUCK_MOST = 3 };

/* Two who answer each other have to be awake at once to find out that it pays:
 * now and then, in the same wait of both, they look for as long as it takes to
 * wake the other, without the GIL. */
#define PYC_LUCK_AGAIN 64        /* waits before, twice as many each time */
#define PYC_LUCK_AGAIN_MOST 4096 /* at most */
#define PYC_LUCK_LONG INT64_C(100000) /* ns */
#define PYC_LUCK_SHORT INT64_C(10000)

typedef struct {
    int luck;    /* below 0: not now */
    int skipped; /* waits since then */
    int again;   /* how many are to be skipped; 0: PYC_LUCK_AGAIN */
    pyc_patience yielding;
} pyc_luck;

static inline void
pyc_luck_learn(pyc_luck *self, bool worked)
{
    int luck = pyc_load(self->luck);
    if (worked) {
        pyc_store(self->luck, luck < PYC_LUCK_MOST ? luck + 1 : luck);
        pyc_store(self->again, 0);
    }
    else if (luck > PYC_LUCK_LEAST) {
        pyc_store(self->luck, luck - 1);
    }
}

/* Whether to look for long. */
static inline bool
pyc_luck_tries_long(pyc_luck *self)
{
    int again = pyc_load(self->again), skipped = pyc_load(self->skipped) + 1;
    again = again == 0 ? PYC_LUCK_AGAIN : again;
    if (skipped > again) {
        skipped = 0;
        again = again < PYC_LUCK_AGAIN_MOST ? again * 2 : again;
    }
    pyc_store(self->skipped, skipped);
    pyc_store(self->again, again);
    return skipped == 0 || skipped == again;
}

static inline bool
pyc_luck_watch_long(pyc_luck *self, _Atomic uint32_t *word, uint32_t value)
{
    int64_t start = pyc_clock_now(), now = start;
    bool changed = false;
    Py_BEGIN_ALLOW_THREADS
    while (!changed && now - start < PYC_LUCK_LONG) {
        pyc_pause(8);
        changed = pyc_word_look(word) != value;
        now = pyc_clock_now();
    }
    Py_END_ALLOW_THREADS
    if (changed && now - start < PYC_LUCK_SHORT) {
        pyc_store(self->luck, PYC_LUCK_MOST);
    }
    return changed;
}

static inline bool
pyc_luck_yield(pyc_luck *self, _Atomic uint32_t *word, uint32_t value)
{
    if (!pyc_patience_allows(&self->yielding)) {
        return false;
    }
    bool cheap = pyc_yield(&self->yielding),
         changed = pyc_word_look(word) != value;
    pyc_patience_learn(&self->yielding, !cheap    ? PYC_DEAR
                                        : changed ? PYC_READY
                                                  : PYC_IN_VAIN);
    return changed;
}

/* Looks at it for as long as a statement or two take. */
static inline bool
pyc_luck_watch_short(pyc_luck *self, _Atomic uint32_t *word, uint32_t value)
{
    bool changed = false;
    for (int pauses = 1; !changed && pauses <= PYC_PAUSES; pauses *= 2) {
        pyc_pause(pauses);
        changed = pyc_word_look(word) != value;
    }
    pyc_luck_learn(self, changed);
    return changed;
}

/* Waits for a moment, first in the way that has worked: whether the word has
 * another value now. */
static inline bool
pyc_luck_watch(pyc_luck *self, _Atomic uint32_t *word, uint32_t value)
{
    int luck = pyc_load(self->luck);
    if (luck > 0) {
        return pyc_luck_watch_short(self, word, value) ||
               pyc_luck_yield(self, word, value);
    }
    /* Counts each wait, so that both look long in the same one. */
    bool tries_long = luck < 0 && pyc_luck_tries_long(self);
    if (pyc_luck_yield(self, word, value)) {
        return true;
    }
    return luck < 0 ? tries_long && pyc_luck_watch_long(self, word, value)
                    : pyc_luck_watch_short(self, word, value);
}

#endif
