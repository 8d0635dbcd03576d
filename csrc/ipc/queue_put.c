/* SPDX-License-Identifier: MIT */
/* Items into a queue. */
#include "ipc/message.h"

#include "ipc/sleep.h"

#include <errno.h>
#include <string.h>

#define COMMIT_EVERY 64 /* items: so that who waits need not wait for all */

/* What put() and put_many() work at. A message is made in advance only where
 * an item needs one. */
typedef struct {
    pyc_queue *queue;
    PyObject *const *items;
    pyc_message **messages; /* NULL, or for each item a message or NULL */
    Py_ssize_t n, done;
    bool waited; /* for a chunk, since the last item */
    bool silent; /* who puts tells the getters */
} batch;

/* How a look at the queue ended. */
enum { ALL_IN, NO_SPACE, NO_CHUNK, NOT_COPIED, SHUT };

static bool
has_space(pyc_queue_memory *memory, const pyc_ring_cursor *in, uint64_t weight)
{
    if (memory->maxsize != 0 &&
        in->number - pyc_ring_number(&memory->ring.out) >= memory->maxsize) {
        return false;
    }
    return memory->max_bytes == 0 ||
           pyc_ring_weight(&memory->ring, in) + weight <= memory->max_bytes;
}

/* About. */
static bool
may_have_space(pyc_queue *self, uint64_t weight)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    pyc_ring_cursor in;
    pyc_ring_load(&memory->ring.in, &in);
    return atomic_load(&memory->shut) != 0 || has_space(memory, &in, weight);
}

static pyc_message *
message_of(batch *self, Py_ssize_t i, pyc_message *simple)
{
    if (self->messages != NULL && self->messages[i] != NULL) {
        return self->messages[i];
    }
    pyc_message_simple(self->items[i], simple);
    return simple;
}

/* The record of a message at the cursor, of which nobody knows yet. */
static int
append(pyc_queue *queue, pyc_ring_cursor *cursor, pyc_message *message)
{
    char *where;
    pyc_record record = {
        .size = pyc_record_size(message->n_parts, pyc_message_inline(message)),
        .weight = message->weight,
        .length = pyc_message_inline(message),
        .parts = (uint16_t)message->n_parts,
        .kind = message->kind,
        .flags = (uint8_t)(message->apart |
                           (message->frame == NULL ? 0 : PYC_ITEM_FRAMED))};
    uint64_t number = cursor->number;
    int rc = pyc_ring_append(&pyc_queue_shared(queue)->ring, &queue->store,
                             cursor, &record, &where);
    if (rc < 0) {
        return rc;
    }
    where += sizeof(record);
    for (uint32_t i = 0; i < message->n_parts; i++) {
        pyc_message_part *part = &message->parts[i];
        memcpy(where, &part->part, sizeof(part->part));
        where += sizeof(part->part);
        atomic_store_explicit(&part->piece->state,
                              pyc_queue_carried(queue, number),
                              memory_order_release);
    }
    if (message->frame != NULL) {
        memcpy(where, message->frame, sizeof(*message->frame));
        where += sizeof(*message->frame);
    }
    if (!message->apart) {
        pyc_message_write(message, where);
    }
    return 0;
}

/* The pieces are the record's now. */
static void
forget_parts(pyc_message *message)
{
    for (uint32_t i = 0; i < message->n_parts; i++) {
        message->parts[i].piece = NULL;
    }
}

static int
make_room(batch *self, pyc_ring_cursor *cursor, int attempt)
{
    pyc_ring_commit_in(&pyc_queue_shared(self->queue)->ring, cursor);
    return pyc_queue_make_room(self->queue, PYC_CHUNK_SIZE, attempt);
}

/* As many as there is space for. The caller has `putting`. */
static int
put_some(batch *self)
{
    pyc_queue *queue = self->queue;
    pyc_queue_memory *memory = pyc_queue_shared(queue);
    pyc_ring_cursor cursor;
    int rc = ALL_IN, attempt = 0;
    Py_ssize_t first = self->done;
    pyc_ring_load(&memory->ring.in, &cursor);
    while (self->done < self->n) {
        pyc_message simple = {0};
        pyc_message *message = message_of(self, self->done, &simple);
        if (!has_space(memory, &cursor, message->weight)) {
            rc = NO_SPACE;
            break;
        }
        if (message->n_parts > 0 && message->parts[0].piece == NULL) {
            rc = NOT_COPIED;
            break;
        }
        rc = append(queue, &cursor, message);
        if (rc == -EAGAIN && !self->waited) {
            rc = NO_CHUNK;
            break;
        }
        if (rc == -EAGAIN) {
            rc = make_room(self, &cursor, attempt++);
            if (rc == 0) {
                continue;
            }
        }
        if (rc < 0) {
            break;
        }
        attempt = 0;
        self->waited = false;
        forget_parts(message);
        self->done++;
        if ((self->done - first) % COMMIT_EVERY == 0) {
            pyc_ring_commit_in(&memory->ring, &cursor);
        }
    }
    pyc_ring_commit_in(&memory->ring, &cursor);
    return rc;
}

void
pyc_queue_tell_getters(pyc_queue *self, Py_ssize_t count)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    pyc_bells *bells = &memory->item_bells;
    atomic_thread_fence(memory_order_seq_cst);
    pyc_gate_open(&memory->items, count < INT32_MAX ? (int)count : INT32_MAX);
    if (PYC_UNLIKELY(
            atomic_load_explicit(&bells->waiting, memory_order_relaxed) != 0)) {
        pyc_bells_ring_now(self->shared.state, self->shared.block.arena, bells);
    }
}

static int
try_put(batch *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self->queue);
    Py_ssize_t before = self->done;
    pyc_mutex_lock(self->queue->shared.block.arena, &memory->putting);
    int rc = atomic_load(&memory->shut) ? SHUT : put_some(self);
    pyc_mutex_unlock(&memory->putting);
    if (self->done > before && !self->silent) {
        pyc_queue_tell_getters(self->queue, self->done - before);
    }
    return rc;
}

/* 0, also when the time was too short for all; -1 with an exception set. */
static int
put_all(batch *self, int64_t deadline)
{
    pyc_queue *queue = self->queue;
    pyc_queue_memory *memory = pyc_queue_shared(queue);
    for (;;) {
        int rc = try_put(self);
        if (rc == ALL_IN) {
            return 0;
        }
        if (rc < 0) {
            pyc_queue_error(rc);
            return -1;
        }
        if (rc == SHUT) {
            return SHUT;
        }
        if (rc == NOT_COPIED) {
            if (pyc_message_copy(queue, self->messages[self->done]) < 0) {
                return -1;
            }
            continue;
        }
        if (rc == NO_CHUNK) {
            pyc_queue_wait_for_piece(queue, PYC_CHUNK_SIZE, 0);
            self->waited = true;
            continue;
        }
        pyc_message simple = {0};
        pyc_queue_wish wish = {&memory->space, &queue->for_space,
                               may_have_space,
                               message_of(self, self->done, &simple)->weight};
        rc = pyc_queue_wait(queue, &wish, deadline);
        if (rc <= 0) {
            return rc;
        }
    }
}

static int
check_size(pyc_queue *queue, const pyc_message *message)
{
    uint64_t most = pyc_queue_shared(queue)->max_bytes;
    if (most != 0 && message->weight > most) {
        PyErr_Format(PyExc_ValueError,
                     "an item of %llu bytes can never be in a queue of at most "
                     "%llu bytes",
                     (unsigned long long)message->weight,
                     (unsigned long long)most);
        return -1;
    }
    return 0;
}

/* All that can fail because of an item fails here, before any is put. */
static int
prepare(batch *self)
{
    for (Py_ssize_t i = 0; i < self->n; i++) {
        pyc_message simple = {0};
        if (pyc_message_simple(self->items[i], &simple)) {
            if (check_size(self->queue, &simple) < 0) {
                return -1;
            }
            continue;
        }
        self->messages[i] = PyMem_Malloc(sizeof(pyc_message));
        if (self->messages[i] == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        if (pyc_message_of(self->queue->shared.state, self->items[i],
                           self->messages[i]) < 0 ||
            check_size(self->queue, self->messages[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

int
pyc_queue_put_message(pyc_queue *queue, pyc_message *message)
{
    batch self = {.queue = queue, .messages = &message, .n = 1, .silent = true};
    int rc = put_all(&self, PYC_NO_DEADLINE);
    return rc == SHUT ? 0 : rc < 0 ? -1 : 1;
}

int
pyc_queue_put(pyc_queue *queue, PyObject *const *items, Py_ssize_t n,
              int64_t deadline, Py_ssize_t *done)
{
    pyc_message *one = NULL;
    batch self = {.queue = queue, .items = items, .messages = &one, .n = n};
    if (n > 1) {
        self.messages = PyMem_Calloc((size_t)n, sizeof(*self.messages));
        if (self.messages == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    int rc = prepare(&self);
    if (rc == 0) {
        rc = put_all(&self, deadline);
    }
    *done = self.done;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (self.messages[i] != NULL) {
            pyc_message_clear(queue, self.messages[i]);
            PyMem_Free(self.messages[i]);
        }
    }
    if (n > 1) {
        PyMem_Free(self.messages);
    }
    if (rc == SHUT) {
        PyObject *count = PyLong_FromSsize_t(self.done);
        if (count != NULL) {
            pyc_queue_raise_shut(queue->shared.state, count);
            Py_DECREF(count);
        }
        return -1;
    }
    return rc;
}
