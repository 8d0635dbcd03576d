/* SPDX-License-Identifier: MIT */
/* The flow of what is written: queued, sent before the loop polls again or when
 * the descriptor takes more, and the protocol paused meanwhile. */
#include "py/compat.h"
#include "net/pass_on.h"
#include "net/transport.h"

void
pyc_transport_drop_outbox(pyc_transport *self)
{
    self->blocked = 0;
    pyc_outbox_drop(&self->outbox);
}

/* ---- sending ----------------------------------------------------------- */

static void
update(pyc_transport *self)
{
    if (self->loop != NULL) { /* else Python code that was called ended it */
        self->kind->update(self);
    }
}

/* Sends until the descriptor takes no more. 0, or -1 when that failed. */
static int
outbox_flush(pyc_transport *self)
{
    unsigned limit = self->gathers ? PYC_IOV_LIMIT : 1;
    while (self->outbox != NULL) {
        pyc_outbox *box = self->outbox;
        unsigned before = pyc_outbox_len(box);
        unsigned len = before < limit ? before : limit;
        ssize_t n = self->kind->send(self, box->iov + box->head, len);
        if (n < 0) {
            self->kind->fatal(self, self->kind->write_failed);
            return -1;
        }
        pyc_outbox_sent(&self->outbox, (size_t)n);
        if (pyc_outbox_len(self->outbox) > before - len) {
            break;
        }
    }
    self->blocked = self->outbox != NULL;
    return 0;
}

int
pyc_transport_flush(pyc_transport *self)
{
    int code = outbox_flush(self);
    update(self);
    return code;
}

/* ---- flow control ------------------------------------------------------ */

/* As asyncio's: in the context of whoever writes. */
static void
pause_protocol(pyc_transport *self)
{
    if (self->protocol_paused || self->protocol == NULL ||
        pyc_outbox_bytes(self->outbox) <= self->high) {
        return;
    }
    self->protocol_paused = 1;
    PyObject *protocol = Py_NewRef(self->protocol); /* it may replace itself */
    PyObject *result =
        PyObject_CallMethodNoArgs(protocol, self->state->str_pause_writing);
    Py_DECREF(protocol);
    if (result == NULL) {
        pyc_transport_report(self, "protocol.pause_writing() failed");
    }
    Py_XDECREF(result);
}

static void
resume_protocol(pyc_transport *self)
{
    if (self->protocol_paused && pyc_outbox_bytes(self->outbox) <= self->low) {
        self->protocol_paused = 0;
        pyc_transport_tell(self, self->state->str_resume_writing, NULL,
                           "protocol.resume_writing() failed");
    }
}

void
pyc_transport_queued(pyc_transport *self)
{
    pyc_loop *loop = self->loop;
    if (!self->blocked) {
        size_t queued = pyc_outbox_bytes(self->outbox);
        if (queued > PYC_GATHER_LIMIT || queued > self->high ||
            !self->gathers || loop->thread == 0 || loop->saved != NULL) {
            if (pyc_transport_flush(self) < 0) {
                return;
            }
        }
        else {
            pyc_loop_flush_later(loop, &self->flush);
            self->kind->update(self);
        }
    }
    pause_protocol(self);
}

void
pyc_transport_send_lines(pyc_transport *self, int first)
{
    if (self->outbox != NULL && first) {
        self->wrote = self->loop->turn;
        pyc_transport_flush(self);
    }
    if (self->outbox != NULL) {
        pyc_transport_queued(self);
    }
}

int
pyc_transport_queue(pyc_transport *self, PyObject *object, const char *data,
                    size_t len)
{
    PyObject *owner = pyc_outbox_keeper(object, &data, len);
    if (owner == NULL ||
        pyc_outbox_push(&self->outbox, owner, data, len, 1) < 0) {
        self->blocked = self->blocked && self->outbox != NULL;
        return -1;
    }
    if (self->blocked && pyc_outbox_len(self->outbox) == 1) {
        self->kind->update(self);
    }
    pyc_transport_queued(self);
    return 0;
}

void
pyc_transport_write_ready(pyc_transport *self)
{
    if (outbox_flush(self) == 0) {
        resume_protocol(self);
        if (self->outbox == NULL) {
            self->kind->emptied(self);
        }
    }
    update(self);
}

/* Runs before the poll. */
void
pyc_transport_flush_later(pyc_flush *flush)
{
    pyc_transport *self = pyc_container(flush, pyc_transport, flush);
    if (self->outbox == NULL || self->blocked) {
        return; /* flushed early */
    }
    Py_INCREF(self);
    pyc_transport_write_ready(self);
    Py_DECREF(self);
}

/* ---- limits ------------------------------------------------------------ */

PyObject *
pyc_transport_set_write_buffer_limits(pyc_transport *self, PyObject *args,
                                      PyObject *kwargs)
{
    if (pyc_limits_parse(args, kwargs, "|OO:set_write_buffer_limits",
                         PYC_HIGH_WATER, &self->high, &self->low) < 0) {
        return NULL;
    }
    if (!pyc_is_passed_on((PyObject *)self, &self->loop) &&
        self->outbox != NULL) {
        pyc_transport_queued(self);
    }
    Py_RETURN_NONE;
}

PyObject *
pyc_transport_get_write_buffer_limits(pyc_transport *self,
                                      PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->low, (Py_ssize_t)self->high);
}

/* What only waits for the end of the turn is not counted: it goes first. */
PyObject *
pyc_transport_get_write_buffer_size(pyc_transport *self,
                                    PyObject *Py_UNUSED(ignored))
{
    if (pyc_check_runs_here((PyObject *)self, &self->loop,
                            "get_write_buffer_size()") < 0) {
        return NULL;
    }
    if (self->outbox != NULL && !self->blocked) {
        pyc_transport_flush(self);
    }
    return PyLong_FromSize_t(pyc_outbox_bytes(self->outbox));
}
