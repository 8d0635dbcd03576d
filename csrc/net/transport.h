/* SPDX-License-Identifier: MIT */
/* What streams and pipes have in common: a transport over a descriptor, which
 * is watched for what the state asks for, with an outbox for what it does not
 * take at once. */
#ifndef PYC_NET_TRANSPORT_H
#define PYC_NET_TRANSPORT_H

#include "loop/loop.h"
#include "net/callback.h"
#include "net/outbox.h"
#include "net/transport_type.h"

typedef struct pyc_transport pyc_transport;

/* What they do differently. */
typedef struct {
    /* What went of `len` pieces of memory, or -1 with an exception. */
    ssize_t (*send)(pyc_transport *self, struct iovec *iov, unsigned len);
    /* All that was queued has gone. */
    void (*emptied)(pyc_transport *self);
    /* Ends it for the exception that is set. */
    void (*fatal)(pyc_transport *self, const char *message);
    /* Watches for what the state now asks for, and holds or releases the
     * transport: needs a reference of the caller. */
    void (*update)(pyc_transport *self);
    pyc_watcher_fn ready;
    const char *write_failed; /* a message */
} pyc_transport_kind;

#define PYC_TRANSPORT_FIELDS                                                   \
    PYC_TRANSPORT_OBJECT; /* the loop, protocol, context: until it is lost */  \
    const pyc_transport_kind *kind;                                            \
    pyc_state *state;                                                          \
    pyc_watcher *watcher;                                                      \
    PyObject *protocol;                                                        \
    PyObject *context;                                                         \
    PyObject *lost_exc;   /* for connection_lost() */                          \
    pyc_callback receive; /* data_received or buffer_updated */                \
    pyc_outbox *outbox;                                                        \
    pyc_flush flush;  /* of the outbox */                                      \
    size_t high, low; /* marks of the write buffer, in bytes */                \
    int fd;                                                                    \
    unsigned wrote; /* the turn of the loop in which it last sent at once */   \
    char gathers;   /* it is all one whether writes go one by one */           \
    char started;   /* connection_made() was called */                         \
    char paused;    /* pause_reading() was called */                           \
    char closing;                                                              \
    char blocked;         /* waits until the descriptor takes more */          \
    char protocol_paused; /* pause_writing() was called */                     \
    char held             /* the list of flushes has a reference */

struct pyc_transport {
    PYC_TRANSPORT_FIELDS;
};

/* The beginning of the others: self->field, and &self->base for what follows.
 */
#define PYC_TRANSPORT_HEAD                                                     \
    union {                                                                    \
        pyc_transport base;                                                    \
        struct {                                                               \
            PYC_TRANSPORT_FIELDS;                                              \
        };                                                                     \
    }

/* ---- transport.c ------------------------------------------------------- */

/* Fills what tp_alloc() gave, but for protocol, context and descriptor. */
void pyc_transport_fill(pyc_transport *self, const pyc_transport_kind *kind,
                        pyc_loop *loop);
/* protocol.name(arg), or .name() if arg is NULL, which if it raises is reported
 * as `message`. */
void pyc_transport_tell(pyc_transport *self, PyObject *name, PyObject *arg,
                        const char *message);
/* connection_made(), and then the first read. */
void pyc_transport_begin(pyc_transport *self);
/* The same in the next turn of the loop, and then the result of the waiter, who
 * may be None. 0, or -1 with an exception. */
int pyc_transport_begin_soon(pyc_transport *self, PyObject *waiter);
/* Reports the exception that is set. */
void pyc_transport_report(pyc_transport *self, const char *message);

/* For kind->update: watches the descriptor, 0, or -1 with an exception... */
int pyc_transport_watch(pyc_transport *self, int events);
void pyc_transport_unwatch(pyc_transport *self);
/* ...and is referred to while it is in the list of flushes. */
void pyc_transport_hold(pyc_transport *self);

/* Methods. */
PyObject *pyc_transport_get_protocol(pyc_transport *self, PyObject *ignored);
PyObject *pyc_transport_is_closing(pyc_transport *self, PyObject *ignored);
PyObject *pyc_transport_is_reading(pyc_transport *self, PyObject *ignored);

#define PYC_TRANSPORT_MEMBERS                                                  \
    PYC_TRANSPORT_OBJECT_MEMBERS,                                              \
        PYC_MEMBER("_closing", T_BOOL, pyc_transport, closing),                \
        PYC_MEMBER("_paused", T_BOOL, pyc_transport, paused),                  \
        PYC_MEMBER("_protocol_paused", T_BOOL, pyc_transport, protocol_paused)
#define PYC_TRANSPORT_GETSET                                                   \
    PYC_TRANSPORT_OBJECT_GETSET, PYC_FIELD("_protocol", pyc_transport, protocol)

int pyc_transport_traverse(pyc_transport *self, visitproc visit, void *arg);
void pyc_transport_clear(pyc_transport *self);

/* ---- transport_write.c ------------------------------------------------- */

/* Sends what is queued: 0, or -1 when the transport has failed. */
int pyc_transport_flush(pyc_transport *self);
/* The same with all that follows when the descriptor takes more. */
void pyc_transport_write_ready(pyc_transport *self);
void pyc_transport_flush_later(pyc_flush *flush);
/* Queues `len` bytes at `data`, of `object` or, if that is NULL, to be copied,
 * of which no more go at once. 0, or -1 with an exception. */
int pyc_transport_queue(pyc_transport *self, PyObject *object, const char *data,
                        size_t len);
/* Something was queued: it goes before the next poll, or at once when it is too
 * much or nobody will poll soon. */
void pyc_transport_queued(pyc_transport *self);
/* The same for writelines(): `first` if nothing stood before them. */
void pyc_transport_send_lines(pyc_transport *self, int first);
void pyc_transport_drop_outbox(pyc_transport *self);

PyObject *pyc_transport_set_write_buffer_limits(pyc_transport *self,
                                                PyObject *args,
                                                PyObject *kwargs);
PyObject *pyc_transport_get_write_buffer_limits(pyc_transport *self,
                                                PyObject *ignored);
PyObject *pyc_transport_get_write_buffer_size(pyc_transport *self,
                                              PyObject *ignored);

#endif
