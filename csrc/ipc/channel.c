/* SPDX-License-Identifier: MIT */
/* Slots, and jobs into the queue. */
#include "ipc/channel.h"

#include <stdlib.h>

void
pyc_call_clear(pyc_call *call)
{
    Py_CLEAR(call->future);
    Py_CLEAR(call->blob);
    Py_CLEAR(call->args);
    Py_CLEAR(call->kwargs);
}

/* Of large payloads each worker may have one. What was revoked is in the queue
 * still. */
static bool
has_room(pyc_channel *self)
{
    pyc_ring *ring = &pyc_queue_shared(self->jobs)->ring;
    pyc_ring_cursor in;
    if (self->first_free >= self->board->slots) {
        return false;
    }
    if (self->in_flight < self->board->workers) {
        return true;
    }
    pyc_ring_load(&ring->in, &in);
    return self->bytes < self->max_bytes &&
           pyc_ring_weight(ring, &in) < self->max_bytes;
}

/* A slot for the call, or false: there is no room. */
static bool
reserve(pyc_channel *self, const pyc_call *call, uint64_t *task)
{
    pyc_lock_take(&self->lock);
    bool found = has_room(self);
    if (found) {
        uint32_t at = self->first_free;
        pyc_slot *slot = &self->slots[at];
        self->first_free = slot->next;
        self->in_flight++;
        slot->generation++;
        slot->generation += slot->generation == 0;
        slot->number = self->sent++;
        slot->weight = 0;
        slot->call.future = Py_NewRef(call->future);
        slot->call.blob = Py_NewRef(call->blob);
        slot->call.args = Py_NewRef(call->args);
        slot->call.kwargs = Py_NewRef(call->kwargs);
        *task = pyc_channel_task(self, at);
    }
    else {
        atomic_store(&self->wants_room, 1);
    }
    pyc_lock_give(&self->lock);
    return found;
}

/* Of a task that is not over; or NULL. With the lock. */
static pyc_slot *
slot_of(pyc_channel *self, uint64_t task)
{
    uint32_t at = PYC_TASK_SLOT(task);
    pyc_slot *slot = at < self->board->slots ? &self->slots[at] : NULL;
    return slot != NULL && slot->call.future != NULL &&
                   slot->generation == PYC_TASK_GENERATION(task)
               ? slot
               : NULL;
}

static bool
end(pyc_channel *self, uint64_t task, pyc_call *call)
{
    pyc_slot *slot = slot_of(self, task);
    if (slot == NULL) {
        return false;
    }
    pyc_board_set(self->board, task, PYC_OVER);
    *call = slot->call;
    slot->call = (pyc_call){0};
    slot->is_arrived = false;
    slot->next = self->first_free;
    self->first_free = PYC_TASK_SLOT(task);
    self->in_flight--;
    self->bytes -= slot->weight;
    return true;
}

bool
pyc_channel_end(pyc_channel *self, uint64_t task, pyc_call *call)
{
    pyc_lock_take(&self->lock);
    bool ended = end(self, task, call);
    pyc_lock_give(&self->lock);
    return ended;
}

PyObject *
pyc_channel_arrive(pyc_channel *self, uint64_t task)
{
    PyObject *future = NULL;
    pyc_lock_take(&self->lock);
    pyc_slot *slot = slot_of(self, task);
    if (slot != NULL && !slot->is_arrived) {
        pyc_board_set(self->board, task, PYC_OVER);
        slot->is_arrived = true;
        future = slot->call.future;
    }
    pyc_lock_give(&self->lock);
    return future;
}

bool
pyc_channel_is_running(pyc_channel *self, uint64_t task)
{
    pyc_lock_take(&self->lock);
    pyc_slot *slot = slot_of(self, task);
    bool is_running =
        slot != NULL &&
        (slot->is_arrived || pyc_board_state(self->board, task) >= PYC_BEGUN);
    pyc_lock_give(&self->lock);
    return is_running;
}

bool
pyc_channel_revoke(pyc_channel *self, uint64_t task, pyc_call *call)
{
    pyc_lock_take(&self->lock);
    bool revoked = PYC_TASK_SLOT(task) < self->board->slots &&
                   pyc_board_move(self->board, task, PYC_QUEUED, PYC_OVER) &&
                   end(self, task, call);
    pyc_lock_give(&self->lock);
    return revoked;
}

uint64_t
pyc_channel_find(pyc_channel *self, PyObject *future)
{
    uint64_t found = 0;
    pyc_lock_take(&self->lock);
    for (uint32_t i = 0; i < self->board->slots && found == 0; i++) {
        if (self->slots[i].call.future == future) {
            found = pyc_channel_task(self, i);
        }
    }
    pyc_lock_give(&self->lock);
    return found;
}

uint64_t
pyc_channel_begun(pyc_channel *self, uint32_t worker)
{
    uint64_t found = 0;
    pyc_lock_take(&self->lock);
    for (uint32_t i = 0; i < self->board->slots && found == 0; i++) {
        uint64_t task = pyc_channel_task(self, i);
        if (self->slots[i].call.future != NULL &&
            pyc_board_state(self->board, task) == PYC_BEGUN + worker) {
            found = task;
        }
    }
    pyc_lock_give(&self->lock);
    return found;
}

typedef struct {
    uint64_t number;
    PyObject *future; /* owned */
} sent;

static int
by_number(const void *one, const void *other)
{
    uint64_t a = ((const sent *)one)->number, b = ((const sent *)other)->number;
    return a < b ? -1 : a > b;
}

/* Those of the slots, as they were sent: how many. */
static Py_ssize_t
in_order(pyc_channel *self, sent *all)
{
    Py_ssize_t n = 0;
    pyc_lock_take(&self->lock);
    for (uint32_t i = 0; i < self->board->slots; i++) {
        pyc_slot *slot = &self->slots[i];
        if (slot->call.future != NULL) {
            all[n++] = (sent){slot->number, Py_NewRef(slot->call.future)};
        }
    }
    pyc_lock_give(&self->lock);
    qsort(all, (size_t)n, sizeof(*all), by_number);
    return n;
}

PyObject *
pyc_channel_futures(pyc_channel *self)
{
    sent *all = PyMem_Malloc(self->board->slots * sizeof(*all));
    if (all == NULL) {
        return PyErr_NoMemory();
    }
    Py_ssize_t n = in_order(self, all);
    PyObject *list = PyList_New(n);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (list == NULL) {
            Py_DECREF(all[i].future);
        }
        else {
            PyList_SET_ITEM(list, i, all[i].future);
        }
    }
    PyMem_Free(all);
    return list;
}

static bool
is_large(PyObject *object)
{
    return (PyBytes_CheckExact(object) &&
            PyBytes_GET_SIZE(object) >= PYC_BUFFER_LEAST) ||
           (PyByteArray_CheckExact(object) &&
            PyByteArray_GET_SIZE(object) >= PYC_BUFFER_LEAST);
}

/* The arguments with a PickleBuffer in place of each large bytes, which then
 * goes beside the pickle. NULL with an exception set. */
static PyObject *
carry(PyObject *args, uint32_t *carried)
{
    Py_ssize_t n = PyTuple_CheckExact(args) ? PyTuple_GET_SIZE(args) : 0;
    for (Py_ssize_t i = 0; i < n && i < 32; i++) {
        *carried |= (uint32_t)is_large(PyTuple_GET_ITEM(args, i)) << i;
    }
    if (*carried == 0) {
        return Py_NewRef(args);
    }
    PyObject *copy = PyTuple_New(n);
    for (Py_ssize_t i = 0; copy != NULL && i < n; i++) {
        PyObject *item = PyTuple_GET_ITEM(args, i);
        item = i < 32 && (*carried >> i & 1) ? PyPickleBuffer_FromObject(item)
                                             : Py_NewRef(item);
        if (item == NULL) {
            Py_CLEAR(copy);
        }
        else {
            PyTuple_SET_ITEM(copy, i, item);
        }
    }
    return copy;
}

/* A message of the call; *job keeps what it refers to. 0, or -1 with an
 * exception set. */
static int
message_of(pyc_channel *self, const pyc_call *call, pyc_flat *flat,
           pyc_message *message, uint32_t *carried, PyObject **job)
{
    flat->length = 0;
    pyc_flat_begin(flat, 3);
    if (pyc_flat_add(flat, call->blob) && pyc_flat_add(flat, call->args) &&
        pyc_flat_add(flat, call->kwargs)) {
        pyc_message_flat(flat, message);
        return 0;
    }
    PyObject *args = carry(call->args, carried);
    if (args == NULL) {
        return -1;
    }
    *job = PyTuple_Pack(3, call->blob, args, call->kwargs);
    Py_DECREF(args);
    return *job == NULL ? -1 : pyc_message_of(self->state, *job, message);
}

/* The task is queued before its record is there: a worker may see that at
 * once. */
static int
put(pyc_channel *self, uint64_t task, const pyc_call *call)
{
    pyc_flat flat;
    pyc_frame frame = {.task = task};
    pyc_message message = {0};
    PyObject *job = NULL;
    int rc = message_of(self, call, &flat, &message, &frame.carried, &job);
    if (rc == 0) {
        message.frame = &frame;
        pyc_lock_take(&self->lock);
        self->slots[PYC_TASK_SLOT(task)].weight = message.weight;
        self->bytes += message.weight;
        pyc_lock_give(&self->lock);
        pyc_board_set(self->board, task, PYC_QUEUED);
        rc = pyc_queue_put_message(self->jobs, &message);
    }
    if (rc > 0) {
        pyc_queue_tell_getters(self->jobs, 1);
    }
    else if (rc == 0) {
        PyErr_SetString(PyExc_RuntimeError, "the channel is closed");
    }
    pyc_message_clear(self->jobs, &message);
    Py_XDECREF(job);
    return rc > 0 ? 0 : -1;
}

int
pyc_channel_send(pyc_channel *self, const pyc_call *call)
{
    uint64_t task;
    if (!reserve(self, call, &task)) {
        return 0;
    }
    if (put(self, task, call) == 0) {
        return 1;
    }
    PyObject *error = pyc_take_exception();
    pyc_call mine = {0};
    pyc_channel_end(self, task, &mine);
    pyc_call_clear(&mine);
    pyc_put_exception(error);
    return -1;
}
