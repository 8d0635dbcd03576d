/* SPDX-License-Identifier: MIT */
/* An integer in shared memory that is changed without a lock, and on which
 * processes wait. */
#include "ipc/bell.h"
#include "ipc/shared.h"
#include "ipc/sleep.h"
#include "ipc/values.h"

#include "py/arguments.h"

#include <limits.h>
#include <string.h>

#define WAITERS 1u /* in `signal`: somebody sleeps on it */
#define ONE_WAKE 2u

typedef struct {
    _Atomic uint64_t value;
    _Atomic uint32_t signal; /* changes with each wake() */
    _Atomic uint32_t code;   /* one of CODES */
    pyc_bells bells;
} atomic_memory;

/* `narrow` values are kept in 64 bits as the type extends them. */
typedef struct {
    pyc_shared shared;
    char code;
} atomic_object;

#define CODES "iIlLqQ"
#define SELF ((atomic_object *)self)
#define MEMORY(self) PYC_MEMORY(self, atomic_memory)
