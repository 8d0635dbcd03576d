/* SPDX-License-Identifier: MIT */
/* The engine for every other ssl_object: through its methods and MemoryBIOs. */
#include "py/compat.h"
#include "net/tls/libssl.h"
#include "net/tls/tls.h"

/* ---- calls ------------------------------------------------------------- */

pyc_tls_result
pyc_tls_judge_call(pyc_tls *self, PyObject *result)
{
    if (result != NULL) {
        Py_DECREF(result);
        return PYC_TLS_DONE;
    }
    if (PyErr_ExceptionMatches(self->state->tls_again)) {
        PyErr_Clear();
        return PYC_TLS_AGAIN;
    }
    return PYC_TLS_ERROR;
}

/* Nobody may look at our memory later. */
static void
release(PyObject *view)
{
    PyObject *raised = pyc_take_exception();
    PyObject *result = PyObject_CallMethod(view, "release", NULL);
    if (result == NULL) {
        PyErr_WriteUnraisable(view);
    }
    Py_XDECREF(result);
    Py_DECREF(view);
    if (raised != NULL) {
        pyc_put_exception(raised);
    }
}

/* The number that a method of ssl_object gives: -1 with an exception. */
static Py_ssize_t
take_count(PyObject *result)
{
    Py_ssize_t count = result == NULL ? -1 : PyLong_AsSsize_t(result);
    Py_XDECREF(result);
    return count;
}

/* ---- the engine -------------------------------------------------------- */

static int
object_feed(pyc_tls *self, const char *data, size_t len)
{
    PyObject *result = PyObject_CallMethod(self->incoming, "write", "y#", data,
                                           (Py_ssize_t)len);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
object_keep(pyc_tls *Py_UNUSED(self))
{
    return 0;
}

static size_t
object_waiting(pyc_tls *self)
{
    Py_ssize_t count =
        take_count(PyObject_GetAttrString(self->incoming, "pending"));
    if (count < 0) {
        PyErr_Clear();
        return 0;
    }
    return (size_t)count;
}

static Py_ssize_t
read_some(pyc_tls *self, char *data, size_t size)
{
    PyObject *view =
        PyMemoryView_FromMemory(data, (Py_ssize_t)size, PyBUF_WRITE);
    if (view == NULL) {
        return -1;
    }
    Py_ssize_t n = take_count(PyObject_CallMethod(
        self->ssl_object, "read", "nO", (Py_ssize_t)size, view));
    release(view);
    return n;
}

static pyc_tls_result
object_read(pyc_tls *self, char *data, size_t size, size_t *got)
{
    *got = 0;
    while (*got < size) {
        Py_ssize_t n = read_some(self, data + *got, size - *got);
        if (n < 0) {
            return pyc_tls_judge_call(self, NULL);
        }
        if (n == 0) {
            return PYC_TLS_EOF;
        }
        *got += (size_t)n;
    }
    return PYC_TLS_DONE;
}

static pyc_tls_result
object_write(pyc_tls *self, const char *data, size_t len)
{
    PyObject *view =
        PyMemoryView_FromMemory((char *)data, (Py_ssize_t)len, PyBUF_READ);
    if (view == NULL) {
        return PYC_TLS_ERROR;
    }
    Py_ssize_t n =
        take_count(PyObject_CallMethod(self->ssl_object, "write", "O", view));
    release(view);
    if (n >= 0 && (size_t)n != len) {
        PyErr_Format(PyExc_RuntimeError, "%R wrote %zd of %zu bytes",
                     self->ssl_object, n, len);
        return PYC_TLS_ERROR;
    }
    return n < 0 ? pyc_tls_judge_call(self, NULL) : PYC_TLS_DONE;
}

static pyc_tls_result
object_handshake(pyc_tls *self)
{
    return pyc_tls_judge_call(
        self, PyObject_CallMethod(self->ssl_object, "do_handshake", NULL));
}

static pyc_tls_result
object_shutdown(pyc_tls *self)
{
    return pyc_tls_judge_call(
        self, PyObject_CallMethod(self->ssl_object, "unwrap", NULL));
}

static int
object_flush(pyc_tls *self)
{
    PyObject *data = PyObject_CallMethod(self->outgoing, "read", NULL);
    int code = -1;
    if (data != NULL) {
        Py_ssize_t len = PyBytes_GET_SIZE(data);
        code = len == 0 ? 0
                        : pyc_tls_lower_send(self, PyBytes_AS_STRING(data),
                                             (size_t)len);
        Py_DECREF(data);
    }
    return code;
}

static void
object_detach(pyc_tls *Py_UNUSED(self))
{
}

const pyc_tls_engine pyc_tls_object_engine = {
    .name = "object",
    .feed = object_feed,
    .keep = object_keep,
    .waiting = object_waiting,
    .read = object_read,
    .write = object_write,
    .handshake = object_handshake,
    .shutdown = object_shutdown,
    .flush = object_flush,
    .detach = object_detach,
};

/* ---- beginning --------------------------------------------------------- */

/* An attribute of the module ssl: 0, or -1 with an exception set. */
static int
take(PyObject **slot, PyObject *ssl, const char *name)
{
    Py_XSETREF(*slot, PyObject_GetAttrString(ssl, name));
    return *slot == NULL ? -1 : 0;
}

/* What is needed of the module ssl, which a Python may lack. */
static int
import_ssl(pyc_state *state)
{
    if (state->tls_again != NULL) {
        return 0;
    }
    PyObject *ssl = PyImport_ImportModule("ssl");
    PyObject *want = NULL, *sys = NULL;
    if (ssl == NULL) {
        return -1;
    }
    if (take(&state->tls_error, ssl, "SSLError") == 0 &&
        take(&state->tls_object, ssl, "SSLObject") == 0 &&
        take(&state->tls_memory_bio, ssl, "MemoryBIO") == 0 &&
        take(&want, ssl, "SSLWantReadError") == 0 &&
        take(&sys, ssl, "SSLSyscallError") == 0) {
        state->tls_again = PyTuple_Pack(2, want, sys);
    }
    Py_DECREF(ssl);
    Py_XDECREF(want);
    Py_XDECREF(sys);
    return state->tls_again == NULL ? -1 : 0;
}

/* sslcontext.wrap_bio(incoming, outgoing, server_side, server_hostname) */
static PyObject *
wrap(pyc_tls *self, PyObject *server_hostname)
{
    PyObject *method = PyObject_GetAttrString(self->sslcontext, "wrap_bio");
    PyObject *args = PyTuple_Pack(2, self->incoming, self->outgoing);
    PyObject *kwargs = Py_BuildValue("{sOsO}", "server_side",
                                     self->server_side ? Py_True : Py_False,
                                     "server_hostname", server_hostname);
    PyObject *made = NULL;
    if (method != NULL && args != NULL && kwargs != NULL) {
        made = PyObject_Call(method, args, kwargs);
    }
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return made;
}

int
pyc_tls_open(pyc_tls *self, PyObject *server_hostname)
{
    pyc_state *state = self->state;
    int code;
    PYC_BEGIN_CRITICAL_SECTION(state->asyncio_Protocol);
    code = import_ssl(state);
    PYC_END_CRITICAL_SECTION();
    if (code < 0) {
        return -1;
    }
    self->incoming = PyObject_CallNoArgs(state->tls_memory_bio);
    if (self->incoming == NULL) {
        return -1;
    }
    self->outgoing = PyObject_CallNoArgs(state->tls_memory_bio);
    if (self->outgoing == NULL) {
        return -1;
    }
    (void)pyc_libssl_get();
    (void)pyc_libssl_take_newest();
    self->ssl_object = wrap(self, server_hostname);
    if (self->ssl_object == NULL) {
        return -1;
    }
    self->engine = &pyc_tls_object_engine;
    if (pyc_tls_attach_direct(self)) {
        Py_CLEAR(self->incoming);
        Py_CLEAR(self->outgoing);
    }
    return 0;
}
