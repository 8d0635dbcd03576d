/* SPDX-License-Identifier: MIT */
/* The engine that calls libssl itself, on the SSL of an ssl.SSLObject: without
 * a Python object, an exception or a copy for each record. */
#include "py/compat.h"
#include "net/tls/libssl.h"
#include "net/tls/tls.h"

#include <limits.h>

/* A spare buffer larger than this is not kept. */
#define SPARE_LIMIT (512 * 1024)

/* ---- the BIO ----------------------------------------------------------- */

/* These run inside of libssl, maybe without the GIL. */

int
pyc_tls_pipe_read(pyc_BIO *bio, char *data, int len)
{
    const pyc_libssl *lib = pyc_libssl_get();
    pyc_tls_pipe *pipe = lib->BIO_get_data(bio);
    lib->BIO_clear_flags(bio, PYC_BIO_FLAGS_RETRY);
    if (pipe == NULL || pipe->in_len == 0) {
        lib->BIO_set_flags(bio,
                           PYC_BIO_FLAGS_READ | PYC_BIO_FLAGS_SHOULD_RETRY);
        return -1;
    }
    if ((size_t)len > pipe->in_len) {
        len = (int)pipe->in_len;
    }
    memcpy(data, pipe->in, (size_t)len);
    pipe->in += len;
    pipe->in_len -= (size_t)len;
    return len;
}

int
pyc_tls_pipe_write(pyc_BIO *bio, const char *data, int len)
{
    const pyc_libssl *lib = pyc_libssl_get();
    pyc_tls_pipe *pipe = lib->BIO_get_data(bio);
    lib->BIO_clear_flags(bio, PYC_BIO_FLAGS_RETRY);
    if (pipe == NULL || pyc_tls_bytes_grow(&pipe->out, (size_t)len) < 0) {
        return -1;
    }
    memcpy(pipe->out.data + pipe->out.len, data, (size_t)len);
    pipe->out.len += (size_t)len;
    return len;
}

long
pyc_tls_pipe_ctrl(pyc_BIO *bio, int command, long number, void *data)
{
    if (command == PYC_BIO_CTRL_PENDING) {
        pyc_tls_pipe *pipe = pyc_libssl_get()->BIO_get_data(bio);
        return pipe == NULL ? 0 : (long)pipe->in_len;
    }
    return command == PYC_BIO_CTRL_FLUSH;
}

/* ---- what came from the peer ------------------------------------------- */

static int
direct_keep(pyc_tls *self)
{
    pyc_tls_pipe *pipe = &self->pipe;
    pyc_tls_bytes *held = &pipe->held;
    if (pipe->in_len == 0) {
        pyc_tls_bytes_free(held);
        return 0;
    }
    if (held->len > 0) { /* it is what is read from */
        pyc_tls_bytes_cut(held, held->len - pipe->in_len);
    }
    else if (pyc_tls_bytes_append(held, pipe->in, pipe->in_len) < 0) {
        pipe->in_len = 0;
        return -1;
    }
    pipe->in = held->data;
    return 0;
}

static int
direct_feed(pyc_tls *self, const char *data, size_t len)
{
    pyc_tls_pipe *pipe = &self->pipe;
    if (pipe->in_len == 0) {
        pyc_tls_bytes_free(&pipe->held);
        pipe->in = data;
        pipe->in_len = len;
        return 0;
    }
    if (direct_keep(self) < 0 ||
        pyc_tls_bytes_append(&pipe->held, data, len) < 0) {
        return -1;
    }
    pipe->in = pipe->held.data;
    pipe->in_len = pipe->held.len;
    return 0;
}

static size_t
direct_waiting(pyc_tls *self)
{
    return self->pipe.in_len;
}

/* ---- records ----------------------------------------------------------- */

/* One buffer for the output of all connections of a loop: whoever is at work
 * has it. */
static void
take_spare(pyc_tls *self)
{
    pyc_tls_bytes *out = &self->pipe.out;
    if (out->data == NULL) {
        out->data = self->loop->tls_out;
        out->size = self->loop->tls_out_size;
        self->loop->tls_out = NULL;
        self->loop->tls_out_size = 0;
    }
}

static void
give_spare(pyc_tls *self, pyc_tls_bytes *out)
{
    if (self->loop->tls_out == NULL && out->size <= SPARE_LIMIT) {
        self->loop->tls_out = out->data;
        self->loop->tls_out_size = out->size;
    }
    else {
        pyc_tls_bytes_free(out);
    }
}

static int
direct_flush(pyc_tls *self)
{
    pyc_tls_bytes out = self->pipe.out;
    if (out.data == NULL) {
        return 0;
    }
    /* Sending may run Python code, and that may write. */
    self->pipe.out = (pyc_tls_bytes){NULL};
    int code = out.len == 0 ? 0 : pyc_tls_lower_send(self, out.data, out.len);
    give_spare(self, &out);
    return code;
}

/* Raises what went wrong. The error is in OpenSSL's queue: the next call of
 * Python's module finds it there and gives it its type and text. */
static void
raise_error(pyc_tls *self)
{
    PyObject *result = PyObject_CallMethod(self->inner, "read", "i", 1);
    if (result != NULL || PyErr_ExceptionMatches(self->state->tls_again)) {
        Py_XDECREF(result);
        PyErr_Clear();
        PyErr_SetString(self->state->tls_error, "TLS failed");
    }
}

/* What others have left in OpenSSL's queue of errors would be taken for ours.
 * To look for it costs several hundred instructions, so it is done once a
 * turn. */
static inline void
clear_errors(pyc_tls *self, const pyc_libssl *lib)
{
    pyc_loop *loop = self->loop;
    if (loop->tls_cleared != loop->turn) {
        loop->tls_cleared = loop->turn;
        lib->ERR_clear_error();
    }
}

static pyc_tls_result
judge(pyc_tls *self, const pyc_libssl *lib, int code)
{
    if (PYC_LIKELY(lib->SSL_want(self->ssl) == PYC_SSL_READING)) {
        return PYC_TLS_AGAIN; /* whatever is in the queue */
    }
    switch (lib->SSL_get_error(self->ssl, code)) {
    case PYC_SSL_ERROR_WANT_READ:
    case PYC_SSL_ERROR_WANT_WRITE:
        return PYC_TLS_AGAIN;
    case PYC_SSL_ERROR_ZERO_RETURN:
        return PYC_TLS_EOF;
    case PYC_SSL_ERROR_SYSCALL:
        if (lib->ERR_peek_error() == 0) {
            return PYC_TLS_AGAIN;
        }
        /* fall through */
    default:
        raise_error(self);
        return PYC_TLS_ERROR;
    }
}

static pyc_tls_result
direct_read(pyc_tls *self, char *data, size_t size, size_t *got)
{
    const pyc_libssl *lib = pyc_libssl_get();
    pyc_tls_result result = PYC_TLS_DONE;
    *got = 0;
    take_spare(self);
    PYC_BEGIN_CRITICAL_SECTION(self->inner);
    clear_errors(self, lib);
    while (*got < size) {
        size_t left = size - *got;
        int n = lib->SSL_read(self->ssl, data + *got,
                              left > INT_MAX ? INT_MAX : (int)left);
        if (PYC_UNLIKELY(n <= 0)) {
            result = judge(self, lib, n);
            break;
        }
        *got += (size_t)n;
        if (self->pipe.in_len == 0 && !lib->SSL_has_pending(self->ssl)) {
            result = PYC_TLS_AGAIN; /* as it would say, at some expense */
            break;
        }
    }
    PYC_END_CRITICAL_SECTION();
    return result;
}

static pyc_tls_result
direct_write(pyc_tls *self, const char *data, size_t len)
{
    const pyc_libssl *lib = pyc_libssl_get();
    pyc_tls_result result = PYC_TLS_DONE;
    take_spare(self);
    PYC_BEGIN_CRITICAL_SECTION(self->inner);
    clear_errors(self, lib);
    int n = lib->SSL_write(self->ssl, data, (int)len);
    if (PYC_UNLIKELY(n <= 0)) {
        result = judge(self, lib, n);
    }
    else if (PYC_UNLIKELY((size_t)n != len)) {
        /* Only in a mode that Python has no way to choose. */
        PyErr_Format(PyExc_RuntimeError, "OpenSSL wrote %d of %zu bytes", n,
                     len);
        result = PYC_TLS_ERROR;
    }
    PYC_END_CRITICAL_SECTION();
    return result;
}

/* The handshake and the shutdown are Python's: they happen once, and may call
 * back into the program. */
static pyc_tls_result
call_inner(pyc_tls *self, const char *name)
{
    if (direct_keep(self) < 0) {
        return PYC_TLS_ERROR;
    }
    take_spare(self);
    return pyc_tls_judge_call(self,
                              PyObject_CallMethod(self->inner, name, NULL));
}

static pyc_tls_result
direct_handshake(pyc_tls *self)
{
    return call_inner(self, "do_handshake");
}

static pyc_tls_result
direct_shutdown(pyc_tls *self)
{
    return call_inner(self, "shutdown");
}

/* ---- beginning and end ------------------------------------------------- */

static void
direct_detach(pyc_tls *self)
{
    if (self->bio != NULL) {
        pyc_libssl_get()->BIO_set_data(self->bio, NULL);
        self->bio = self->ssl = NULL;
    }
    Py_CLEAR(self->inner);
    pyc_tls_bytes_free(&self->pipe.held);
    pyc_tls_bytes_free(&self->pipe.out);
    self->pipe.in_len = 0;
}

const pyc_tls_engine pyc_tls_direct_engine = {
    .name = "direct",
    .feed = direct_feed,
    .keep = direct_keep,
    .waiting = direct_waiting,
    .read = direct_read,
    .write = direct_write,
    .handshake = direct_handshake,
    .shutdown = direct_shutdown,
    .flush = direct_flush,
    .detach = direct_detach,
};

int
pyc_tls_attach_direct(pyc_tls *self)
{
    const pyc_libssl *lib = pyc_libssl_get();
    pyc_SSL *ssl = lib == NULL ? NULL : pyc_libssl_take_newest();
    /* Callbacks of _ssl take the GIL of the main interpreter. */
    if (ssl == NULL || PyInterpreterState_Get() != PyInterpreterState_Main() ||
        !Py_IS_TYPE(self->ssl_object,
                    (PyTypeObject *)self->state->tls_object)) {
        return 0;
    }
    PyObject *inner = PyObject_GetAttrString(self->ssl_object, "_sslobj");
    pyc_BIO *bio = NULL;
    if (inner == NULL) {
        PyErr_Clear();
        return 0;
    }
    /* It has a reference to its Python object, for callbacks. */
    if (lib->SSL_get_ex_data(ssl, 0) != inner ||
        (bio = lib->BIO_new(lib->method)) == NULL) {
        Py_DECREF(inner);
        return 0;
    }
    lib->BIO_set_data(bio, &self->pipe);
    lib->BIO_set_init(bio, 1);
    lib->SSL_set_bio(ssl, bio, bio); /* owns it */
    self->ssl = ssl;
    self->bio = bio;
    self->inner = inner;
    self->engine = &pyc_tls_direct_engine;
    return 1;
}
