/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "ipc/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE UINT64_C(4096)
#define PIECE (UINT64_C(16) << 20) /* is asked for at once */

static uint64_t
end_of(pyc_store *self, uint32_t count)
{
    return count == 0 ? 0
                      : atomic_load_explicit(&self->extents->ends[count - 1],
                                             memory_order_acquire);
}

static void *
map(pyc_store *self, uint64_t start, uint64_t end)
{
    return mmap(NULL, end - start, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_POPULATE, self->fd, (off_t)start);
}

/* Threads may do so at once: the first one's mapping stays. */
static void
enter(pyc_store *self, uint32_t i, uint64_t start, uint64_t end, char *memory)
{
    char *none = NULL;
    self->ends[i] = end; /* the same from each thread */
    if (!atomic_compare_exchange_strong(&self->memory[i], &none, memory)) {
        munmap(memory, end - start);
    }
    uint32_t before = i;
    atomic_compare_exchange_strong(&self->mapped, &before, i + 1);
}

int
pyc_store_map(pyc_store *self)
{
    struct stat about;
    uint32_t count =
        atomic_load_explicit(&self->extents->count, memory_order_acquire);
    if (count > PYC_EXTENTS) {
        return PYC_CORRUPT;
    }
    if (fstat(self->fd, &about) < 0) {
        return -errno;
    }
    for (uint32_t i = atomic_load(&self->mapped); i < count; i++) {
        uint64_t start = i == 0 ? 0 : self->ends[i - 1];
        uint64_t end = end_of(self, i + 1);
        if (end <= start || end % PAGE != 0 || end > (uint64_t)about.st_size) {
            return PYC_CORRUPT;
        }
        void *memory = map(self, start, end);
        if (memory == MAP_FAILED) {
            return -errno;
        }
        enter(self, i, start, end, memory);
    }
    return 0;
}

void
pyc_store_unmap(pyc_store *self)
{
    uint64_t start = 0;
    uint32_t mapped = atomic_exchange(&self->mapped, 0);
    for (uint32_t i = 0; i < mapped; i++) {
        munmap(self->memory[i], self->ends[i] - start);
        self->memory[i] = NULL;
        start = self->ends[i];
    }
}

/* Another thread may have mapped more than was known meanwhile. */
void *
pyc_store_at_slowly(pyc_store *self, uint32_t known, uint64_t offset,
                    uint64_t size)
{
    if (atomic_load(&self->mapped) == known &&
        (atomic_load(&self->extents->count) == known ||
         pyc_store_map(self) < 0 || atomic_load(&self->mapped) == known)) {
        return NULL;
    }
    return pyc_store_at(self, offset, size);
}

static int
allocate(int fd, uint64_t start, uint64_t size)
{
    uint64_t end = start + size, piece = PIECE;
    while (start < end) {
        piece = piece < end - start ? piece : end - start;
        if (fallocate(fd, 0, (off_t)start, (off_t)piece) == 0) {
            start += piece;
        }
        else if (errno != EINTR) {
            return -errno;
        }
        else if (piece >= 2 * PAGE) {
            piece /= 2; /* a signal has undone it */
        }
    }
    return 0;
}

/* The file may be longer: somebody was killed here. */
static int
lengthen(pyc_store *self, uint64_t start, uint64_t size)
{
    struct stat about;
    if (fstat(self->fd, &about) < 0 ||
        ((uint64_t)about.st_size < start + size &&
         ftruncate(self->fd, (off_t)(start + size)) < 0)) {
        return -errno;
    }
    return allocate(self->fd, start, size);
}

int
pyc_store_grow(pyc_store *self, uint64_t size, uint64_t *start, uint64_t *end)
{
    int rc = pyc_store_map(self);
    uint32_t i = atomic_load(&self->mapped);
    if (rc < 0) {
        return rc;
    }
    if (i == PYC_EXTENTS) {
        return -ENOMEM;
    }
    *start = end_of(self, i);
    size = (size + PAGE - 1) / PAGE * PAGE;
    rc = lengthen(self, *start, size);
    if (rc < 0) {
        return rc;
    }
    *end = *start + size;
    void *memory = map(self, *start, *end);
    if (memory == MAP_FAILED) {
        return -errno;
    }
    enter(self, i, *start, *end, memory);
    return 0;
}

void
pyc_store_count(pyc_store *self)
{
    uint32_t count = atomic_load(&self->mapped);
    atomic_store_explicit(&self->extents->ends[count - 1],
                          self->ends[count - 1], memory_order_release);
    atomic_store_explicit(&self->extents->count, count, memory_order_release);
}

void
pyc_store_drop(pyc_store *self, uint64_t start, uint64_t end)
{
    start = (start + PAGE - 1) / PAGE * PAGE;
    end = end / PAGE * PAGE;
    if (end > start) {
        fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)start, (off_t)(end - start));
    }
}

int
pyc_store_refill(pyc_store *self, uint64_t start, uint64_t end)
{
    start = start / PAGE * PAGE;
    end = (end + PAGE - 1) / PAGE * PAGE;
    return allocate(self->fd, start, end - start);
}
