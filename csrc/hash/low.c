/* SPDX-License-Identifier: MIT */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "hash/low.h"
#include <openssl/md5.h>
#include <openssl/provider.h>
#include <openssl/sha.h>

#ifndef OPENSSL_NO_DEPRECATED_3_0

#    define LOW_DIGEST(PREFIX, CONTEXT)                                        \
        static int PREFIX##_low(const void *data, size_t size,                 \
                                unsigned char *digest)                         \
        {                                                                      \
            CONTEXT context;                                                   \
            return PREFIX##_Init(&context) &&                                  \
                   PREFIX##_Update(&context, data, size) &&                    \
                   PREFIX##_Final(digest, &context);                           \
        }

LOW_DIGEST(MD5, MD5_CTX)
LOW_DIGEST(SHA1, SHA_CTX)
LOW_DIGEST(SHA224, SHA256_CTX)
LOW_DIGEST(SHA256, SHA256_CTX)
LOW_DIGEST(SHA384, SHA512_CTX)
LOW_DIGEST(SHA512, SHA512_CTX)

static const struct {
    const char *name;
    pyc_low_digest digest;
} low_digests[] = {
    {"MD5", MD5_low},         {"SHA1", SHA1_low},
    {"SHA2-224", SHA224_low}, {"SHA2-256", SHA256_low},
    {"SHA2-384", SHA384_low}, {"SHA2-512", SHA512_low},
};

pyc_low_digest
pyc_find_low_digest(const EVP_MD *md)
{
    /* Another provider (FIPS, an accelerator) was chosen on purpose. */
    const OSSL_PROVIDER *provider = EVP_MD_get0_provider(md);
    if (strcmp(OSSL_PROVIDER_get0_name(provider), "default") != 0) {
        return NULL;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(low_digests); i++) {
        if (EVP_MD_is_a(md, low_digests[i].name)) {
            return low_digests[i].digest;
        }
    }
    return NULL;
}

#else

pyc_low_digest
pyc_find_low_digest(const EVP_MD *Py_UNUSED(md))
{
    return NULL;
}

#endif
