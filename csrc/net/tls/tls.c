/* SPDX-License-Identifier: MIT */
/* A TLS connection's life: handshake, data, shutdown, loss. */
#include "py/compat.h"
#include "net/streams/streams.h"
#include "net/tls/tls.h"

/* ---- the application's protocol ---------------------------------------- */

int
pyc_tls_set_app(pyc_tls *self, PyObject *protocol)
{
    int buffered =
        PyObject_IsInstance(protocol, self->state->asyncio_BufferedProtocol);
    if (buffered < 0) {
        return -1;
    }
    self->buffered = (char)buffered;
    pyc_callback_clear(&self->receive);
    pyc_callback_clear(&self->buffer);
    PYC_FIELD_SET(self, app, Py_NewRef(protocol));
    return 0;
}

PyObject *
pyc_tls_tell(pyc_tls *self, PyObject *name, PyObject *arg)
{
    return pyc_tell(self->app, self->context, name, arg);
}

/* ---- the transport beneath --------------------------------------------- */

int
pyc_tls_lower_call(pyc_tls *self, const char *name, PyObject *arg)
{
    if (self->lower == NULL) {
        return 0;
    }
    PyObject *lower = Py_NewRef(self->lower);
    PyObject *result = arg == NULL
                           ? PyObject_CallMethod(lower, name, NULL)
                           : PyObject_CallMethod(lower, name, "(O)", arg);
    Py_DECREF(lower);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
pyc_tls_lower_send(pyc_tls *self, const char *data, size_t len)
{
    if (PYC_LIKELY(self->stream != NULL)) {
        return pyc_stream_send(self->stream, data, len);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    int code = bytes == NULL ? -1 : pyc_tls_lower_call(self, "write", bytes);
    Py_XDECREF(bytes);
    return code;
}

static int
lower_force_close(pyc_tls *self, PyObject *exc)
{
    if (self->stream != NULL) {
        return pyc_stream_force_close(self->stream, exc);
    }
    return pyc_tls_lower_call(self, "_force_close",
                              exc == NULL ? Py_None : exc);
}

/* ---- failing ----------------------------------------------------------- */

/* logger.debug(format, self, message, exc_info=exc) */
static void
say(pyc_tls *self, const char *format, const char *message, PyObject *exc)
{
    PyObject *result = NULL;
    PyObject *method =
        PyObject_GetAttrString(self->state->asyncio_logger, "debug");
    PyObject *args = Py_BuildValue("(sOs)", format, self, message);
    PyObject *kwargs =
        Py_BuildValue("{sO}", "exc_info", exc == NULL ? Py_None : exc);
    if (method != NULL && args != NULL && kwargs != NULL) {
        result = PyObject_Call(method, args, kwargs);
    }
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(result);
}

void
pyc_tls_fatal(pyc_tls *self, const char *message)
{
    PyObject *exc = pyc_take_exception(), *lower = Py_XNewRef(self->lower);
    int quits = PyErr_GivenExceptionMatches(exc, PyExc_SystemExit) ||
                PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt);
    if (!quits && lower_force_close(self, exc) < 0) {
        pyc_loop_report(self->loop, message, (PyObject *)self, lower);
    }
    if (quits || (!PyErr_GivenExceptionMatches(exc, PyExc_OSError) &&
                  !PyErr_GivenExceptionMatches(
                      exc, self->state->asyncio_CancelledError))) {
        pyc_put_exception(Py_NewRef(exc));
        pyc_loop_report(self->loop, message, (PyObject *)self, lower);
    }
    else if (self->loop->debug) {
        say(self, "%r: %s", message, exc);
    }
    Py_DECREF(exc);
    Py_XDECREF(lower);
}

int
pyc_tls_abort(pyc_tls *self, PyObject *exc)
{
    self->phase = PYC_TLS_UNWRAPPED;
    return self->lower == NULL ? 0 : lower_force_close(self, exc);
}

void
pyc_tls_wake_waiter(pyc_tls *self, PyObject *exc)
{
    PyObject *waiter = self->waiter;
    if (waiter == NULL) {
        return;
    }
    Py_INCREF(waiter);
    PYC_FIELD_SET(self, waiter, NULL);
    PyObject *result = PyObject_CallMethod(waiter, "cancelled", NULL);
    if (result == Py_False) {
        Py_DECREF(result);
        result = PyObject_CallMethod(
            waiter, exc == NULL ? "set_result" : "set_exception", "O",
            exc == NULL ? Py_None : exc);
    }
    if (result == NULL) {
        pyc_loop_report(self->loop, "Exception in waking a waiter",
                        (PyObject *)self, self->lower);
    }
    Py_XDECREF(result);
    Py_DECREF(waiter);
}

/* ---- timers ------------------------------------------------------------ */

/* Has the loop call self.name() later; 0, or -1 with an exception. */
static int
start_timer(pyc_tls *self, PyObject **timer, double seconds, const char *name)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)self, name);
    if (method == NULL) {
        return -1;
    }
    *timer = PyObject_CallMethod((PyObject *)self->loop, "call_later", "dN",
                                 seconds, method);
    return *timer == NULL ? -1 : 0;
}

/* Leaves an exception that is set alone. */
static void
stop_timer(pyc_tls *self, PyObject **timer)
{
    if (*timer == NULL) {
        return;
    }
    PyObject *raised = pyc_take_exception();
    PyObject *result =
        PyObject_CallMethodNoArgs(*timer, self->state->str_cancel);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(result);
    Py_CLEAR(*timer);
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
}

void
pyc_tls_handshake_timeout(pyc_tls *self)
{
    if (self->phase != PYC_TLS_HANDSHAKE) {
        return;
    }
    PyObject *seconds = PyFloat_FromDouble(self->handshake_timeout);
    if (seconds != NULL) {
        PyErr_Format(PyExc_ConnectionAbortedError,
                     "SSL handshake is taking longer than %R seconds: "
                     "aborting the connection",
                     seconds);
        Py_DECREF(seconds);
    }
    pyc_tls_fatal(self, "Fatal error on transport");
}

void
pyc_tls_shutdown_timeout(pyc_tls *self)
{
    PyObject *exc = PyObject_CallFunction(PyExc_TimeoutError, "s",
                                          "SSL shutdown timed out");
    if (exc == NULL || lower_force_close(self, exc) < 0) {
        pyc_loop_report(self->loop, "Fatal error on transport",
                        (PyObject *)self, self->lower);
    }
    Py_XDECREF(exc);
}

/* ---- handshake --------------------------------------------------------- */

/* It has failed for the exception that is set. */
static void
handshake_failed(pyc_tls *self)
{
    PyObject *exc = pyc_take_exception();
    int quits = PyErr_GivenExceptionMatches(exc, PyExc_SystemExit) ||
                PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt);
    /* An ssl.SSLCertVerificationError is the one ValueError among them. */
    int certificate = PyErr_GivenExceptionMatches(exc, PyExc_ValueError);
    self->phase = PYC_TLS_UNWRAPPED;
    pyc_put_exception(Py_NewRef(exc));
    pyc_tls_fatal(self, certificate ? "SSL handshake failed on verifying the "
                                      "certificate"
                                    : "SSL handshake failed");
    if (!quits) {
        pyc_tls_wake_waiter(self, exc);
    }
    Py_DECREF(exc);
}

static void
handshake_done(pyc_tls *self)
{
    self->phase = PYC_TLS_WRAPPED;
    self->shaken = 1;
    if (self->loop->debug) {
        char text[64];
        snprintf(text, sizeof(text), "%.1f",
                 (pyc_loop_time() - self->handshake_start) * 1e3);
        say(self, "%r: SSL handshake took %s ms", text, NULL);
    }
    if (self->app_state == PYC_TLS_APP_NEW) {
        self->app_state = PYC_TLS_APP_MADE;
        if (pyc_streams_adopt(self->state, self->app) < 0) {
            pyc_loop_report(self->loop, PYC_STREAMS_NOT_ADOPTED, self->app,
                            (PyObject *)self->transport);
        }
        PyObject *result = pyc_tls_tell(self, self->state->str_connection_made,
                                        (PyObject *)self->transport);
        if (result == NULL) {
            pyc_tls_fatal(self,
                          /* asyncio says so, of its own protocol */
                          "Fatal error: protocol.buffer_updated() call "
                          "failed.");
            return; /* the waiter hears of it when the connection is lost */
        }
        Py_DECREF(result);
    }
    pyc_tls_wake_waiter(self, NULL);
    pyc_tls_read(self);
}

static void
do_handshake(pyc_tls *self)
{
    pyc_tls_result result = self->engine->handshake(self);
    if (result != PYC_TLS_AGAIN) {
        stop_timer(self, &self->handshake_timer);
    }
    /* The last words to the peer, which may be an alert. */
    PyObject *raised = pyc_take_exception();
    if (self->engine->flush(self) < 0) {
        PyErr_Clear();
    }
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
    if (self->phase != PYC_TLS_HANDSHAKE) {
        PyErr_Clear(); /* a callback of the context has ended it */
    }
    else if (result == PYC_TLS_DONE) {
        handshake_done(self);
    }
    else if (result != PYC_TLS_AGAIN) {
        handshake_failed(self);
    }
}

int
pyc_tls_connected(pyc_tls *self, PyObject *lower)
{
    PYC_FIELD_SET(self, lower, Py_NewRef(lower));
    self->stream = Py_IS_TYPE(lower, self->state->stream_type)
                       ? (pyc_stream *)lower
                       : NULL;
    self->phase = PYC_TLS_HANDSHAKE;
    if (self->loop->debug) {
        say(self, "%r starts SSL handshake%s", "", NULL);
        self->handshake_start = pyc_loop_time();
    }
    if (start_timer(self, &self->handshake_timer, self->handshake_timeout,
                    "_check_handshake_timeout") < 0) {
        return -1;
    }
    do_handshake(self);
    return 0;
}

/* ---- shutdown ---------------------------------------------------------- */

void
pyc_tls_call_eof_received(pyc_tls *self)
{
    if (self->app_state != PYC_TLS_APP_MADE) {
        return;
    }
    self->app_state = PYC_TLS_APP_EOF;
    PyObject *result = pyc_tls_tell(self, self->state->str_eof_received, NULL);
    int keep = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (keep > 0) {
        result = PyObject_CallMethod(
            self->state->asyncio_logger, "warning", "s",
            "returning true from eof_received() has no effect when using ssl");
        keep = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    if (keep < 0) {
        pyc_tls_fatal(self, "Error calling eof_received()");
    }
}

static void
close_lower(pyc_loop *loop, PyObject *lower)
{
    PyObject *result = PyObject_CallMethod(lower, "close", NULL);
    if (result == NULL) {
        pyc_loop_report(loop, "Exception in closing a transport", NULL, lower);
    }
    Py_XDECREF(result);
}

/* What is left to send may take long yet, to a peer that does not read: the
 * timer goes on until the connection is lost. */
static void
shutdown_done(pyc_tls *self)
{
    if (self->lower == NULL) {
        return;
    }
    if ((self->shutdown_timer == NULL &&
         start_timer(self, &self->shutdown_timer, self->shutdown_timeout,
                     "_check_shutdown_timeout") < 0) ||
        pyc_loop_soon(self->loop, close_lower, self->lower) < 0) {
        pyc_tls_fatal(self, "Fatal error on transport");
    }
}

static void
do_shutdown(pyc_tls *self)
{
    pyc_tls_result result =
        self->eof ? PYC_TLS_DONE : self->engine->shutdown(self);
    if (result == PYC_TLS_ERROR) {
        stop_timer(self, &self->shutdown_timer);
        pyc_tls_fatal(self, "Fatal error on transport");
        return;
    }
    if (self->engine->flush(self) < 0) {
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
        return;
    }
    if (result == PYC_TLS_DONE) {
        pyc_tls_call_eof_received(self);
        shutdown_done(self);
    }
}

/* Gives what has come, sends what is queued, and then says good-bye. When it is
 * the peer who has gone, all of it is given first, pauses or not. */
static void
do_flush(pyc_tls *self)
{
    pyc_tls_read(self);
    if (self->app_paused && self->shutdown_timer == NULL) {
        return; /* resume_reading() goes on, or close() */
    }
    pyc_tls_flush(self, 1);
    if (self->phase == PYC_TLS_FLUSHING) { /* else it was lost by that */
        self->phase = PYC_TLS_SHUTDOWN;
        do_shutdown(self);
    }
}

void
pyc_tls_start_shutdown(pyc_tls *self)
{
    if (self->phase == PYC_TLS_UNWRAPPED || self->phase == PYC_TLS_SHUTDOWN ||
        self->shutdown_timer != NULL) {
        return;
    }
    if (self->transport != NULL) {
        self->transport->closed = 1;
    }
    if (self->phase == PYC_TLS_HANDSHAKE) {
        if (pyc_tls_abort(self, NULL) < 0) {
            pyc_tls_fatal(self, "Fatal error on transport");
        }
        return;
    }
    self->phase = PYC_TLS_FLUSHING;
    if (start_timer(self, &self->shutdown_timer, self->shutdown_timeout,
                    "_check_shutdown_timeout") < 0) {
        pyc_tls_fatal(self, "Fatal error on transport");
        return;
    }
    do_flush(self);
}

/* ---- what the transport beneath tells ---------------------------------- */

/* Goes on with what waits. */
static void
proceed(pyc_tls *self)
{
    switch (self->phase) {
    case PYC_TLS_HANDSHAKE:
        do_handshake(self);
        break;
    case PYC_TLS_WRAPPED:
        pyc_tls_read(self);
        break;
    case PYC_TLS_FLUSHING:
        do_flush(self);
        break;
    case PYC_TLS_SHUTDOWN:
        do_shutdown(self);
        break;
    default:
        break;
    }
}

void
pyc_tls_received(PyObject *object, const char *data, size_t len)
{
    pyc_tls *self = (pyc_tls *)object;
    PyObject *context = Py_NewRef(self->context);
    Py_INCREF(self);
    int entered = pyc_stream_enter(context);
    if (self->phase != PYC_TLS_UNWRAPPED &&
        self->engine->feed(self, data, len) < 0) {
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
    }
    proceed(self);
    if (self->engine->keep(self) < 0) {
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
    }
    pyc_stream_leave(context, entered);
    Py_DECREF(context);
    Py_DECREF(self);
}

int
pyc_tls_lower_eof(pyc_tls *self)
{
    self->eof = 1;
    if (self->loop->debug) {
        say(self, "%r received EOF%s", "", NULL);
    }
    switch (self->phase) {
    case PYC_TLS_HANDSHAKE:
        stop_timer(self, &self->handshake_timer);
        PyErr_SetNone(PyExc_ConnectionResetError);
        handshake_failed(self);
        break;
    case PYC_TLS_WRAPPED:
        self->phase = PYC_TLS_FLUSHING;
        do_flush(self);
        return self->phase == PYC_TLS_FLUSHING;
    case PYC_TLS_FLUSHING:
        pyc_tls_flush(self, 1);
        self->phase = PYC_TLS_SHUTDOWN;
        do_shutdown(self);
        break;
    case PYC_TLS_SHUTDOWN:
        do_shutdown(self);
        break;
    default:
        break;
    }
    return 0;
}

static void
tell_lost(pyc_loop *loop, PyObject *pair)
{
    PyObject *app = PyTuple_GET_ITEM(pair, 0);
    PyObject *context = PyTuple_GET_ITEM(pair, 2);
    int entered = pyc_stream_enter(context);
    PyObject *result = PyObject_CallMethod(app, "connection_lost", "(O)",
                                           PyTuple_GET_ITEM(pair, 1));
    pyc_stream_leave(context, entered);
    if (result == NULL) {
        pyc_loop_report(loop, "Exception in callback connection_lost()", app,
                        NULL);
    }
    Py_XDECREF(result);
}

int
pyc_tls_lost(pyc_tls *self, PyObject *exc)
{
    int told = self->phase != PYC_TLS_HANDSHAKE && self->app != NULL &&
               (self->app_state == PYC_TLS_APP_MADE ||
                self->app_state == PYC_TLS_APP_EOF);
    PyObject *pair = NULL;
    if (told) {
        self->app_state = PYC_TLS_APP_LOST;
        pair = PyTuple_Pack(3, self->app, exc, self->context);
        if (pair == NULL || pyc_loop_soon(self->loop, tell_lost, pair) < 0) {
            pyc_loop_report(self->loop, "Exception in closing a transport",
                            (PyObject *)self, self->lower);
        }
        Py_XDECREF(pair);
    }
    self->phase = PYC_TLS_UNWRAPPED;
    self->conn_lost++;
    if (self->transport != NULL) {
        self->transport->closed = 1;
    }
    stop_timer(self, &self->shutdown_timer);
    stop_timer(self, &self->handshake_timer);
    pyc_tls_wake_waiter(self, exc == Py_None ? NULL : exc);
    pyc_link_remove(&self->flush.link);
    pyc_tls_bytes_free(&self->backlog);
    pyc_tls_bytes_free(&self->pipe.held);
    pyc_tls_bytes_free(&self->pipe.out);
    self->pipe.in_len = 0;
    pyc_callback_clear(&self->receive);
    pyc_callback_clear(&self->buffer);
    self->stream = NULL;
    PYC_FIELD_SET(self, lower, NULL);
    PYC_FIELD_SET(self, app, NULL);
    PYC_FIELD_SET(self, transport, NULL);
    return 0;
}

/* ---- resume_reading() -------------------------------------------------- */

static void
resume_now(pyc_loop *loop, PyObject *object)
{
    pyc_tls *self = (pyc_tls *)object;
    PyObject *context = Py_NewRef(self->context);
    int entered = pyc_stream_enter(context);
    self->resuming = 0;
    if (self->phase != PYC_TLS_HANDSHAKE) {
        proceed(self);
    }
    pyc_stream_leave(context, entered);
    Py_DECREF(context);
}

void
pyc_tls_resume(pyc_tls *self)
{
    if (self->resuming || self->loop->closed) {
        return;
    }
    if (pyc_loop_soon(self->loop, resume_now, (PyObject *)self) < 0) {
        pyc_tls_fatal(self, "Fatal error on SSL protocol");
        return;
    }
    self->resuming = 1;
}
