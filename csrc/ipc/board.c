/* SPDX-License-Identifier: MIT */
#include "ipc/board.h"

size_t
pyc_board_size(uint32_t slots, uint32_t workers)
{
    return sizeof(pyc_board) + workers * sizeof(pyc_worker) +
           slots * sizeof(pyc_claim);
}

void
pyc_board_begin(pyc_board *self, uint32_t slots, uint32_t workers,
                uint32_t parent)
{
    self->slots = slots;
    self->workers = workers;
    self->parent = parent;
}

bool
pyc_board_check(const pyc_board *self, size_t size)
{
    return size >= sizeof(*self) && self->slots > 0 &&
           self->slots <= PYC_SLOTS_MOST && self->workers > 0 &&
           self->workers <= PYC_WORKERS_MOST &&
           size >= pyc_board_size(self->slots, self->workers);
}
