/* SPDX-License-Identifier: MIT */
/* A transport begins, calls its protocol, and is watched. */
#include "py/compat.h"
#include "net/pass_on.h"
#include "net/streams/streams.h"
#include "net/transport.h"

/* ---- the object -------------------------------------------------------- */

void
pyc_transport_fill(pyc_transport *self, const pyc_transport_kind *kind,
                   pyc_loop *loop)
{
    self->kind = kind;
    self->state = loop->state;
    self->loop = (pyc_loop *)Py_NewRef(loop);
    self->wrote = loop->turn - 1;
    self->high = PYC_HIGH_WATER;
    self->low = PYC_HIGH_WATER / 4;
    self->flush.run = pyc_transport_flush_later;
    pyc_link_init(&self->flush.link);
}

int
pyc_transport_traverse(pyc_transport *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->context);
    Py_VISIT(self->lost_exc);
    Py_VISIT(self->receive.fn);
    Py_VISIT(self->receive.self);
    return 0;
}

void
pyc_transport_clear(pyc_transport *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->context);
    Py_CLEAR(self->lost_exc);
    pyc_callback_clear(&self->receive);
}

/* ---- the protocol ------------------------------------------------------ */

void
pyc_transport_report(pyc_transport *self, const char *message)
{
    if (self->loop == NULL) { /* a nested run has ended it */
        PyErr_WriteUnraisable((PyObject *)self);
        return;
    }
    pyc_loop_report(self->loop, message, self->protocol, (PyObject *)self);
}

void
pyc_transport_tell(pyc_transport *self, PyObject *name, PyObject *arg,
                   const char *message)
{
    PyObject *result = pyc_tell(self->protocol, self->context, name, arg);
    if (result == NULL) {
        pyc_transport_report(self, message);
    }
    Py_XDECREF(result);
}

/* ---- the beginning ----------------------------------------------------- */

void
pyc_transport_begin(pyc_transport *self)
{
    if (pyc_streams_adopt(self->state, self->protocol) < 0) {
        pyc_transport_report(self, PYC_STREAMS_NOT_ADOPTED);
    }
    pyc_transport_tell(self, self->state->str_connection_made, (PyObject *)self,
                       "Exception in callback connection_made()");
    self->started = 1;
    if (self->loop != NULL) {
        self->kind->update(self);
    }
}

static void
begin(pyc_loop *loop, PyObject *self)
{
    pyc_transport_begin((pyc_transport *)self);
}

int
pyc_transport_begin_soon(pyc_transport *self, PyObject *waiter)
{
    if (pyc_loop_soon(self->loop, begin, (PyObject *)self) < 0) {
        return -1;
    }
    return waiter == Py_None
               ? 0
               : pyc_loop_soon(self->loop, pyc_wake_waiter, waiter);
}

/* ---- watching ---------------------------------------------------------- */

void
pyc_transport_hold(pyc_transport *self)
{
    int hold = self->outbox != NULL && !self->blocked;
    if (hold && !self->held) {
        self->held = 1;
        Py_INCREF(self);
    }
    else if (!hold && self->held) {
        self->held = 0;
        Py_DECREF(self);
    }
}

void
pyc_transport_unwatch(pyc_transport *self)
{
    if (self->watcher != NULL) {
        pyc_watcher_close(self->watcher);
        self->watcher = NULL;
    }
}

int
pyc_transport_watch(pyc_transport *self, int events)
{
    if ((events == 0 && self->closing) || self->loop->closed) {
        pyc_transport_unwatch(self);
        return 0;
    }
    if (self->watcher == NULL) {
        if (events == 0) {
            return 0;
        }
        self->watcher =
            pyc_watcher_open(self->loop, self->fd, self->kind->ready, self);
        if (self->watcher == NULL) {
            return -1;
        }
    }
    return pyc_watcher_set_for(self->watcher, events, (PyObject *)self);
}

/* ---- methods ----------------------------------------------------------- */

PyObject *
pyc_transport_get_protocol(pyc_transport *self, PyObject *Py_UNUSED(ignored))
{
    return pyc_field_get((PyObject *)self, &self->protocol);
}

PyObject *
pyc_transport_is_closing(pyc_transport *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closing);
}

PyObject *
pyc_transport_is_reading(pyc_transport *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!self->closing && !self->paused);
}
