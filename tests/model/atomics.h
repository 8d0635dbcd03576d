/* SPDX-License-Identifier: MIT */
/* Included before everything else (cc -include): stdatomic.h's operations, each
 * a step of the model. */
#ifndef MODEL_ATOMICS_H
#define MODEL_ATOMICS_H

#include <stdatomic.h>
#include <string.h>

#include "explore.h"

#undef atomic_load_explicit
#undef atomic_load
#undef atomic_store_explicit
#undef atomic_store
#undef atomic_exchange_explicit
#undef atomic_exchange
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak_explicit
#undef atomic_compare_exchange_weak
#undef atomic_fetch_add_explicit
#undef atomic_fetch_add
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_and_explicit
#undef atomic_fetch_and
#undef atomic_fetch_or_explicit
#undef atomic_fetch_or
#undef atomic_fetch_xor_explicit
#undef atomic_fetch_xor
#undef atomic_thread_fence

/* The type of what `at` points to, without its qualifiers. */
#define MODEL_VALUE(at) __typeof__((void)0, *(at))

#define MODEL_ATOMIC(what, kind, at, order, a, b)                              \
    ({                                                                         \
        __auto_type at_ = (at);                                                \
        (MODEL_VALUE(at_))                                                     \
            model_atomic(MODEL_SITE(what), kind, at_, sizeof(*at_), order,     \
                         (uint64_t)(a), (uint64_t)(b));                        \
    })

#define atomic_load_explicit(at, order)                                        \
    MODEL_ATOMIC(#at, MODEL_LOAD, at, order, 0, 0)
#define atomic_store_explicit(at, value, order)                                \
    ((void)MODEL_ATOMIC(#at, MODEL_STORE, at, order, (MODEL_VALUE(at))(value), \
                        0))
#define atomic_exchange_explicit(at, value, order)                             \
    MODEL_ATOMIC(#at, MODEL_EXCHANGE, at, order, (MODEL_VALUE(at))(value), 0)
#define atomic_compare_exchange_strong_explicit(at, expected, value, order,    \
                                                failure)                       \
    ({                                                                         \
        __auto_type expected_ = (expected);                                    \
        __auto_type found_ =                                                   \
            MODEL_ATOMIC(#at, MODEL_COMPARE_EXCHANGE, at, order, *expected_,   \
                         (MODEL_VALUE(at))(value));                            \
        bool same_ = found_ == *expected_;                                     \
        *expected_ = found_;                                                   \
        (void)(failure);                                                       \
        same_;                                                                 \
    })
#define atomic_compare_exchange_weak_explicit                                  \
    atomic_compare_exchange_strong_explicit
#define atomic_fetch_add_explicit(at, value, order)                            \
    MODEL_ATOMIC(#at, MODEL_ADD, at, order, value, 0)
#define atomic_fetch_sub_explicit(at, value, order)                            \
    MODEL_ATOMIC(#at, MODEL_SUB, at, order, value, 0)
#define atomic_fetch_and_explicit(at, value, order)                            \
    MODEL_ATOMIC(#at, MODEL_AND, at, order, value, 0)
#define atomic_fetch_or_explicit(at, value, order)                             \
    MODEL_ATOMIC(#at, MODEL_OR, at, order, value, 0)
#define atomic_fetch_xor_explicit(at, value, order)                            \
    MODEL_ATOMIC(#at, MODEL_XOR, at, order, value, 0)
#define atomic_thread_fence(order)                                             \
    ((void)model_atomic(MODEL_SITE("fence"), MODEL_FENCE, NULL, 0, order, 0, 0))

#define atomic_load(at) atomic_load_explicit(at, memory_order_seq_cst)
#define atomic_store(at, value)                                                \
    atomic_store_explicit(at, value, memory_order_seq_cst)
#define atomic_exchange(at, value)                                             \
    atomic_exchange_explicit(at, value, memory_order_seq_cst)
#define atomic_compare_exchange_strong(at, expected, value)                    \
    atomic_compare_exchange_strong_explicit(                                   \
        at, expected, value, memory_order_seq_cst, memory_order_seq_cst)
#define atomic_compare_exchange_weak(at, expected, value)                      \
    atomic_compare_exchange_strong(at, expected, value)
#define atomic_fetch_add(at, value)                                            \
    atomic_fetch_add_explicit(at, value, memory_order_seq_cst)
#define atomic_fetch_sub(at, value)                                            \
    atomic_fetch_sub_explicit(at, value, memory_order_seq_cst)
#define atomic_fetch_and(at, value)                                            \
    atomic_fetch_and_explicit(at, value, memory_order_seq_cst)
#define atomic_fetch_or(at, value)                                             \
    atomic_fetch_or_explicit(at, value, memory_order_seq_cst)
#define atomic_fetch_xor(at, value)                                            \
    atomic_fetch_xor_explicit(at, value, memory_order_seq_cst)

/* A copy into shared memory or out of it can be seen half done. */
#define memcpy(to, from, size)                                                 \
    model_copy(MODEL_SITE("memcpy " #to), to, from, size)

#endif
