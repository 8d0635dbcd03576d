/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/sock_action.h"
#include "net/sock_poll.h"

#include <errno.h>
#include <unistd.h>

/* Fits below the size from which malloc maps memory, so that shrinking it to
 * what was read costs nothing. */
enum { DIRECT_SIZE = 128 * 1024 - 256 };

/* What errno says of a system call that failed: blocked, or an OSError. */
static int
failed(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return PYC_OP_BLOCKED;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return PYC_OP_FAILED;
}

static int
done(PyObject *result_or_null)
{
    return result_or_null == NULL ? PYC_OP_FAILED : PYC_OP_DONE;
}

/* ---- receiving --------------------------------------------------------- */

/* recvfrom() into `buffer`; `address` may be NULL. */
static ssize_t
receive(pyc_sock_op *self, void *buffer, size_t size, pyc_address *address)
{
    ssize_t n;
    do {
        if (address == NULL) {
            n = recv(self->fd, buffer, size, MSG_DONTWAIT);
        }
        else {
            address->len = sizeof(address->u);
            n = recvfrom(self->fd, buffer, size, MSG_DONTWAIT, &address->u.any,
                         &address->len);
        }
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        pyc_sock_has_read(self->loop, self->fd, self->sock, (size_t)n, size);
    }
    return n;
}

/* Straight into a bytes object. */
static int
receive_direct(pyc_sock_op *self, Py_ssize_t size, pyc_address *address,
               PyObject **result)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (bytes == NULL) {
        return PYC_OP_FAILED;
    }
    ssize_t n = receive(self, PyBytes_AS_STRING(bytes), (size_t)size, address);
    if (n < 0) {
        int error = errno;
        Py_DECREF(bytes);
        errno = error;
        return failed();
    }
    if (n < size && _PyBytes_Resize(&bytes, n) < 0) {
        return PYC_OP_FAILED;
    }
    *result = bytes;
    return PYC_OP_DONE;
}

static int
receive_bytes(pyc_sock_op *self, pyc_address *address, PyObject **result)
{
    if (self->size > DIRECT_SIZE &&
        pyc_sock_reads_bulk(self->loop, self->fd, self->sock)) {
        return receive_direct(self, DIRECT_SIZE, address, result);
    }
    if (self->size > PYC_SCRATCH_SIZE) {
        return receive_direct(self, self->size, address, result);
    }
    char *buffer = pyc_loop_scratch(self->loop);
    if (buffer == NULL) {
        return PYC_OP_FAILED;
    }
    ssize_t n = receive(self, buffer, (size_t)self->size, address);
    if (n < 0) {
        return failed();
    }
    *result = PyBytes_FromStringAndSize(buffer, n);
    return done(*result);
}

static int
receive_into(pyc_sock_op *self, pyc_address *address, PyObject **result)
{
    Py_buffer view;
    if (PyObject_GetBuffer(self->data, &view, PyBUF_WRITABLE) < 0) {
        PyErr_Format(PyExc_TypeError,
                     "%s() needs a read-write bytes-like object, not '%s'",
                     self->action->name, Py_TYPE(self->data)->tp_name);
        return PYC_OP_FAILED;
    }
    /* It may have shrunk since. */
    Py_ssize_t size =
        self->size > 0 && self->size < view.len ? self->size : view.len;
    ssize_t n = receive(self, view.buf, (size_t)size, address);
    int code = n < 0 ? failed() : PYC_OP_DONE;
    PyBuffer_Release(&view);
    if (code == PYC_OP_DONE) {
        *result = PyLong_FromSsize_t(n);
        code = done(*result);
    }
    return code;
}

static int
recv_attempt(pyc_sock_op *self, PyObject **result)
{
    return receive_bytes(self, NULL, result);
}

static int
recv_into_attempt(pyc_sock_op *self, PyObject **result)
{
    return receive_into(self, NULL, result);
}

/* (received, address) in the place of `*result`. */
static int
with_address(int code, const pyc_address *address, PyObject **result)
{
    if (code != PYC_OP_DONE) {
        return code;
    }
    PyObject *from = pyc_address_to_object(address);
    if (from == NULL) {
        Py_CLEAR(*result);
        return PYC_OP_FAILED;
    }
    *result = Py_BuildValue("(NN)", *result, from);
    return done(*result);
}

static int
recvfrom_attempt(pyc_sock_op *self, PyObject **result)
{
    pyc_address address;
    return with_address(receive_bytes(self, &address, result), &address,
                        result);
}

static int
recvfrom_into_attempt(pyc_sock_op *self, PyObject **result)
{
    pyc_address address;
    return with_address(receive_into(self, &address, result), &address, result);
}

const pyc_sock_action pyc_sock_recv = {"sock_recv", PYC_SOCK_READ,
                                       recv_attempt};
const pyc_sock_action pyc_sock_recv_into = {"sock_recv_into", PYC_SOCK_READ,
                                            recv_into_attempt};
const pyc_sock_action pyc_sock_recvfrom = {"sock_recvfrom", PYC_SOCK_READ,
                                           recvfrom_attempt};
const pyc_sock_action pyc_sock_recvfrom_into = {
    "sock_recvfrom_into", PYC_SOCK_READ, recvfrom_into_attempt};

/* ---- sending ----------------------------------------------------------- */

/* self->size is what has been sent already. */
static int
sendall_attempt(pyc_sock_op *self, PyObject **result)
{
    Py_buffer view;
    int code = PYC_OP_DONE;
    if (PyObject_GetBuffer(self->data, &view, PyBUF_SIMPLE) < 0) {
        return PYC_OP_FAILED;
    }
    do {
        const char *rest = (const char *)view.buf + self->size;
        ssize_t n = send(self->fd, rest, (size_t)(view.len - self->size),
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            self->size += n;
        }
        else if (errno != EINTR) {
            code = failed();
        }
    } while (code == PYC_OP_DONE && self->size < view.len);
    PyBuffer_Release(&view);
    if (code == PYC_OP_DONE) {
        *result = Py_NewRef(Py_None);
    }
    return code;
}

static int
sendto_attempt(pyc_sock_op *self, PyObject **result)
{
    Py_buffer view;
    if (PyObject_GetBuffer(self->data, &view, PyBUF_SIMPLE) < 0) {
        return PYC_OP_FAILED;
    }
    ssize_t n;
    do {
        n = sendto(self->fd, view.buf, (size_t)view.len,
                   MSG_DONTWAIT | MSG_NOSIGNAL, &self->address->u.any,
                   self->address->len);
    } while (n < 0 && errno == EINTR);
    int code = n < 0 ? failed() : PYC_OP_DONE;
    PyBuffer_Release(&view);
    if (code == PYC_OP_DONE) {
        *result = PyLong_FromSsize_t(n);
        code = done(*result);
    }
    return code;
}

const pyc_sock_action pyc_sock_sendall = {"sock_sendall", PYC_SOCK_WRITE,
                                          sendall_attempt};
const pyc_sock_action pyc_sock_sendto = {"sock_sendto", PYC_SOCK_WRITE,
                                         sendto_attempt};

/* ---- connections ------------------------------------------------------- */

static int
connect_failed(pyc_sock_op *self, int error)
{
    PyObject *address = pyc_address_to_object(self->address);
    if (address == NULL) {
        return PYC_OP_FAILED;
    }
    PyObject *message = PyUnicode_FromFormat("Connect call failed %S", address);
    Py_DECREF(address);
    if (message == NULL) {
        return PYC_OP_FAILED;
    }
    PyObject *exception =
        PyObject_CallFunction(PyExc_OSError, "iN", error, message);
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return PYC_OP_FAILED;
}

static int
connect_begin(pyc_sock_op *self)
{
    if (connect(self->fd, &self->address->u.any, self->address->len) == 0) {
        return PYC_OP_DONE;
    }
    /* After a signal the kernel goes on connecting. EALREADY: somebody has
     * begun before. A Unix socket's EAGAIN is no such thing: the listener's
     * queue is full. */
    if (errno == EINPROGRESS || errno == EINTR || errno == EALREADY) {
        self->anew = 1;
        return PYC_OP_BLOCKED;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return PYC_OP_FAILED;
}

static int
connect_attempt(pyc_sock_op *self, PyObject **result)
{
    int code, error;
    socklen_t len = sizeof(error);
    if (!self->anew) {
        code = connect_begin(self);
    }
    else if (getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0) {
        code = failed();
    }
    else {
        code = error == 0 ? PYC_OP_DONE : connect_failed(self, error);
    }
    if (code == PYC_OP_DONE) {
        *result = Py_NewRef(Py_None);
    }
    return code;
}

/* A non-blocking socket object that owns `fd`. */
static PyObject *
new_socket(pyc_state *state, int fd)
{
    PyObject *kwargs = Py_BuildValue("{si}", "fileno", fd);
    PyObject *none = PyTuple_New(0);
    PyObject *sock = NULL;
    if (kwargs != NULL && none != NULL) {
        sock = PyObject_Call(state->socket_type, none, kwargs);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(none);
    if (sock == NULL) {
        close(fd);
        return NULL;
    }
    PyObject *set = PyObject_CallMethod(sock, "setblocking", "O", Py_False);
    if (set == NULL) {
        Py_CLEAR(sock);
    }
    Py_XDECREF(set);
    return sock;
}

static int
accept_attempt(pyc_sock_op *self, PyObject **result)
{
    pyc_address address;
    int fd;
    do {
        address.len = sizeof(address.u);
        fd = accept4(self->fd, &address.u.any, &address.len,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return failed();
    }
    *result = new_socket(self->loop->state, fd);
    return with_address(done(*result), &address, result);
}

const pyc_sock_action pyc_sock_connect = {"sock_connect", PYC_SOCK_WRITE,
                                          connect_attempt};
const pyc_sock_action pyc_sock_accept = {"sock_accept", PYC_SOCK_READ,
                                         accept_attempt};
