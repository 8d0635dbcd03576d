/* SPDX-License-Identifier: MIT */
/* What the models have in place of the memfd of a queue: MODEL_HEAP bytes of
 * the shared memory, which the file that includes this says where to find. */
#ifndef MODEL_MEMFD_H
#define MODEL_MEMFD_H

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned char *heap_memory(int fd);

static void *
map_heap(void *address, size_t size, int protection, int flags, int fd,
         off_t offset)
{
    return heap_memory(fd) + offset;
}

static int
stat_heap(int fd, struct stat *about)
{
    about->st_size = MODEL_HEAP;
    return 0;
}

static int
succeed(void)
{
    return 0;
}

#define mmap map_heap
#define munmap(...) succeed()
#define fstat stat_heap
#define fallocate(...) succeed()
#include "ipc/store.c"
#undef mmap
#undef munmap
#undef fstat
#undef fallocate

#endif
