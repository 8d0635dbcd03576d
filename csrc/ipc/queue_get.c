/* SPDX-License-Identifier: MIT */
/* Items out of a queue. */
#include "ipc/message.h"

#include "ipc/sleep.h"

#include <string.h>
#include <sys/mman.h>

#define RELEASE_LEAST                                                          \
    (256 << 10) /* bytes that are worth letting others run                     \
                 */
#define LARGE_PAGE ((uintptr_t)2 << 20)
#define BATCH_MOST 256         /* items that are taken at once */
#define BATCH_WEIGHT (1 << 20) /* about their bytes */

static bool
may_have_item(pyc_queue *self, uint64_t Py_UNUSED(ignored))
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    return pyc_ring_number(&memory->ring.in) !=
               pyc_ring_number(&memory->ring.out) ||
           atomic_load(&memory->shut) != 0;
}

/* What comes after the parts, as an object; for a pickle its bytes. NULL with
 * an exception set. */
static PyObject *
object_of(const pyc_record *record, const char *data, uint32_t length)
{
    PyObject *object;
    int64_t number;
    double real;
    switch (record->kind) {
    case PYC_ITEM_NONE:
        return Py_NewRef(Py_None);
    case PYC_ITEM_FALSE:
        return Py_NewRef(Py_False);
    case PYC_ITEM_TRUE:
        return Py_NewRef(Py_True);
    case PYC_ITEM_BYTES:
    case PYC_ITEM_PICKLE:
    case PYC_ITEM_FLAT:
        return PyBytes_FromStringAndSize(data, length);
    case PYC_ITEM_ASCII:
        object = PyUnicode_DecodeASCII(data, length, NULL);
        if (object == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
            break;
        }
        return object;
    case PYC_ITEM_BYTEARRAY:
        return PyByteArray_FromStringAndSize(data, length);
    case PYC_ITEM_INT:
        if (length == sizeof(number)) {
            memcpy(&number, data, sizeof(number));
            return PyLong_FromLongLong(number);
        }
        break;
    case PYC_ITEM_FLOAT:
        if (length == sizeof(real)) {
            memcpy(&real, data, sizeof(real));
            return PyFloat_FromDouble(real);
        }
        break;
    default:
        break;
    }
    PyErr_Clear();
    pyc_queue_error(PYC_CORRUPT);
    return NULL;
}

/* The parts of the record at `where`, as they are checked here. 0, or -1 with
 * an exception set. */
static int
copy_parts(pyc_queue *queue, const char *where, uint64_t number,
           pyc_taken *item)
{
    uint32_t n = item->record.parts;
    pyc_queue *home = pyc_queue_home(queue);
    item->parts = PyMem_Malloc(n * sizeof(*item->parts));
    item->pieces = PyMem_Malloc(n * sizeof(*item->pieces));
    if (item->parts == NULL || item->pieces == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(item->parts, where + sizeof(item->record), n * sizeof(*item->parts));
    for (uint32_t i = 0; i < n; i++) {
        item->pieces[i] = pyc_ring_piece(&home->store, &item->parts[i],
                                         pyc_queue_carried(queue, number));
        if (item->pieces[i] == NULL) {
            pyc_queue_error(PYC_CORRUPT);
            return -1;
        }
    }
    return 0;
}

static void
clear_taken(pyc_taken *item)
{
    Py_CLEAR(item->object);
    PyMem_Free(item->parts);
    PyMem_Free(item->pieces);
    item->parts = NULL;
    item->pieces = NULL;
}

/* Copies the record. 0, or -1 with an exception set: it was not taken. */
static int
copy_record(pyc_queue *queue, const char *where, uint64_t number,
            pyc_taken *item)
{
    const pyc_record *record = &item->record;
    const char *data =
        where + pyc_record_size(0, 0) + record->parts * sizeof(pyc_ring_part);
    uint32_t length = record->length;
    if (record->flags & PYC_ITEM_FRAMED) {
        if (length < sizeof(item->frame)) {
            pyc_queue_error(PYC_CORRUPT);
            return -1;
        }
        memcpy(&item->frame, data, sizeof(item->frame));
        data += sizeof(item->frame);
        length -= (uint32_t)sizeof(item->frame);
    }
    if (record->parts > 0 && copy_parts(queue, where, number, item) < 0) {
        return -1;
    }
    if (record->flags & PYC_ITEM_APART) {
        if (record->parts == 0) {
            pyc_queue_error(PYC_CORRUPT);
            return -1;
        }
        return 0;
    }
    item->object = object_of(record, data, length);
    return item->object == NULL ? -1 : 0;
}

int
pyc_queue_take(pyc_queue *queue, pyc_ring_cursor *cursor, pyc_taken *item)
{
    const char *where;
    int rc = pyc_ring_next(&pyc_queue_shared(queue)->ring, &queue->store,
                           cursor, &item->record, &where);
    if (rc < 0) {
        pyc_queue_error(rc);
        return -1;
    }
    if (rc > 0) {
        if (copy_record(queue, where, cursor->number, item) < 0) {
            clear_taken(item);
            return -1;
        }
        pyc_ring_took(cursor, &item->record);
    }
    return rc;
}

void
pyc_queue_hold(pyc_queue *queue, pyc_taken *item)
{
    for (uint32_t i = 0; i < item->record.parts; i++) {
        pyc_view_hold(pyc_queue_home(queue), item->pieces[i]);
    }
}

static void
commit(pyc_queue *queue, pyc_ring_cursor *cursor, pyc_taken *last)
{
    pyc_ring_commit_out(&pyc_queue_shared(queue)->ring, &queue->store, cursor);
    pyc_queue_hold(queue, last);
}

static void
tell_putters(pyc_queue *self, int count)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    if (memory->maxsize == 0 && memory->max_bytes == 0) {
        return;
    }
    atomic_thread_fence(memory_order_seq_cst);
    /* An item that is large may have to give way to several. */
    pyc_gate_open(&memory->space, memory->max_bytes == 0 ? count : INT32_MAX);
    pyc_bells_ring(self->shared.state, self->shared.block.arena,
                   &memory->space_bells);
}

/* 1; 0: there is none; -1 with an exception set. */
static int
take_one(pyc_queue *queue, pyc_taken *item)
{
    pyc_queue_memory *memory = pyc_queue_shared(queue);
    pyc_ring_cursor cursor;
    if (pyc_ring_number(&memory->ring.in) ==
        pyc_ring_number(&memory->ring.out)) {
        return 0;
    }
    pyc_mutex_lock(queue->shared.block.arena, &memory->getting);
    pyc_ring_load(&memory->ring.out, &cursor);
    int rc = pyc_queue_take(queue, &cursor, item);
    if (rc > 0) {
        commit(queue, &cursor, item);
    }
    pyc_mutex_unlock(&memory->getting);
    if (rc > 0) {
        tell_putters(queue, 1);
    }
    return rc;
}

/* Fresh memory costs more than the copy into it, as it comes a page at a time:
 * large pages cost a quarter of that. */
static void
ask_for_large_pages(char *memory, size_t size)
{
    uintptr_t start = ((uintptr_t)memory + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1);
    uintptr_t end = ((uintptr_t)memory + size) & ~(LARGE_PAGE - 1);
    if (size >= 2 * LARGE_PAGE && start < end) {
        madvise((void *)start, end - start, MADV_HUGEPAGE);
    }
}

PyObject *
pyc_bytes_of(const void *data, Py_ssize_t size, bool is_array)
{
    PyObject *object = is_array ? PyByteArray_FromStringAndSize(NULL, size)
                                : PyBytes_FromStringAndSize(NULL, size);
    if (object == NULL) {
        return NULL;
    }
    char *to =
        is_array ? PyByteArray_AS_STRING(object) : PyBytes_AS_STRING(object);
    if (size < RELEASE_LEAST) {
        memcpy(to, data, (size_t)size);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        ask_for_large_pages(to, (size_t)size);
        memcpy(to, data, (size_t)size);
        Py_END_ALLOW_THREADS
    }
    return object;
}

static void
free_pieces(pyc_queue *queue, pyc_taken *item)
{
    pyc_queue *home = pyc_queue_home(queue);
    for (uint32_t i = 0; i < item->record.parts; i++) {
        pyc_heap_free(&pyc_queue_shared(home)->ring.heap, item->pieces[i]);
    }
}

/* A large bytes or bytearray, copied out of its piece. */
static PyObject *
copy_out(pyc_queue *queue, pyc_taken *item)
{
    PyObject *object =
        pyc_bytes_of(item->pieces[0] + 1, (Py_ssize_t)item->parts[0].length,
                     item->record.kind == PYC_ITEM_BYTEARRAY);
    free_pieces(queue, item);
    return object;
}

int
pyc_queue_unfold(pyc_queue *queue, pyc_taken *item, PyObject **data,
                 PyObject **buffers)
{
    uint32_t first = item->record.flags & PYC_ITEM_APART;
    *data = item->object;
    *buffers = item->record.parts > first ? PyList_New(0) : NULL;
    item->object = NULL;
    /* A view of each piece is made in any case, which frees it. */
    for (uint32_t i = 0; i < item->record.parts; i++) {
        PyObject *view = pyc_view_new(pyc_queue_home(queue), item->pieces[i],
                                      item->parts[i].length);
        if (i < first) {
            *data = view;
        }
        else if (view != NULL && *buffers != NULL) {
            if (PyList_Append(*buffers, view) < 0) {
                Py_CLEAR(*buffers);
            }
            Py_DECREF(view);
        }
    }
    clear_taken(item);
    if (*data == NULL || PyErr_Occurred()) {
        Py_CLEAR(*data);
        Py_CLEAR(*buffers);
        return -1;
    }
    return 0;
}

PyObject *
pyc_queue_finish(pyc_queue *queue, pyc_taken *item)
{
    PyObject *result = NULL, *data, *buffers;
    if (item->record.kind == PYC_ITEM_PICKLE) {
        if (pyc_queue_unfold(queue, item, &data, &buffers) == 0) {
            result = pyc_unpack(queue->shared.state, data, buffers);
            Py_DECREF(data);
            Py_XDECREF(buffers);
        }
    }
    else if (item->record.parts > 0) {
        result = copy_out(queue, item);
    }
    else if (item->record.kind == PYC_ITEM_FLAT) {
        result = pyc_flat_read(PyBytes_AS_STRING(item->object),
                               (size_t)PyBytes_GET_SIZE(item->object));
    }
    else {
        result = item->object;
        item->object = NULL;
    }
    clear_taken(item);
    return result;
}

void
pyc_queue_discard(pyc_queue *queue, pyc_taken *item)
{
    free_pieces(queue, item);
    clear_taken(item);
}

/* Errors of get_many() that nobody has been told of: 1 with one set. */
static int
raise_failure(pyc_queue *self)
{
    PyObject *error = NULL;
    PYC_BEGIN_CRITICAL_SECTION(self);
    if (self->failures != NULL && PyList_GET_SIZE(self->failures) > 0) {
        error = Py_NewRef(PyList_GET_ITEM(self->failures, 0));
        if (PyList_SetSlice(self->failures, 0, 1, NULL) < 0) {
            PyErr_Clear();
        }
    }
    PYC_END_CRITICAL_SECTION();
    if (error != NULL) {
        pyc_put_exception(error);
    }
    return error != NULL;
}

static void
keep_failure(pyc_queue *self)
{
    PyObject *error = pyc_take_exception();
    PYC_BEGIN_CRITICAL_SECTION(self);
    if (self->failures == NULL) {
        PyObject *list = PyList_New(0);
        pyc_store(self->failures, list);
    }
    if (self->failures == NULL || PyList_Append(self->failures, error) < 0) {
        PyErr_Clear();
    }
    PYC_END_CRITICAL_SECTION();
    Py_DECREF(error);
}

/* 1: there is an item, perhaps; -1 with an exception set. */
static int
wait_for_item(pyc_queue *self, int64_t deadline, uint32_t was_shut)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    if (was_shut) {
        pyc_queue_raise_shut(self->shared.state, NULL);
        return -1;
    }
    pyc_queue_wish wish = {&memory->items, &self->for_item, may_have_item, 0};
    int rc = pyc_queue_wait(self, &wish, deadline);
    if (rc == 0) {
        PyErr_SetNone(self->shared.state->queue_Empty);
        return -1;
    }
    return rc;
}

static void
trim_if_empty(pyc_queue *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    if (pyc_ring_number(&memory->ring.in) ==
        pyc_ring_number(&memory->ring.out)) {
        pyc_queue_trim(self);
    }
}

PyObject *
pyc_queue_get(pyc_queue *self, int64_t deadline)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    if (pyc_load(self->failures) != NULL && raise_failure(self)) {
        return NULL;
    }
    for (;;) {
        pyc_taken item = {0};
        uint32_t was_shut = atomic_load(&memory->shut);
        int rc = take_one(self, &item);
        if (rc > 0) {
            trim_if_empty(self);
            return pyc_queue_finish(self, &item);
        }
        if (rc < 0 || wait_for_item(self, deadline, was_shut) < 0) {
            return NULL;
        }
    }
}

/* Records taken at once: small ones, and perhaps one with parts after them. */
typedef struct {
    PyObject *objects[BATCH_MOST]; /* items, or their pickles */
    char is_pickle[BATCH_MOST];
    int n;
    pyc_taken last;
} many;

/* 0, or -1 with an exception set and nothing taken. */
static int
take_small(pyc_queue *queue, many *batch, Py_ssize_t most,
           pyc_ring_cursor *cursor)
{
    uint64_t weight = cursor->weight;
    while (batch->n < most && cursor->weight - weight < BATCH_WEIGHT) {
        pyc_taken item = {0};
        int rc = pyc_queue_take(queue, cursor, &item);
        if (rc <= 0) {
            return batch->n == 0 ? rc : 0;
        }
        if (item.record.parts > 0) {
            batch->last = item;
            return 0;
        }
        batch->is_pickle[batch->n] = item.record.kind == PYC_ITEM_PICKLE;
        batch->objects[batch->n++] = item.object;
    }
    return 0;
}

/* How many were taken; -1 with an exception set. */
static int
take_many(pyc_queue *queue, many *batch, Py_ssize_t most)
{
    pyc_queue_memory *memory = pyc_queue_shared(queue);
    pyc_ring_cursor cursor;
    batch->n = 0;
    batch->last = (pyc_taken){0};
    pyc_mutex_lock(queue->shared.block.arena, &memory->getting);
    pyc_ring_load(&memory->ring.out, &cursor);
    int rc = take_small(queue, batch, most < BATCH_MOST ? most : BATCH_MOST,
                        &cursor);
    int n = batch->n + (batch->last.record.parts > 0);
    if (n > 0) {
        commit(queue, &cursor, &batch->last);
    }
    pyc_mutex_unlock(&memory->getting);
    if (n > 0) {
        PyErr_Clear(); /* it will come again, with the first of a batch */
        tell_putters(queue, n);
    }
    return n > 0 ? n : rc;
}

/* Steals the item; NULL is one that failed. */
static void
add_item(pyc_queue *queue, PyObject *list, PyObject *item)
{
    if (item == NULL || PyList_Append(list, item) < 0) {
        keep_failure(queue);
    }
    Py_XDECREF(item);
}

static void
finish_many(pyc_queue *queue, many *batch, PyObject *list)
{
    for (int i = 0; i < batch->n; i++) {
        PyObject *item = batch->objects[i];
        if (batch->is_pickle[i]) {
            item = pyc_unpack(queue->shared.state, item, NULL);
            Py_DECREF(batch->objects[i]);
        }
        add_item(queue, list, item);
    }
    if (batch->last.record.parts > 0) {
        add_item(queue, list, pyc_queue_finish(queue, &batch->last));
    }
}

static bool
has_failed(pyc_queue *self)
{
    PyObject *failures = pyc_load(self->failures);
    return failures != NULL && PyList_GET_SIZE(failures) > 0;
}

/* All that is there, up to `most`. 1; 0: nothing; -1 with an exception set. */
static int
drain(pyc_queue *self, PyObject *list, Py_ssize_t most)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    many batch;
    int n = 0, any = 0;
    while (PyList_GET_SIZE(list) < most && !has_failed(self) &&
           pyc_ring_number(&memory->ring.in) !=
               pyc_ring_number(&memory->ring.out)) {
        n = take_many(self, &batch, most - PyList_GET_SIZE(list));
        if (n <= 0) {
            break;
        }
        any = 1;
        finish_many(self, &batch, list);
    }
    if (n < 0 && any) {
        PyErr_Clear();
    }
    return any ? 1 : n;
}

PyObject *
pyc_queue_get_many(pyc_queue *self, Py_ssize_t most, int64_t deadline)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    if (pyc_load(self->failures) != NULL && raise_failure(self)) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    while (list != NULL) {
        uint32_t was_shut = atomic_load(&memory->shut);
        int rc = drain(self, list, most);
        if (rc > 0) {
            trim_if_empty(self);
            if (PyList_GET_SIZE(list) > 0 || !raise_failure(self)) {
                return list;
            }
        }
        if (rc != 0 || wait_for_item(self, deadline, was_shut) < 0) {
            Py_CLEAR(list);
        }
    }
    return NULL;
}
