/* SPDX-License-Identifier: MIT */
/* What a receiver has of a large buffer: the sender's copy of it, in shared
 * memory, without another one. It is free again after the last array or
 * memoryview of it. */
#include "ipc/layout.h"
#include "ipc/queue.h"
#include "ipc/guard.h"

typedef struct {
    PyObject_HEAD
    pyc_queue *queue;
    pyc_piece *piece;
    Py_ssize_t size;
    pyc_owner owner; /* the process that received it: this, or a forebear */
    pyc_link link;   /* in the queue's views */
} view;

void
pyc_view_hold(pyc_queue *queue, pyc_piece *piece)
{
    atomic_store(&piece->holders, 0);
    atomic_store_explicit(
        &piece->state,
        PYC_STATE(PYC_HELD, pyc_arena_me(queue->shared.block.arena)),
        memory_order_release);
}

/* Its receiver's name stands in the piece's state until it has let go of it;
 * children that were forked meanwhile have a bit each. The last frees it. */
static void
let_go(pyc_queue *queue, pyc_piece *piece, pyc_owner owner)
{
    pyc_arena *arena = queue->shared.block.arena;
    pyc_heap *heap = &pyc_queue_shared(queue)->ring.heap;
    uint64_t nobodys = PYC_STATE(PYC_HELD, 0);
    if (pyc_arena_me(arena) == owner) {
        if (atomic_load(&piece->holders) == 0) {
            pyc_heap_free(heap, piece);
            return;
        }
        atomic_store(&piece->state, nobodys);
    }
    else {
        uint64_t bit = pyc_place_bit(arena->place);
        if (bit == PYC_FOR_GOOD) {
            return;
        }
        atomic_fetch_and(&piece->holders, ~bit);
    }
    if (atomic_load(&piece->holders) == 0 &&
        atomic_compare_exchange_strong(
            &piece->state, &nobodys,
            PYC_STATE(PYC_HELD, pyc_arena_me(arena)))) {
        pyc_heap_free(heap, piece);
    }
}

PyObject *
pyc_view_new(pyc_queue *queue, pyc_piece *piece, uint64_t length)
{
    pyc_ipc *state = queue->shared.state;
    view *self = (view *)state->view_type->tp_alloc(state->view_type, 0);
    if (self == NULL) {
        let_go(queue, piece, pyc_arena_me(queue->shared.block.arena));
        return NULL;
    }
    self->queue = (pyc_queue *)Py_NewRef(queue);
    self->piece = piece;
    self->size = (Py_ssize_t)length;
    self->owner = pyc_arena_me(queue->shared.block.arena);
    pyc_guard_take(state);
    pyc_link_insert(&queue->views, &self->link);
    pyc_guard_give(state);
    atomic_fetch_add(&queue->n_views, 1);
    return (PyObject *)self;
}

static void
view_dealloc(PyObject *object)
{
    view *self = (view *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->queue != NULL) {
        pyc_ipc *state = self->queue->shared.state;
        pyc_guard_take(state);
        pyc_link_remove(&self->link);
        pyc_guard_give(state);
        atomic_fetch_sub(&self->queue->n_views, 1);
        let_go(self->queue, self->piece, self->owner);
        Py_DECREF(self->queue);
    }
    type->tp_free(object);
    Py_DECREF(type);
}

/* No tp_clear: the memory has to stay as long as somebody sees it. */
static int
view_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((view *)object)->queue);
    return 0;
}

static int
view_buffer(PyObject *object, Py_buffer *buffer, int flags)
{
    view *self = (view *)object;
    return PyBuffer_FillInfo(buffer, object, self->piece + 1, self->size, 0,
                             flags);
}

static Py_ssize_t
view_length(PyObject *object)
{
    return ((view *)object)->size;
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "A buffer in the memory of a queue, as an item came with it."},
    {Py_tp_traverse, view_traverse},
    {Py_tp_dealloc, view_dealloc},
    {Py_bf_getbuffer, view_buffer},
    {Py_sq_length, view_length},
    {0, NULL}};

PyType_Spec pyc_view_spec = {
    .name = "pyconc._ipc.QueueBuffer",
    .basicsize = sizeof(view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

/* The pieces of all views are the child's from the beginning. */
static void
mark_views(pyc_ipc *state, bool is_child)
{
    for (pyc_link *at = state->queues.next; at != &state->queues;
         at = at->next) {
        pyc_queue *queue = pyc_container(at, pyc_queue, link);
        pyc_arena *arena = queue->shared.block.arena;
        uint64_t bit =
            pyc_place_bit(is_child ? arena->place : arena->child_place);
        for (pyc_link *v = queue->views.next; v != &queue->views; v = v->next) {
            atomic_fetch_or(&pyc_container(v, view, link)->piece->holders, bit);
        }
    }
}

void
pyc_queues_before_fork(pyc_ipc *state)
{
    mark_views(state, false);
}

void
pyc_queues_after_fork_in_child(pyc_ipc *state)
{
    pyc_lock_reset(&state->packers_lock);
    mark_views(state, true);
}
