/* SPDX-License-Identifier: MIT */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "hash/low.h"
#include <endian.h>
#include <openssl/crypto.h>
#include <openssl/md5.h>
#include <openssl/provider.h>
#include <openssl/sha.h>

#ifndef OPENSSL_NO_DEPRECATED_3_0

typedef union {
    MD5_CTX md5;
    SHA_CTX sha1;
    SHA256_CTX sha256;
    SHA512_CTX sha512;
} low_context;

struct pyc_low_hash {
    const char *name;
    size_t size, block_size;
    int (*digest)(const void *data, size_t size, unsigned char *digest);
    int (*init)(low_context *);
    int (*update)(low_context *, const void *data, size_t size);
    int (*final)(unsigned char *digest, low_context *);
};

#    define LOW_HASH(PREFIX, FIELD)                                            \
        static int PREFIX##_low(const void *data, size_t size,                 \
                                unsigned char *digest)                         \
        {                                                                      \
            low_context context;                                               \
            return PREFIX##_Init(&context.FIELD) &&                            \
                   PREFIX##_Update(&context.FIELD, data, size) &&              \
                   PREFIX##_Final(digest, &context.FIELD);                     \
        }                                                                      \
        static int PREFIX##_init(low_context *context)                         \
        {                                                                      \
            return PREFIX##_Init(&context->FIELD);                             \
        }                                                                      \
        static int PREFIX##_update(low_context *context, const void *data,     \
                                   size_t size)                                \
        {                                                                      \
            return PREFIX##_Update(&context->FIELD, data, size);               \
        }                                                                      \
        static int PREFIX##_final(unsigned char *digest, low_context *context) \
        {                                                                      \
            return PREFIX##_Final(digest, &context->FIELD);                    \
        }

#    define LOW(PREFIX)                                                        \
        PREFIX##_low, PREFIX##_init, PREFIX##_update, PREFIX##_final

LOW_HASH(MD5, md5)
LOW_HASH(SHA1, sha1)
LOW_HASH(SHA224, sha256)
LOW_HASH(SHA256, sha256)
LOW_HASH(SHA384, sha512)
LOW_HASH(SHA512, sha512)

static const pyc_low_hash low_hashes[] = {
    {"MD5", MD5_DIGEST_LENGTH, MD5_CBLOCK, LOW(MD5)},
    {"SHA1", SHA_DIGEST_LENGTH, SHA_CBLOCK, LOW(SHA1)},
    {"SHA2-224", SHA224_DIGEST_LENGTH, SHA256_CBLOCK, LOW(SHA224)},
    {"SHA2-256", SHA256_DIGEST_LENGTH, SHA256_CBLOCK, LOW(SHA256)},
    {"SHA2-384", SHA384_DIGEST_LENGTH, SHA512_CBLOCK, LOW(SHA384)},
    {"SHA2-512", SHA512_DIGEST_LENGTH, SHA512_CBLOCK, LOW(SHA512)},
};

const pyc_low_hash *
pyc_low_find(const EVP_MD *md)
{
    /* Another provider (FIPS, an accelerator) was chosen on purpose. */
    const OSSL_PROVIDER *provider = EVP_MD_get0_provider(md);
    if (strcmp(OSSL_PROVIDER_get0_name(provider), "default") != 0) {
        return NULL;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(low_hashes); i++) {
        if (EVP_MD_is_a(md, low_hashes[i].name)) {
            return &low_hashes[i];
        }
    }
    return NULL;
}

int
pyc_low_digest(const pyc_low_hash *hash, const void *data, size_t size,
               unsigned char *digest)
{
    return hash->digest(data, size, digest);
}

/* HMAC whose contexts have taken the key, so that a message costs no more than
 * its own blocks. */
typedef struct {
    const pyc_low_hash *hash;
    low_context inner, outer;
} low_hmac;

static int
hmac_start(low_hmac *self, const pyc_low_hash *hash, const pyc_span *key)
{
    unsigned char pad[SHA512_CBLOCK] = {0};
    int ok = 1;
    self->hash = hash;
    if (key->size > hash->block_size) {
        ok = hash->digest(key->data, key->size, pad);
    }
    else if (key->size > 0) {
        memcpy(pad, key->data, key->size);
    }
    for (size_t i = 0; i < hash->block_size; i++) {
        pad[i] ^= 0x36;
    }
    ok = ok && hash->init(&self->inner) &&
         hash->update(&self->inner, pad, hash->block_size);
    for (size_t i = 0; i < hash->block_size; i++) {
        pad[i] ^= 0x36 ^ 0x5c;
    }
    ok = ok && hash->init(&self->outer) &&
         hash->update(&self->outer, pad, hash->block_size);
    OPENSSL_cleanse(pad, sizeof(pad));
    return ok;
}

/* Of the message that `context`, a copy of self->inner at first, has taken. */
static int
hmac_finish(const low_hmac *self, low_context *context, unsigned char *mac)
{
    const pyc_low_hash *hash = self->hash;
    if (!hash->final(mac, context)) {
        return 0;
    }
    *context = self->outer;
    return hash->update(context, mac, hash->size) && hash->final(mac, context);
}

/* RFC 8018's function F: the block of that number of the key. */
static int
pbkdf2_block(const low_hmac *hmac, const pyc_span *salt, uint32_t number,
             int iterations, unsigned char *block)
{
    const pyc_low_hash *hash = hmac->hash;
    unsigned char mac[EVP_MAX_MD_SIZE] = {0};
    uint32_t last = htobe32(number);
    low_context context = hmac->inner;
    int ok = hash->update(&context, salt->data, salt->size) &&
             hash->update(&context, &last, sizeof(last)) &&
             hmac_finish(hmac, &context, mac);
    memcpy(block, mac, hash->size);
    for (int i = 1; ok && i < iterations; i++) {
        context = hmac->inner;
        ok = hash->update(&context, mac, hash->size) &&
             hmac_finish(hmac, &context, mac);
        for (size_t k = 0; k < hash->size; k++) {
            block[k] ^= mac[k];
        }
    }
    OPENSSL_cleanse(&context, sizeof(context));
    OPENSSL_cleanse(mac, sizeof(mac));
    return ok;
}

int
pyc_low_pbkdf2(const pyc_low_hash *hash, const pyc_span *password,
               const pyc_span *salt, int iterations, unsigned char *key,
               size_t size)
{
    low_hmac hmac;
    unsigned char block[EVP_MAX_MD_SIZE];
    int ok = hmac_start(&hmac, hash, password);
    for (uint32_t number = 1; ok && size > 0; number++) {
        size_t part = size < hash->size ? size : hash->size;
        ok = pbkdf2_block(&hmac, salt, number, iterations, block);
        memcpy(key, block, part);
        key += part;
        size -= part;
    }
    OPENSSL_cleanse(&hmac, sizeof(hmac));
    OPENSSL_cleanse(block, sizeof(block));
    return ok;
}

#else

const pyc_low_hash *
pyc_low_find(const EVP_MD *Py_UNUSED(md))
{
    return NULL;
}

int
pyc_low_digest(const pyc_low_hash *Py_UNUSED(hash), const void *Py_UNUSED(data),
               size_t Py_UNUSED(size), unsigned char *Py_UNUSED(digest))
{
    return 0;
}

int
pyc_low_pbkdf2(const pyc_low_hash *Py_UNUSED(hash),
               const pyc_span *Py_UNUSED(password),
               const pyc_span *Py_UNUSED(salt), int Py_UNUSED(iterations),
               unsigned char *Py_UNUSED(key), size_t Py_UNUSED(size))
{
    return 0;
}

#endif
