/* SPDX-License-Identifier: MIT */
/* An object as a record has it. */
#ifndef PYC_IPC_MESSAGE_H
#define PYC_IPC_MESSAGE_H

#include "ipc/flat.h"
#include "ipc/packer.h"
#include "ipc/queue.h"

/* Kinds of records. */
enum {
    PYC_ITEM_NONE = 1,
    PYC_ITEM_FALSE,
    PYC_ITEM_TRUE,
    PYC_ITEM_INT,
    PYC_ITEM_FLOAT,
    PYC_ITEM_BYTES,
    PYC_ITEM_ASCII,
    PYC_ITEM_BYTEARRAY,
    PYC_ITEM_PICKLE,
    PYC_ITEM_FLAT,
};

/* Flags of records: what would come after the parts is the first part; a
 * pyc_frame comes before it. */
#define PYC_ITEM_APART 1
#define PYC_ITEM_FRAMED 2

/* What is known of an item before it is unpickled: which task of a channel it
 * belongs to. */
typedef struct {
    uint64_t task;
    uint32_t worker;
    union {
        uint32_t failed;  /* of a result: the item is an exception */
        uint32_t carried; /* of a call: a bit for each of the first arguments
                             that is a large bytes or bytearray */
    };
} pyc_frame;

/* What a record may have after its parts. */
#define PYC_INLINE_MOST                                                        \
    (PYC_RECORD_MOST - sizeof(pyc_record) -                                    \
     PYC_BUFFERS_MOST * sizeof(pyc_ring_part) - sizeof(pyc_frame) - 8)

/* One of the large buffers of a message. */
typedef struct {
    Py_buffer buffer; /* of the sender's object */
    pyc_piece *piece; /* its copy; NULL: not made yet */
    pyc_ring_part part;
} pyc_message_part;

/* Of an object that somebody holds while it is used. */
typedef struct {
    uint8_t kind;
    uint8_t apart;   /* the data is too much for the record: parts[0] */
    uint64_t weight; /* bytes of all */
    const char *data;
    size_t length; /* of the data, or of what was packed */
    int64_t number;
    double real;
    const pyc_frame *frame; /* NULL: none */
    pyc_packed packed;
    uint32_t n_parts;
    pyc_message_part *parts;
} pyc_message;

/* Without memory of its own, for an object that needs none: 1; 0: it does. */
int pyc_message_simple(PyObject *object, pyc_message *message);

/* Of what somebody keeps as long as it is used. */
static inline void
pyc_message_flat(const pyc_flat *flat, pyc_message *message)
{
    message->kind = PYC_ITEM_FLAT;
    message->data = flat->data;
    message->length = message->weight = flat->length;
}

/* For any object. 0, or -1 with an exception set. */
int pyc_message_of(pyc_ipc *state, PyObject *object, pyc_message *message);
/* Frees the copies that were not sent, too. */
void pyc_message_clear(pyc_queue *queue, pyc_message *message);

/* Copies the large buffers. 0, or -1 with an exception set. */
int pyc_message_copy(pyc_queue *queue, pyc_message *message);

/* Before the memory grows for a piece: fresh memory costs about as much time as
 * others need to free some, if they are at it, and that is in the caches. Of
 * the pieces in use `mine` are this process's own. Whether it waited; perhaps
 * there is one now. */
bool pyc_queue_wait_for_piece(pyc_queue *queue, uint64_t size, uint32_t mine);

/* The data, into a record. */
void pyc_message_write(const pyc_message *message, char *where);

static inline uint32_t
pyc_message_inline(const pyc_message *message)
{
    return (message->frame == NULL ? 0 : (uint32_t)sizeof(pyc_frame)) +
           (message->apart ? 0 : (uint32_t)message->length);
}

/* queue_put.c: a message into a queue without limits; the getters are not told.
 * 1; 0: it is shut; -1 with an exception set. */
int pyc_queue_put_message(pyc_queue *queue, pyc_message *message);
void pyc_queue_tell_getters(pyc_queue *queue, Py_ssize_t count);

/* queue_get.c: a record that was taken, copied as far as it is small. */
typedef struct {
    pyc_record record;
    pyc_frame frame;  /* of a framed record */
    PyObject *object; /* the item, or its pickle */
    pyc_ring_part *parts;
    pyc_piece **pieces;
} pyc_taken;

/* The next record: 1; 0: there is none; -1 with an exception set. The caller
 * has `getting`, and commits. */
int pyc_queue_take(pyc_queue *queue, pyc_ring_cursor *cursor, pyc_taken *item);
/* After a commit: its pieces are this process's. */
void pyc_queue_hold(pyc_queue *queue, pyc_taken *item);
/* The item of a record that was taken, whose memory is freed. */
PyObject *pyc_queue_finish(pyc_queue *queue, pyc_taken *item);
/* A bytes or bytearray of that; NULL with an exception set. */
PyObject *pyc_bytes_of(const void *data, Py_ssize_t size, bool is_array);
/* The item is not wanted. */
void pyc_queue_discard(pyc_queue *queue, pyc_taken *item);
/* The item's pickle and its buffers, as pyc_unpack() takes them: views of the
 * pieces; *buffers may be NULL. 0, or -1 with an exception set. */
int pyc_queue_unfold(pyc_queue *queue, pyc_taken *item, PyObject **data,
                     PyObject **buffers);

static inline bool
pyc_queue_is_empty(pyc_queue *queue)
{
    pyc_ring *ring = &pyc_queue_shared(queue)->ring;
    return pyc_ring_number(&ring->in) == pyc_ring_number(&ring->out);
}

#endif
