/* SPDX-License-Identifier: MIT */
#include "ipc/spare.h"

#include <malloc.h>
#include <stdatomic.h>
#include <unistd.h>

#define ARENA_SIZE (1 << 20) /* of Python's; another size is not kept */
#define ARENAS_MOST 16
#define HEAP_MOST (32 << 20) /* at the end of the C library's heap */
#define HEAP_LEAST (1 << 20) /* less is not worth looking for */

/* The context of this process's arena allocator. Interpreters with a GIL each
 * share it. */
typedef struct {
    PyObjectArenaAllocator system; /* who had its place */
    _Atomic(void *) arenas[ARENAS_MOST];
    _Atomic(char *) heap_end; /* when nothing was kept */
} spare;

static void *
spare_alloc(void *context, size_t size)
{
    spare *self = context;
    for (int i = 0; i < ARENAS_MOST && size == ARENA_SIZE; i++) {
        if (atomic_load_explicit(&self->arenas[i], memory_order_relaxed)) {
            void *arena = atomic_exchange(&self->arenas[i], NULL);
            if (arena != NULL) {
                return arena;
            }
        }
    }
    return self->system.alloc(self->system.ctx, size);
}

static void
spare_free(void *context, void *arena, size_t size)
{
    spare *self = context;
    for (int i = 0; i < ARENAS_MOST && size == ARENA_SIZE; i++) {
        void *none = NULL;
        if (atomic_compare_exchange_strong(&self->arenas[i], &none, arena)) {
            return;
        }
    }
    self->system.free(self->system.ctx, arena, size);
}

/* NULL: there is none yet. */
static spare *
spare_of_process(void)
{
    PyObjectArenaAllocator now;
    PyObject_GetArenaAllocator(&now);
    return now.alloc == spare_alloc ? now.ctx : NULL;
}

static char *
heap_end(void)
{
    return sbrk(0);
}

int
pyc_spare_begin(void)
{
    if (spare_of_process() != NULL) {
        return 0;
    }
    spare *self = PyMem_RawCalloc(1, sizeof(*self));
    if (self == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject_GetArenaAllocator(&self->system);
    atomic_store(&self->heap_end, heap_end());
    PyObjectArenaAllocator mine = {self, spare_alloc, spare_free};
    PyObject_SetArenaAllocator(&mine);
#ifdef __GLIBC__
    /* What the dynamic thresholds come to after the first large block. */
    mallopt(M_TRIM_THRESHOLD, HEAP_MOST);
    mallopt(M_MMAP_THRESHOLD, HEAP_MOST / 2);
#endif
    return 0;
}

void
pyc_spare_give_back(void)
{
    spare *self = spare_of_process();
    if (self == NULL) {
        return;
    }
    for (int i = 0; i < ARENAS_MOST; i++) {
        void *arena = atomic_exchange(&self->arenas[i], NULL);
        if (arena != NULL) {
            self->system.free(self->system.ctx, arena, ARENA_SIZE);
        }
    }
#ifdef __GLIBC__
    if (heap_end() - atomic_load(&self->heap_end) > HEAP_LEAST) {
        Py_BEGIN_ALLOW_THREADS
        malloc_trim(0);
        Py_END_ALLOW_THREADS
        atomic_store(&self->heap_end, heap_end());
    }
#endif
}
