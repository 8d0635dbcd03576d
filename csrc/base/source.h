/* SPDX-License-Identifier: MIT */
/* Where outcomes come from that no thread of this process brings by itself: a
 * thread that waits for one collects them meanwhile. What one extension module
 * has, others call, so it travels in a capsule of this name, and is there as
 * long as the object is that gave the capsule. All is called by threads that
 * are attached to the interpreter. */
#ifndef PYC_BASE_SOURCE_H
#define PYC_BASE_SOURCE_H

#include <stdatomic.h>
#include <stdint.h>

#define PYC_SOURCE "pyconc.source"

typedef struct pyc_source pyc_source;

/* How a source ends the Futures of another module. */
typedef struct {
    /* Sets the outcome and wakes who waits, but calls no callbacks: *callbacks
     * are those to call, or NULL. 1; 0: it is not of this kind; -1 with an
     * exception set, InvalidStateError when it had ended before. */
    int (*end)(void *future, void *value, int failed, void **callbacks);
    /* Takes the callbacks over. 0, or -1 with an exception of theirs set that
     * is no Exception. */
    int (*call)(void *future, void *callbacks);
} pyc_ending;

struct pyc_source {
    /* Sleeps, detached, while *word is `expected`, until `deadline` at most, as
     * pyc_futex_wait does, and collects what arrives meanwhile unless another
     * thread does. 0 when *word may have another value, -ETIMEDOUT, -EINTR
     * after a signal, -ECANCELED with an exception of Python's set (by a
     * callback, when it is no Exception). */
    int (*wait)(pyc_source *self, _Atomic uint32_t *word, uint32_t expected,
                int64_t deadline);

    /* Has a thread in wait() look at its word again. To be called by who has
     * changed one, after pyc_futex_wake. */
    void (*kick)(pyc_source *self);

    /* Whether a worker has begun what the Future (a PyObject *) stands for:
     * from then on until the Future ends. */
    int (*is_running)(pyc_source *self, void *future);

    /* Set by whoever makes Futures that stand for what comes from here; there
     * for ever; NULL: they are ended by their methods. */
    const pyc_ending *_Atomic ending;
};

#endif
