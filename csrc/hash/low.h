/* SPDX-License-Identifier: MIT */
/* Short cuts past libcrypto's EVP layer, which costs a small item as much as
 * hashing it does. */
#ifndef PYC_HASH_LOW_H
#define PYC_HASH_LOW_H

#include "py/compat.h"
#include <openssl/evp.h>

typedef int (*pyc_low_digest)(const void *data, size_t size,
                              unsigned char *digest);

/* A function that computes the same digest, or NULL: then EVP must do. */
pyc_low_digest pyc_find_low_digest(const EVP_MD *md);

#endif
