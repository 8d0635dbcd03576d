/* SPDX-License-Identifier: MIT */
/* An object as a record has it. */
#ifndef PYC_IPC_MESSAGE_H
#define PYC_IPC_MESSAGE_H

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
};

/* A flag of records: what would come after the parts is the first part. */
#define PYC_ITEM_APART 1

/* What a record may have after its parts. */
#define PYC_INLINE_MOST                                                        \
    (PYC_RECORD_MOST - sizeof(pyc_record) -                                    \
     PYC_BUFFERS_MOST * sizeof(pyc_ring_part) - 8)

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
    pyc_packed packed;
    uint32_t n_parts;
    pyc_message_part *parts;
} pyc_message;

/* Without memory of its own, for an object that needs none: 1; 0: it does. */
int pyc_message_simple(PyObject *object, pyc_message *message);

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
    return message->apart ? 0 : (uint32_t)message->length;
}

#endif
