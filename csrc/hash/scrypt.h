/* SPDX-License-Identifier: MIT */
/* scrypt (RFC 7914), two passwords side by side.
 *
 * libcrypto's mixes one block after the other, each step of which waits for
 * the one before: with a vector for each row of a block and two blocks at once,
 * a core does 2.5 times as many. PBKDF2 and SHA-256 are libcrypto's here, too.
 */
#ifndef PYC_HASH_SCRYPT_H
#define PYC_HASH_SCRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PYC_SCRYPT_LANES 2

/* The parameters, which libcrypto has accepted: n is a power of 2, and
 * 128 * r * (n + p + 2) is within its limit of memory. */
typedef struct {
    uint64_t n;
    size_t r, p;
} pyc_scrypt;

/* Bytes of memory that `lanes` passwords need. */
size_t pyc_scrypt_size(const pyc_scrypt *cost, size_t lanes);
/* Such memory, or NULL. It is the system's own, which has it back, overwritten,
 * when it is freed: malloc would keep some for each thread. */
void *pyc_scrypt_memory(size_t size);
void pyc_scrypt_free(void *memory, size_t size);
/* Where the memory has the blocks of a lane, 128 * r * p bytes: what PBKDF2
 * makes of the password before they are mixed, and the salt of the key after.
 */
unsigned char *pyc_scrypt_blocks(const pyc_scrypt *cost, void *memory,
                                 size_t lane);
/* Mixes the blocks of all lanes. */
void pyc_scrypt_mix(const pyc_scrypt *cost, void *memory, size_t lanes);

#endif
