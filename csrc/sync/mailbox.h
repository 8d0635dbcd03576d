/* SPDX-License-Identifier: MIT */
/* Outcomes on their way to the futures of an event loop, any asyncio loop:
 * the first wakes the loop, those that follow before it looks ride along. */
#ifndef PYC_SYNC_MAILBOX_H
#define PYC_SYNC_MAILBOX_H

#include "py/compat.h"
#include "py/lock.h"
#include "py/state.h"

typedef enum { PYC_RESULT, PYC_EXCEPTION, PYC_CANCEL } pyc_outcome;

typedef struct {
    PyObject *future; /* of asyncio */
    PyObject *value;  /* NULL for PYC_CANCEL */
    pyc_outcome outcome;
} pyc_letter;

typedef struct pyc_mailbag pyc_mailbag;

/* Never holds letters that are on their way: a mailbox lives as long as the
 * module does, and letters keep their loop alive. */
typedef struct {
    PyObject_HEAD
    PyObject *loop;   /* a weak reference */
    pyc_mailbag *bag; /* where letters go; owned unless announced */
    int announced; /* the loop has been told to come, or is being told: the bag
                    * belongs to who tells it, then to the loop */
    pyc_lock lock;
    pyc_state *module;
} pyc_mailbox;

/* The mailbox of `loop`: a new reference. */
pyc_mailbox *pyc_mailbox_of(pyc_state *module, PyObject *loop);

/* Whether this is the mailbox of `loop`. */
int pyc_mailbox_serves(pyc_mailbox *self, PyObject *loop);

/* Sends an outcome to `future`. From any thread, never with an exception: 1; 0
 * when the loop is closed, and the letter dropped; PYC_FOLLOWS when others are
 * on their way, whose loop may have been closed since. */
int pyc_mailbox_put(pyc_mailbox *self, PyObject *future, pyc_outcome outcome,
                    PyObject *value);

#define PYC_FOLLOWS 2

/* Whether the loop is there and not closed. Never an exception. */
int pyc_mailbox_is_open(pyc_mailbox *self);

/* Sets the asyncio future, in its loop's thread, unless it is done: 0, or -1
 * with an exception set. */
int pyc_mailbox_deliver(pyc_state *module, const pyc_letter *letter);

int pyc_mailbox_register(PyObject *module, pyc_state *state);

#endif
