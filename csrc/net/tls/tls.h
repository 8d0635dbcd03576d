/* SPDX-License-Identifier: MIT */
/* TLS between a transport and a protocol, in two objects as in asyncio:
 * SSLProtocol, the protocol of the transport beneath, and SSLTransport, the
 * transport of the application's protocol. What happens when is that of
 * asyncio.sslproto; how bytes are encrypted is the engine's. */
#ifndef PYC_NET_TLS_TLS_H
#define PYC_NET_TLS_TLS_H

#include "net/stream.h"

typedef struct pyc_tls pyc_tls;

/* asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE and _READ */
#define PYC_TLS_HIGH_WRITE (512 * 1024)
#define PYC_TLS_HIGH_READ (256 * 1024)

/* What an engine's step came to. */
typedef enum {
    PYC_TLS_DONE,
    PYC_TLS_AGAIN, /* needs more from the peer */
    PYC_TLS_EOF,   /* the peer has said that it sends no more */
    PYC_TLS_ERROR, /* with an exception */
} pyc_tls_result;

/* How to get at the records. Each but `attach` may leave output behind, which
 * `flush` passes to the transport beneath. */
typedef struct {
    const char *name;
    /* Takes bytes of the peer, good until the engine's `keep`. 0, or -1 with
     * an exception. */
    int (*feed)(pyc_tls *self, const char *data, size_t len);
    /* Copies what `feed` got and nobody has read: before Python code runs. 0,
     * or -1 with an exception. */
    int (*keep)(pyc_tls *self);
    /* Bytes of the peer that nobody has read. */
    size_t (*waiting)(pyc_tls *self);
    /* Decrypts up to `size` bytes and sets how many there are, with every
     * result. PYC_TLS_DONE: there may be more. */
    pyc_tls_result (*read)(pyc_tls *self, char *data, size_t size, size_t *got);
    /* Encrypts all of it (PYC_TLS_DONE) or nothing. */
    pyc_tls_result (*write)(pyc_tls *self, const char *data, size_t len);
    pyc_tls_result (*handshake)(pyc_tls *self);
    /* Says that there is no more, and waits for the peer to say so. */
    pyc_tls_result (*shutdown)(pyc_tls *self);
    /* 0, or -1 with an exception. */
    int (*flush)(pyc_tls *self);
    void (*detach)(pyc_tls *self);
} pyc_tls_engine;

extern const pyc_tls_engine pyc_tls_object_engine;
extern const pyc_tls_engine pyc_tls_direct_engine;

typedef struct {
    char *data;
    size_t len;
    size_t size;
} pyc_tls_bytes;

/* What OpenSSL reads from and writes to. */
typedef struct {
    const char *in; /* from the peer: in `held`, or in the caller's memory */
    size_t in_len;
    pyc_tls_bytes held;
    pyc_tls_bytes out;
} pyc_tls_pipe;

typedef enum { /* of the connection */
               PYC_TLS_UNWRAPPED,
               PYC_TLS_HANDSHAKE,
               PYC_TLS_WRAPPED,
               PYC_TLS_FLUSHING, /* closing: sends what is left, gives what has
                                    come */
               PYC_TLS_SHUTDOWN, /* then says so to the peer and waits for its
                                    answer */
} pyc_tls_phase;

typedef enum { /* of the application's protocol: what was called last */
               PYC_TLS_APP_NEW,
               PYC_TLS_APP_MADE,
               PYC_TLS_APP_EOF,
               PYC_TLS_APP_LOST,
} pyc_tls_app;

typedef struct {
    PYC_TRANSPORT_OBJECT;
    pyc_tls *tls;
    char closed;
} pyc_tls_transport;

struct pyc_tls {
    PyObject_HEAD
    PyObject *weakrefs;
    pyc_state *state;
    pyc_loop *loop;
    PyObject *app; /* this, lower and transport: until it is lost */
    PyObject *lower;
    pyc_stream *stream; /* lower, borrowed, if it is one of ours */
    pyc_tls_transport *transport;
    PyObject *context; /* for the protocol's callbacks */
    PyObject *waiter;
    PyObject *sslcontext;
    PyObject *ssl_object; /* an ssl.SSLObject, as a rule */
    PyObject *info;       /* what get_extra_info() has looked up; or NULL */
    const pyc_tls_engine *engine;
    PyObject *inner;    /* direct: ssl_object._sslobj, which owns... */
    void *ssl;          /* ...this SSL */
    void *bio;          /* and that this BIO, on... */
    pyc_tls_pipe pipe;  /* ...this */
    PyObject *incoming; /* not direct: MemoryBIOs */
    PyObject *outgoing;
    PyObject *handshake_timer;
    PyObject *shutdown_timer;
    double handshake_timeout; /* seconds */
    double shutdown_timeout;
    double handshake_start; /* debug mode */
    pyc_callback receive;   /* data_received or buffer_updated */
    pyc_callback buffer;    /* get_buffer */
    pyc_tls_bytes backlog;  /* not encrypted yet */
    pyc_flush flush;        /* of the backlog */
    size_t out_high, out_low, in_high, in_low; /* marks, in bytes */
    unsigned wrote;     /* the turn of the loop in which it last wrote */
    unsigned conn_lost; /* writes after the end */
    unsigned char phase;
    unsigned char app_state;
    char server_side;
    char buffered;     /* the application's protocol has get_buffer() */
    char eof;          /* of the transport beneath */
    char app_paused;   /* pause_reading() by the application */
    char lower_paused; /* pause_reading() by us */
    char full;         /* pause_writing() by the transport beneath */
    char app_full;     /* pause_writing() by us */
    char resuming;     /* resume_reading() has its turn */
    char shaken;       /* the handshake was done */
};

/* ---- memory.c ---------------------------------------------------------- */

/* Room for `more` bytes: 0, or -1 without an exception. Needs no GIL. */
int pyc_tls_bytes_grow(pyc_tls_bytes *bytes, size_t more);
/* 0, or -1 with MemoryError. */
int pyc_tls_bytes_append(pyc_tls_bytes *bytes, const char *data, size_t len);
/* Forgets the first of them, and the memory with the last. */
void pyc_tls_bytes_cut(pyc_tls_bytes *bytes, size_t len);
void pyc_tls_bytes_free(pyc_tls_bytes *bytes);

/* ---- object.c ---------------------------------------------------------- */

/* Makes ssl_object, and the engine for it: 0, or -1 with an exception. */
int pyc_tls_open(pyc_tls *self, PyObject *server_hostname);
/* What a call that returned `result`, a reference that is stolen, came to. */
pyc_tls_result pyc_tls_judge_call(pyc_tls *self, PyObject *result);

/* ---- direct.c ---------------------------------------------------------- */

/* Reaches the SSL of self->ssl_object, which was just made by this thread:
 * whether it could. */
int pyc_tls_attach_direct(pyc_tls *self);

/* ---- tls.c ------------------------------------------------------------- */

int pyc_tls_set_app(pyc_tls *self, PyObject *protocol);
/* app.name() or app.name(arg): a new reference, or NULL with an exception. */
PyObject *pyc_tls_tell(pyc_tls *self, PyObject *name, PyObject *arg);
/* The connection fails for the exception that is set. */
void pyc_tls_fatal(pyc_tls *self, const char *message);
/* Ends it without a word to the peer. 0, or -1 with an exception. */
int pyc_tls_abort(pyc_tls *self, PyObject *exc);
/* transport.name(arg) beneath, or name() when arg is NULL. 0, or -1. */
int pyc_tls_lower_call(pyc_tls *self, const char *name, PyObject *arg);
/* Has the transport beneath send it. 0, or -1 with an exception. */
int pyc_tls_lower_send(pyc_tls *self, const char *data, size_t len);

/* What the transport beneath tells. */
void pyc_tls_received(PyObject *self, const char *data, size_t len);
int pyc_tls_connected(pyc_tls *self, PyObject *lower);
int pyc_tls_lost(pyc_tls *self, PyObject *exc);
/* Whether to keep the transport open, or -1 with an exception. */
int pyc_tls_lower_eof(pyc_tls *self);

/* close() of the application. */
void pyc_tls_start_shutdown(pyc_tls *self);
void pyc_tls_call_eof_received(pyc_tls *self);
void pyc_tls_handshake_timeout(pyc_tls *self);
void pyc_tls_shutdown_timeout(pyc_tls *self);
void pyc_tls_resume(pyc_tls *self);
void pyc_tls_wake_waiter(pyc_tls *self, PyObject *exc);

/* ---- read.c -------------------------------------------------------- */

void pyc_tls_read(pyc_tls *self);
void pyc_tls_control_reading(pyc_tls *self);

/* ---- write.c ------------------------------------------------------- */

void pyc_tls_write(pyc_tls *self, const char *data, size_t len);
/* Encrypts what it may of the backlog, or, forced, all of it. */
void pyc_tls_flush(pyc_tls *self, int force);
void pyc_tls_flush_later(pyc_flush *flush);
void pyc_tls_control_writing(pyc_tls *self);

/* ---- info.c ------------------------------------------------------------ */

PyObject *pyc_tls_extra_info(pyc_tls *self, PyObject *name, PyObject *fallback);

/* ---- the types --------------------------------------------------------- */

int pyc_tls_register(PyObject *module, pyc_state *state);
int pyc_tls_transport_register(PyObject *module, pyc_state *state);
pyc_tls_transport *pyc_tls_transport_new(pyc_tls *tls);

/* The protocol of an accepted connection, over whose stream it is to be. */
PyObject *pyc_tls_accepted(pyc_loop *loop, PyObject *app, PyObject *arguments,
                           PyObject *context);

#endif
