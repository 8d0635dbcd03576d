/* SPDX-License-Identifier: MIT */
/* What putting and getting have in common: room, waiting, the end. */
#include "ipc/queue.h"

#include "ipc/layout.h"
#include "ipc/sleep.h"

#include <errno.h>
#include <string.h>

#define KEEP_IDLE (UINT64_C(64) << 20) /* bytes that are never given back */
#define SPIN_NS 50000 /* what waking a process on another CPU costs */

void
pyc_queue_error(int error)
{
    PyObject *message =
        error == PYC_CORRUPT
            ? PyUnicode_FromString("the memory of the queue is corrupt")
            : PyUnicode_FromFormat("the memory of the queue cannot grow: %s",
                                   strerror(-error));
    PyObject *args =
        message == NULL ? NULL : Py_BuildValue("(iN)", -error, message);
    if (args != NULL) {
        PyErr_SetObject(PyExc_OSError, args);
        Py_DECREF(args);
    }
}

/* Judges pieces while nobody works at either end. */
typedef struct {
    pyc_heap_judge judge;
    pyc_queue *queue;
    uint64_t live; /* the bits of living processes; 0: not known yet */
} judge;

static uint64_t
live_bits(pyc_arena *arena)
{
    uint64_t live = PYC_FOR_GOOD;
    pyc_table_reap(arena);
    for (int i = 1; i <= PYC_HOLDERS; i++) {
        if (atomic_load(&pyc_arena_places(arena)[i].state) != 0) {
            live |= pyc_place_bit(i);
        }
    }
    return live;
}

static bool
is_left(pyc_heap_judge *object, pyc_piece *piece, uint64_t offset)
{
    judge *self = (judge *)object;
    pyc_arena *arena = self->queue->shared.block.arena;
    uint64_t state = atomic_load(&piece->state);
    pyc_owner owner = (pyc_owner)PYC_STATE_NUMBER(state);
    switch (PYC_STATE_IS(state)) {
    case PYC_WRITING:
        return pyc_arena_owner_is_dead(arena, owner);
    case PYC_HELD:
        if (owner != 0 && !pyc_arena_owner_is_dead(arena, owner)) {
            return false;
        }
        if (self->live == 0) {
            self->live = live_bits(arena);
        }
        return (atomic_load(&piece->holders) & self->live) == 0;
    case PYC_LENT: /* elsewhere than in a channel's process nobody knows */
        return self->queue->borrower != NULL &&
               pyc_ring_is_left(&pyc_queue_shared(self->queue->borrower)->ring,
                                state, offset);
    default:
        return pyc_ring_is_left(&pyc_queue_shared(self->queue)->ring, state,
                                offset);
    }
}

/* Of who borrows, if there is one: it takes nothing of its lender's while it
 * has either. */
static void
lock_both(pyc_queue *self)
{
    if (self != NULL) {
        pyc_queue_memory *memory = pyc_queue_shared(self);
        pyc_mutex_lock(self->shared.block.arena, &memory->putting);
        pyc_mutex_lock(self->shared.block.arena, &memory->getting);
    }
}

static void
unlock_both(pyc_queue *self)
{
    if (self != NULL) {
        pyc_queue_memory *memory = pyc_queue_shared(self);
        pyc_mutex_unlock(&memory->getting);
        pyc_mutex_unlock(&memory->putting);
    }
}

void
pyc_queue_borrow(pyc_queue *self, pyc_queue *lender)
{
    pyc_queue *before = self->lender;
    self->lender = (pyc_queue *)Py_NewRef(lender);
    lender->borrower = self;
    Py_XDECREF(before);
}

/* Pieces that dead processes have left. Who calls it is putting. */
static int
reclaim(pyc_queue *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    judge here = {.judge = {is_left}, .queue = self};
    pyc_mutex_lock(self->shared.block.arena, &memory->getting);
    lock_both(self->borrower);
    int found = pyc_heap_reclaim(&memory->ring.heap, &self->store, &here.judge);
    unlock_both(self->borrower);
    pyc_mutex_unlock(&memory->getting);
    return found;
}

int
pyc_queue_make_room(pyc_queue *self, uint64_t size, int attempt)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    int found = attempt == 0 ? reclaim(self) : 0;
    return found != 0 ? (found < 0 ? found : 0)
                      : pyc_heap_grow(&memory->ring.heap, &self->store, size);
}

/* Once a second at most: what is given back costs time to get again. */
void
pyc_queue_trim(pyc_queue *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    pyc_heap *heap = &memory->ring.heap;
    if (PYC_LIKELY(pyc_heap_size(heap) <= KEEP_IDLE) ||
        pyc_heap_size(heap) - atomic_load(&heap->holes) <= KEEP_IDLE) {
        return;
    }
    uint32_t now = pyc_heap_now();
    if (atomic_load(&memory->trimmed) == now) {
        return;
    }
    pyc_mutex_lock(self->shared.block.arena, &memory->putting);
    atomic_store(&memory->trimmed, now);
    pyc_heap_trim(heap, &self->store, KEEP_IDLE, now);
    pyc_mutex_unlock(&memory->putting);
}

void
pyc_queue_give_back(pyc_queue *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    pyc_mutex_lock(self->shared.block.arena, &memory->putting);
    if (reclaim(self) >= 0) {
        pyc_heap_trim(&memory->ring.heap, &self->store, 0,
                      pyc_heap_now() + PYC_HEAP_IDLE);
    }
    pyc_mutex_unlock(&memory->putting);
}

static void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static bool
look_for_long(pyc_queue *self, const pyc_queue_wish *wish)
{
    int64_t end = pyc_clock_now() + SPIN_NS;
    do {
        for (int i = 0; i < 20; i++) {
            if (wish->is_ready(self, wish->what)) {
                return true;
            }
            relax();
        }
    } while (pyc_clock_now() < end);
    return false;
}

static bool
look(pyc_queue *self, const pyc_queue_wish *wish)
{
    pyc_patience *patience = &wish->patience->looking;
    bool ready;
    if (!pyc_patience_allows(patience)) {
        return false;
    }
    if (pyc_only_thread()) {
        ready = look_for_long(self, wish);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        ready = look_for_long(self, wish);
        Py_END_ALLOW_THREADS
    }
    pyc_patience_learn(patience, ready ? PYC_READY : PYC_IN_VAIN);
    return ready;
}

static bool
yield(pyc_queue *self, const pyc_queue_wish *wish)
{
    pyc_patience *patience = &wish->patience->yielding;
    if (!pyc_patience_allows(patience)) {
        return false;
    }
    bool cheap = pyc_yield(patience), ready = wish->is_ready(self, wish->what);
    pyc_patience_learn(patience, !cheap  ? PYC_DEAR
                                 : ready ? PYC_READY
                                         : PYC_IN_VAIN);
    return ready;
}

int
pyc_queue_wait(pyc_queue *self, const pyc_queue_wish *wish, int64_t deadline)
{
    if (deadline == 0) {
        return 0;
    }
    bool looks = pyc_load(wish->patience->looking.failures) == 0;
    if ((looks && look(self, wish)) || yield(self, wish) ||
        (!looks && look(self, wish))) {
        return 1;
    }
    uint32_t word = pyc_gate_announce(wish->gate);
    if (wish->is_ready(self, wish->what)) {
        return 1;
    }
    int rc = pyc_sleep(&wish->gate->word, word, deadline);
    if (rc == PYC_TOO_LATE) {
        return wish->is_ready(self, wish->what);
    }
    return rc == PYC_INTERRUPTED ? -1 : 1;
}

uint64_t
pyc_queue_unfinished(pyc_queue *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    uint64_t done = atomic_load(&memory->done);
    return pyc_ring_number(&memory->ring.in) - done -
           pyc_ring_dropped(&memory->ring);
}

static void
tell_if_finished(pyc_queue *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    atomic_thread_fence(memory_order_seq_cst);
    if (pyc_queue_unfinished(self) == 0) {
        pyc_gate_open(&memory->finished, INT32_MAX);
        pyc_bells_ring(self->shared.state, self->shared.block.arena,
                       &memory->finished_bells);
    }
}

int
pyc_queue_task_done(pyc_queue *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    uint64_t done = atomic_load(&memory->done);
    do {
        if ((int64_t)(pyc_ring_number(&memory->ring.in) - done -
                      pyc_ring_dropped(&memory->ring)) <= 0) {
            PyErr_SetString(PyExc_ValueError,
                            "task_done() called too many times");
            return -1;
        }
    } while (!atomic_compare_exchange_weak(&memory->done, &done, done + 1));
    tell_if_finished(self);
    return 0;
}

static bool
is_finished(pyc_queue *self, uint64_t Py_UNUSED(ignored))
{
    return pyc_queue_unfinished(self) == 0;
}

int
pyc_queue_join(pyc_queue *self, int64_t deadline)
{
    pyc_queue_wish wish = {&pyc_queue_shared(self)->finished, &self->for_end,
                           is_finished, 0};
    int rc = 1;
    while (rc > 0 && !is_finished(self, 0)) {
        rc = pyc_queue_wait(self, &wish, deadline);
    }
    return rc;
}

static void
free_parts(pyc_queue *self, const pyc_record *record, const char *where,
           uint64_t number)
{
    const pyc_ring_part *parts =
        (const pyc_ring_part *)(where + sizeof(*record));
    pyc_queue *home = pyc_queue_home(self);
    for (uint32_t i = 0; i < record->parts; i++) {
        pyc_ring_part part = parts[i];
        pyc_piece *piece = pyc_ring_piece(&home->store, &part,
                                          pyc_queue_carried(self, number));
        if (piece != NULL) {
            pyc_heap_free(&pyc_queue_shared(home)->ring.heap, piece);
        }
    }
}

/* Each item by a commit of its own: somebody may be killed here, too. */
static void
drop_all(pyc_queue *self)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    pyc_ring_cursor cursor;
    pyc_record record;
    const char *where;
    pyc_mutex_lock(self->shared.block.arena, &memory->getting);
    pyc_ring_load(&memory->ring.out, &cursor);
    while (pyc_ring_next(&memory->ring, &self->store, &cursor, &record,
                         &where) > 0) {
        uint64_t number = cursor.number;
        pyc_ring_took(&cursor, &record);
        cursor.dropped++;
        pyc_ring_commit_out(&memory->ring, &self->store, &cursor);
        free_parts(self, &record, where, number);
    }
    pyc_mutex_unlock(&memory->getting);
}

void
pyc_queue_shutdown(pyc_queue *self, int immediate)
{
    pyc_queue_memory *memory = pyc_queue_shared(self);
    pyc_arena *arena = self->shared.block.arena;
    pyc_ipc *state = self->shared.state;
    pyc_mutex_lock(arena, &memory->putting);
    atomic_store(&memory->shut, 1);
    pyc_mutex_unlock(&memory->putting);
    if (immediate) {
        drop_all(self);
        tell_if_finished(self);
    }
    atomic_thread_fence(memory_order_seq_cst);
    pyc_gate_open(&memory->items, INT32_MAX);
    pyc_gate_open(&memory->space, INT32_MAX);
    pyc_bells_ring(state, arena, &memory->item_bells);
    pyc_bells_ring(state, arena, &memory->space_bells);
}

/* The standard library's class where it has one, else pyconc.queue's, which is
 * not worth importing before. */
void
pyc_queue_raise_shut(pyc_ipc *state, PyObject *args)
{
    PyObject *module = PyImport_ImportModule("queue");
    PyObject *type =
        module == NULL ? NULL : PyObject_GetAttrString(module, "ShutDown");
    if (type == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        Py_XSETREF(module, PyImport_ImportModule("pyconc.queue"));
        type =
            module == NULL ? NULL : PyObject_GetAttrString(module, "ShutDown");
    }
    if (type != NULL) {
        PyErr_SetObject(type, args);
    }
    Py_XDECREF(type);
    Py_XDECREF(module);
}
