/* SPDX-License-Identifier: MIT */
/* Short cuts past libcrypto's EVP layer, which costs a small item as much as
 * hashing it does. */
#ifndef PYC_HASH_LOW_H
#define PYC_HASH_LOW_H

#include "py/compat.h"
#include <openssl/evp.h>

typedef struct {
    const void *data;
    size_t size;
} pyc_span;

typedef struct pyc_low_hash pyc_low_hash;

/* The same hash without EVP, or NULL: then EVP must do. */
const pyc_low_hash *pyc_low_find(const EVP_MD *md);
/* Like libcrypto's, they return 1, or 0. */
int pyc_low_digest(const pyc_low_hash *hash, const void *data, size_t size,
                   unsigned char *digest);
int pyc_low_pbkdf2(const pyc_low_hash *hash, const pyc_span *password,
                   const pyc_span *salt, int iterations, unsigned char *key,
                   size_t size);

#endif
