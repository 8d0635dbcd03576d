/* SPDX-License-Identifier: MIT */
/* The way of data into asyncio's streams. */
#ifndef PYC_NET_FEED_H
#define PYC_NET_FEED_H

#include "net/callback.h"

/* Finds protocol.data_received; of an asyncio.StreamReaderProtocol as it comes,
 * a function in C that does the same. 0, or -1 with an exception. */
int pyc_callback_find_data(pyc_callback *callback, pyc_state *state,
                           PyObject *protocol);

/* protocol.data_received(data), by way of the callback: a new reference, or
 * NULL with an exception. */
static inline PyObject *
pyc_callback_tell_data(pyc_callback *callback, pyc_state *state,
                       PyObject *protocol, PyObject *data)
{
    if (PYC_UNLIKELY(callback->fn == NULL) &&
        pyc_callback_find_data(callback, state, protocol) < 0) {
        return NULL;
    }
    return pyc_callback_call(callback, data);
}

#endif
