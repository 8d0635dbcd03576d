/* SPDX-License-Identifier: MIT */
/* In place of csrc's own: threads of one process take turns. */
#ifndef PYC_PY_LOCK_H
#define PYC_PY_LOCK_H

#include "py/compat.h"

typedef struct {
    uint32_t held;
} pyc_lock;
#define pyc_lock_take(lock) model_lock(MODEL_SITE("lock " #lock), lock)
#define pyc_lock_give(lock) model_unlock(lock)
#define pyc_lock_reset(lock) ((void)(lock))

#define pyc_load(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define pyc_store(field, value)                                                \
    __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

#endif
