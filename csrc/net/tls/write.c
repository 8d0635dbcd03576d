/* SPDX-License-Identifier: MIT */
/* From the application to records: at once when nothing is queued, and what
 * follows in the same turn as one record, before the loop polls again. */
#include "py/compat.h"
#include "net/tls/tls.h"

/* What is encrypted before it is sent. */
#define STRIDE (128 * 1024)

static int
may_send(const pyc_tls *self)
{
    return self->phase == PYC_TLS_WRAPPED && self->backlog.len == 0 &&
           !self->full && self->wrote != self->loop->turn &&
           (self->stream == NULL || self->stream->outbox == NULL);
}

/* Encrypts and sends what may go: how much, or -1 with an exception. */
static Py_ssize_t
seal(pyc_tls *self, const char *data, size_t len, int force)
{
    size_t done = 0;
    self->wrote = self->loop->turn;
    while (done < len && (force || !self->full) && self->lower != NULL) {
        size_t some = len - done < STRIDE ? len - done : STRIDE;
        pyc_tls_result result = self->engine->write(self, data + done, some);
        if (PYC_UNLIKELY(result == PYC_TLS_EOF)) {
            PyErr_SetString(PyExc_ConnectionResetError,
                            "the peer has closed the TLS connection");
            result = PYC_TLS_ERROR;
        }
        if (PYC_UNLIKELY(result == PYC_TLS_ERROR) ||
            self->engine->flush(self) < 0) {
            return -1;
        }
        if (PYC_UNLIKELY(result == PYC_TLS_AGAIN)) {
            break; /* not before the peer has answered */
        }
        done += some;
    }
    return (Py_ssize_t)done;
}

static void
lost_write(pyc_tls *self)
{
    if (pyc_transport_drop_write(self->state, &self->conn_lost,
                                 "SSL connection is closed") < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

/* Something is queued: it goes before the next poll, or at once when it is much
 * or nobody will poll soon. */
static void
after_append(pyc_tls *self)
{
    pyc_loop *loop = self->loop;
    if (self->phase == PYC_TLS_WRAPPED && !self->full) {
        if (self->backlog.len > PYC_GATHER_LIMIT || loop->thread == 0 ||
            loop->saved != NULL) {
            pyc_tls_flush(self, 0);
        }
        else if (self->backlog.len > 0) {
            pyc_loop_flush_later(loop, &self->flush);
        }
    }
    pyc_tls_control_writing(self);
}

void
pyc_tls_write(pyc_tls *self, const char *data, size_t len)
{
    Py_ssize_t done = 0;
    if (self->phase != PYC_TLS_WRAPPED && self->phase != PYC_TLS_HANDSHAKE) {
        lost_write(self);
        return;
    }
    if (PYC_LIKELY(may_send(self))) {
        done = seal(self, data, len, 0);
        if (PYC_LIKELY((size_t)done == len) && !self->app_full &&
            self->out_high > 0) {
            return;
        }
    }
    if (done < 0 || pyc_tls_bytes_append(&self->backlog, data + done,
                                         len - (size_t)done) < 0) {
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
        return;
    }
    after_append(self);
}

void
pyc_tls_flush(pyc_tls *self, int force)
{
    if (self->backlog.len == 0 ||
        (self->phase != PYC_TLS_WRAPPED && self->phase != PYC_TLS_FLUSHING)) {
        return;
    }
    /* Sending may run Python code, and that may write. */
    pyc_tls_bytes backlog = self->backlog;
    self->backlog = (pyc_tls_bytes){NULL};
    Py_ssize_t done = seal(self, backlog.data, backlog.len, force);
    if (done < 0) {
        pyc_tls_bytes_free(&backlog);
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
        return;
    }
    pyc_tls_bytes_cut(&backlog, (size_t)done);
    if (self->backlog.len > 0) {
        int code = pyc_tls_bytes_append(&backlog, self->backlog.data,
                                        self->backlog.len);
        pyc_tls_bytes_free(&self->backlog);
        if (code < 0) {
            pyc_tls_fatal(self, "Fatal error on SSL protocol");
        }
    }
    self->backlog = backlog;
    pyc_tls_control_writing(self);
}

/* Runs before the poll. */
void
pyc_tls_flush_later(pyc_flush *flush)
{
    pyc_tls *self = pyc_container(flush, pyc_tls, flush);
    Py_INCREF(self);
    pyc_tls_flush(self, 0);
    Py_DECREF(self);
}

/* As asyncio's: in the context of whoever writes. */
void
pyc_tls_control_writing(pyc_tls *self)
{
    size_t size = self->backlog.len;
    int pause = size >= self->out_high && !self->app_full;
    if (self->app == NULL ||
        (!pause && !(size <= self->out_low && self->app_full))) {
        return;
    }
    self->app_full = (char)pause;
    PyObject *app = Py_NewRef(self->app); /* it may replace itself */
    PyObject *result =
        PyObject_CallMethodNoArgs(app, pause ? self->state->str_pause_writing
                                             : self->state->str_resume_writing);
    Py_DECREF(app);
    if (result == NULL) {
        pyc_loop_report(self->loop,
                        pause ? "protocol.pause_writing() failed"
                              : "protocol.resume_writing() failed",
                        (PyObject *)self, (PyObject *)self->transport);
    }
    Py_XDECREF(result);
}
