/* SPDX-License-Identifier: MIT */
#include "ipc/message.h"

#include "base/futex.h"
#include "ipc/memory.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <string.h>

#define RELEASE_LEAST (256 << 10) /* bytes; others may run meanwhile */
#define NS_PER_KIB 900            /* of fresh memory */
#define PAIR_MOST (UINT64_C(4) << 20)

static int
simple_data(pyc_message *message, uint8_t kind, const void *data, size_t length)
{
    message->kind = kind;
    message->data = data;
    message->length = length;
    message->weight = length;
    return length <= PYC_INLINE_MOST;
}

int
pyc_message_simple(PyObject *object, pyc_message *message)
{
    if (PyBytes_CheckExact(object)) {
        return simple_data(message, PYC_ITEM_BYTES, PyBytes_AS_STRING(object),
                           (size_t)PyBytes_GET_SIZE(object));
    }
    if (PyUnicode_CheckExact(object)) {
        return PyUnicode_IS_COMPACT_ASCII(object) &&
               simple_data(message, PYC_ITEM_ASCII, PyUnicode_DATA(object),
                           (size_t)PyUnicode_GET_LENGTH(object));
    }
    if (PyLong_CheckExact(object)) {
        int overflow;
        message->number = PyLong_AsLongLongAndOverflow(object, &overflow);
        return !overflow && simple_data(message, PYC_ITEM_INT, &message->number,
                                        sizeof(message->number));
    }
    if (PyFloat_CheckExact(object)) {
        message->real = PyFloat_AS_DOUBLE(object);
        return simple_data(message, PYC_ITEM_FLOAT, &message->real,
                           sizeof(message->real));
    }
    return object == Py_None    ? simple_data(message, PYC_ITEM_NONE, NULL, 0)
           : object == Py_True  ? simple_data(message, PYC_ITEM_TRUE, NULL, 0)
           : object == Py_False ? simple_data(message, PYC_ITEM_FALSE, NULL, 0)
                                : 0;
}

/* 0, or -1 with an exception set. */
static int
add_parts(pyc_message *message, uint32_t n)
{
    message->parts = PyMem_Calloc(n, sizeof(*message->parts));
    if (message->parts == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* A buffer of the sender's becomes a part. */
static int
add_buffer(pyc_message *message, PyObject *object)
{
    pyc_message_part *part = &message->parts[message->n_parts];
    if (PyObject_GetBuffer(object, &part->buffer,
                           PyBUF_ANY_CONTIGUOUS | PyBUF_FORMAT) < 0) {
        return -1;
    }
    message->n_parts++;
    part->part.length = (uint64_t)part->buffer.len;
    message->weight += part->part.length;
    return 0;
}

static int
packed_parts(pyc_message *message)
{
    PyObject *buffers = message->packed.buffers;
    uint32_t n = buffers == NULL ? 0 : (uint32_t)PyList_GET_SIZE(buffers);
    if (add_parts(message, n + message->apart) < 0) {
        return -1;
    }
    if (message->apart) { /* its buffer stays empty */
        message->parts[0].part.length = message->length;
        message->n_parts = 1;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (add_buffer(message, PyList_GET_ITEM(buffers, i)) < 0) {
            return -1;
        }
    }
    return 0;
}

static size_t
packed_length(const pyc_packed *packed)
{
    size_t length = (size_t)PyBytes_GET_SIZE(packed->first);
    Py_ssize_t n = packed->rest == NULL ? 0 : PyList_GET_SIZE(packed->rest);
    for (Py_ssize_t i = 0; i < n; i++) {
        length += (size_t)PyBytes_GET_SIZE(PyList_GET_ITEM(packed->rest, i));
    }
    return length;
}

static int
pickled(pyc_ipc *state, PyObject *object, pyc_message *message)
{
    if (pyc_pack(state, object, &message->packed) < 0) {
        return -1;
    }
    message->kind = PYC_ITEM_PICKLE;
    message->length = message->weight = packed_length(&message->packed);
    message->data = message->packed.rest == NULL
                        ? PyBytes_AS_STRING(message->packed.first)
                        : NULL;
    message->apart = message->length > PYC_INLINE_MOST;
    return message->apart || message->packed.buffers != NULL
               ? packed_parts(message)
               : 0;
}

int
pyc_message_of(pyc_ipc *state, PyObject *object, pyc_message *message)
{
    *message = (pyc_message){0};
    if (pyc_message_simple(object, message)) {
        return 0;
    }
    int is_array = PyByteArray_CheckExact(object);
    if (!is_array && !PyBytes_CheckExact(object)) {
        return pickled(state, object, message);
    }
    *message = (pyc_message){
        .kind = is_array ? PYC_ITEM_BYTEARRAY : PYC_ITEM_BYTES, .apart = 1};
    return add_parts(message, 1) < 0 ? -1 : add_buffer(message, object);
}

void
pyc_message_clear(pyc_queue *queue, pyc_message *message)
{
    for (uint32_t i = 0; i < message->n_parts; i++) {
        pyc_message_part *part = &message->parts[i];
        if (part->buffer.obj != NULL) {
            PyBuffer_Release(&part->buffer);
        }
        if (part->piece != NULL) {
            pyc_queue *home = pyc_queue_home(queue);
            pyc_heap_free(&pyc_queue_shared(home)->ring.heap, part->piece);
        }
    }
    PyMem_Free(message->parts);
    message->parts = NULL;
    message->n_parts = 0;
    pyc_packed_clear(&message->packed);
}

void
pyc_message_write(const pyc_message *message, char *where)
{
    const pyc_packed *packed = &message->packed;
    if (message->data == NULL && packed->first != NULL) {
        size_t length = (size_t)PyBytes_GET_SIZE(packed->first);
        memcpy(where, PyBytes_AS_STRING(packed->first), length);
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(packed->rest); i++) {
            PyObject *more = PyList_GET_ITEM(packed->rest, i);
            where += length;
            length = (size_t)PyBytes_GET_SIZE(more);
            memcpy(where, PyBytes_AS_STRING(more), length);
        }
    }
    else if (message->length > 0) {
        memcpy(where, message->data, message->length);
    }
}

/* Enough are in use that it pays to wait for one, beside `mine` and a chunk of
 * the ring: with two, one is filled while the other is read. */
static bool
others_have_pieces(const pyc_heap *heap, uint32_t mine, uint64_t size)
{
    uint32_t used = atomic_load(&heap->generation) - atomic_load(&heap->freed) +
                    atomic_load(&heap->extents.count);
    return (int32_t)(used - mine - 1) > (size < PAIR_MOST ? 1 : 0);
}

bool
pyc_queue_wait_for_piece(pyc_queue *queue, uint64_t size, uint32_t mine)
{
    pyc_heap *heap = &pyc_queue_shared(queue)->ring.heap;
    uint32_t freed = atomic_load(&heap->missed_at);
    if (!others_have_pieces(heap, mine, size)) {
        return false;
    }
    int64_t end = pyc_clock_now() + (int64_t)(size * NS_PER_KIB / 1024);
    Py_BEGIN_ALLOW_THREADS
    while (atomic_load(&heap->freed) == freed && pyc_clock_now() < end) {
        sched_yield();
    }
    Py_END_ALLOW_THREADS
    return true;
}

enum { RAISED = INT_MIN };

/* 0, an error, or RAISED with an exception set. The caller has `putting`. */
static int
take_piece(pyc_queue *queue, pyc_message_part *part, uint32_t before)
{
    pyc_queue_memory *memory = pyc_queue_shared(queue);
    pyc_heap *heap = &memory->ring.heap;
    pyc_arena *arena = queue->shared.block.arena;
    uint64_t size = part->part.length;
    uint64_t state = PYC_STATE(PYC_WRITING, pyc_arena_me(arena));
    int attempt = 0, rc;
    bool waited = false, asked = false;
    while ((rc = pyc_heap_take(heap, &queue->store, size, state,
                               &part->part.offset)) == -EAGAIN) {
        if (!waited) {
            pyc_mutex_unlock(&memory->putting);
            waited = true;
            pyc_queue_wait_for_piece(queue, size,
                                     before + pyc_load(queue->n_views));
            pyc_mutex_lock(arena, &memory->putting);
            continue;
        }
        if (!asked) {
            pyc_mutex_unlock(&memory->putting);
            asked = pyc_memory_ask(size) == 0;
            pyc_mutex_lock(arena, &memory->putting);
            if (!asked) {
                return RAISED;
            }
            continue;
        }
        rc = pyc_queue_make_room(queue, size, attempt++);
        if (rc < 0) {
            break;
        }
    }
    return rc;
}

/* 0, or -1 with an exception set. */
static int
take_part(pyc_queue *queue, pyc_message *message, uint32_t i)
{
    pyc_queue_memory *memory = pyc_queue_shared(queue);
    pyc_message_part *part = &message->parts[i];
    pyc_mutex_lock(queue->shared.block.arena, &memory->putting);
    int rc = take_piece(queue, part, i);
    pyc_mutex_unlock(&memory->putting);
    if (rc == 0) {
        part->piece =
            pyc_heap_piece(&queue->store, part->part.offset, part->part.length);
        rc = part->piece == NULL ? PYC_CORRUPT : 0;
    }
    if (rc < 0) {
        if (rc != RAISED) {
            pyc_queue_error(rc);
        }
        return -1;
    }
    part->part.generation = atomic_load(&part->piece->generation);
    return 0;
}

static void
copy_part(const pyc_message *message, const pyc_message_part *part)
{
    if (part->buffer.obj != NULL) {
        memcpy(part->piece + 1, part->buffer.buf, part->part.length);
    }
    else {
        pyc_message_write(message, (char *)(part->piece + 1));
    }
}

int
pyc_message_copy(pyc_queue *queue, pyc_message *message)
{
    pyc_queue *home = pyc_queue_home(queue);
    for (uint32_t i = 0; i < message->n_parts; i++) {
        pyc_message_part *part = &message->parts[i];
        if (part->piece == NULL && take_part(home, message, i) < 0) {
            return -1;
        }
        if (part->part.length < RELEASE_LEAST) {
            copy_part(message, part);
            continue;
        }
        Py_BEGIN_ALLOW_THREADS
        copy_part(message, part);
        Py_END_ALLOW_THREADS
    }
    return 0;
}
