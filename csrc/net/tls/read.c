/* SPDX-License-Identifier: MIT */
/* From the records to the application's protocol. */
#include "py/compat.h"
#include "net/streams/streams.h"
#include "net/tls/tls.h"

/* Where small amounts are decrypted: what comes from a stream of ours is in the
 * other half. */
#define PLAIN_AT (PYC_SCRATCH_SIZE / 2)
#define PLAIN_SIZE (PYC_SCRATCH_SIZE / 2)
/* From this many encrypted bytes on they are decrypted into the bytes object
 * itself, of which malloc should never map the memory. */
#define LARGE (32 * 1024)
#define BULK_SIZE (128 * 1024 - 256)
#define RECORD_SIZE (16 * 1024 + 512)
/* Bytes that a peer may make us send without taking them. */
#define ANSWERS_LIMIT (256 * 1024)

static int
reading(const pyc_tls *self)
{
    return (self->phase == PYC_TLS_WRAPPED ||
            self->phase == PYC_TLS_FLUSHING) &&
           !self->app_paused && self->app != NULL;
}

/* What came with the last read, but data. */
static void
conclude(pyc_tls *self, pyc_tls_result result)
{
    if (result == PYC_TLS_ERROR) {
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
    }
    else if (result == PYC_TLS_EOF) {
        pyc_tls_call_eof_received(self);
        pyc_tls_start_shutdown(self);
    }
}

/* Sends what reading has caused, such as a new key, and lets go of the memory
 * of others. What it raises takes the place of no other exception. */
static pyc_tls_result
settle(pyc_tls *self, pyc_tls_result result)
{
    PyObject *raised = pyc_take_exception();
    if (self->engine->flush(self) < 0 || self->engine->keep(self) < 0) {
        result = PYC_TLS_ERROR;
    }
    if (raised != NULL) {
        PyErr_Clear();
        pyc_put_exception(raised);
    }
    return result;
}

/* ---- Protocol ---------------------------------------------------------- */

static pyc_tls_result
decrypt_small(pyc_tls *self, PyObject **data)
{
    char *scratch = pyc_loop_scratch(self->loop);
    size_t got = 0;
    if (scratch == NULL) {
        return PYC_TLS_ERROR;
    }
    pyc_tls_result result =
        self->engine->read(self, scratch + PLAIN_AT, PLAIN_SIZE, &got);
    if (got > 0) {
        PyObject *raised = pyc_take_exception();
        *data = PyBytes_FromStringAndSize(scratch + PLAIN_AT, (Py_ssize_t)got);
        if (*data == NULL) {
            result = PYC_TLS_ERROR;
        }
        else if (raised != NULL) {
            pyc_put_exception(Py_NewRef(raised));
        }
        Py_XDECREF(raised);
    }
    return result;
}

static pyc_tls_result
decrypt_large(pyc_tls *self, PyObject **data, size_t size)
{
    size_t got = 0;
    *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (*data == NULL) {
        return PYC_TLS_ERROR;
    }
    pyc_tls_result result =
        self->engine->read(self, PyBytes_AS_STRING(*data), size, &got);
    PyObject *raised = pyc_take_exception();
    if (got == 0) {
        Py_CLEAR(*data);
    }
    else if (got < size && _PyBytes_Resize(data, (Py_ssize_t)got) < 0) {
        result = PYC_TLS_ERROR;
        Py_CLEAR(raised);
    }
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
    return result;
}

static pyc_tls_result
decrypt(pyc_tls *self, PyObject **data)
{
    size_t waiting = self->engine->waiting(self);
    if (PYC_LIKELY(waiting < LARGE)) {
        return decrypt_small(self, data);
    }
    size_t size = waiting + RECORD_SIZE;
    return decrypt_large(self, data, size < BULK_SIZE ? size : BULK_SIZE);
}

/* 0, or -1 when the connection has failed by it. */
static int
give(pyc_tls *self, PyObject *data)
{
    PyObject *raised = pyc_take_exception();
    PyObject *result =
        pyc_callback_tell_data(&self->receive, self->state, self->app, data);
    if (PYC_UNLIKELY(result == NULL)) {
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
    }
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static void
read_data(pyc_tls *self)
{
    pyc_tls_result result;
    do {
        PyObject *data = NULL;
        result = settle(self, decrypt(self, &data));
        /* To send may have ended it. */
        int code = data == NULL || self->app == NULL ? 0 : give(self, data);
        Py_XDECREF(data);
        if (code < 0) {
            PyErr_Clear();
            return;
        }
    } while (result == PYC_TLS_DONE && reading(self) && !self->buffered);
    conclude(self, result);
}

/* ---- BufferedProtocol -------------------------------------------------- */

/* Fills one buffer. */
static pyc_tls_result
fill_buffer(pyc_tls *self)
{
    Py_buffer view;
    size_t got = 0;
    if (self->engine->keep(self) < 0 ||
        pyc_callback_get_buffer(
            &self->buffer, self->app, self->state->str_get_buffer,
            (Py_ssize_t)self->engine->waiting(self), &view) < 0) {
        return PYC_TLS_ERROR;
    }
    if (!reading(self)) {
        PyBuffer_Release(&view); /* get_buffer() closed or paused it */
        return PYC_TLS_AGAIN;
    }
    pyc_tls_result result =
        self->engine->read(self, view.buf, (size_t)view.len, &got);
    PyBuffer_Release(&view);
    result = settle(self, result);
    if (got > 0 && self->app != NULL) { /* to send may have ended it */
        PyObject *raised = pyc_take_exception();
        if (pyc_callback_buffer_updated(&self->receive, self->app,
                                        self->state->str_buffer_updated,
                                        (Py_ssize_t)got) < 0) {
            Py_XDECREF(raised);
            return PYC_TLS_ERROR;
        }
        if (raised != NULL) {
            pyc_put_exception(raised);
        }
    }
    return result;
}

static void
read_buffered(pyc_tls *self)
{
    pyc_tls_result result;
    do {
        result = fill_buffer(self);
    } while (result == PYC_TLS_DONE && reading(self) && self->buffered);
    conclude(self, result);
}

/* ---- reading ----------------------------------------------------------- */

void
pyc_tls_read(pyc_tls *self)
{
    if (reading(self)) {
        if (self->buffered) {
            read_buffered(self);
        }
        else {
            read_data(self);
        }
        if (self->backlog.len > 0) {
            pyc_tls_flush(self, 0);
        }
    }
    pyc_tls_control_reading(self);
}

/* Whether the peer has us answer, to requests for new keys as a rule, and takes
 * none of it: what the application writes waits in the backlog by then. */
static int
choked(const pyc_tls *self)
{
    return self->full && self->stream != NULL &&
           pyc_outbox_bytes(self->stream->outbox) >
               self->stream->high + ANSWERS_LIMIT;
}

void
pyc_tls_control_reading(pyc_tls *self)
{
    if (PYC_LIKELY(!self->app_paused && !self->lower_paused && !self->full)) {
        return; /* all of it has been read */
    }
    size_t size = self->engine->waiting(self);
    int much = choked(self), paused = self->lower_paused;
    int pause =
        ((self->app_paused && size >= self->in_high) || much) && !paused;
    if (self->lower == NULL ||
        (!pause && !(size <= self->in_low && !much && paused))) {
        return;
    }
    self->lower_paused = (char)pause;
    if (pyc_tls_lower_call(self, pause ? "pause_reading" : "resume_reading",
                           NULL) < 0) {
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
    }
}
