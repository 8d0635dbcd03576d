/* SPDX-License-Identifier: MIT */
/* What a thread finds in a store while another maps it. Exits with 0 when all
 * of it holds. */
#define _GNU_SOURCE
#include "ipc/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SIZE 4096
#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);            \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

int
main(void)
{
    uint64_t start, end;
    pyc_extents extents = {0};
    pyc_store theirs = {.extents = &extents};
    theirs.fd = memfd_create("store", MFD_CLOEXEC);
    pyc_store ours = {.fd = theirs.fd, .extents = &extents};
    CHECK(pyc_store_at(&ours, 0, SIZE) == NULL);
    for (int i = 0; i < 3; i++) {
        CHECK(pyc_store_grow(&theirs, SIZE, &start, &end) == 0);
        CHECK(pyc_store_at(&ours, start, SIZE) == NULL);
        pyc_store_count(&theirs);
    }
    char *last = pyc_store_at(&ours, start, SIZE);
    CHECK(last != NULL);
    /* Another thread has mapped it since this one has looked for it in vain. */
    CHECK(pyc_store_at_slowly(&ours, 2, start, SIZE) == last);
    CHECK(pyc_store_at_slowly(&ours, 0, start, SIZE) == last);
    CHECK(pyc_store_at_slowly(&ours, 3, end, SIZE) == NULL);
    CHECK(pyc_store_at(&ours, end, SIZE) == NULL);
    CHECK(pyc_store_at(&ours, start, SIZE + 1) == NULL);
    pyc_store_unmap(&ours);
    pyc_store_unmap(&theirs);
    return 0;
}
