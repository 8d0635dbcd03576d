/* SPDX-License-Identifier: MIT */
/* Keys derived from passwords. */
#include "hash/batch.h"
#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

static const pyc_span *
salt_of(pyc_batch *self, size_t index)
{
    return &self->salt_spans[PyTuple_GET_SIZE(self->salts) > 1 ? index : 0];
}

typedef struct {
    unsigned char *at;
    size_t size;
} derived_key;

/* Derives the keys of the inputs from `index` on, one for each of `keys`. */
typedef pyc_fault (*derivation)(pyc_batch *, size_t index, size_t count,
                                const derived_key *keys, pyc_scratch *);

static int
pbkdf2(const pyc_span *password, const pyc_span *salt, int iterations,
       const EVP_MD *md, const derived_key *key)
{
    return PKCS5_PBKDF2_HMAC(password->data, (int)password->size, salt->data,
                             (int)salt->size, iterations, md, (int)key->size,
                             key->at);
}

static pyc_fault
derive_pbkdf2(pyc_batch *self, size_t index, size_t Py_UNUSED(count),
              const derived_key *keys, pyc_scratch *Py_UNUSED(scratch))
{
    const pyc_span *password = &self->inputs[index];
    const pyc_span *salt = salt_of(self, index);
    int ok = self->low != NULL
                 ? pyc_low_pbkdf2(self->low, password, salt, self->iterations,
                                  keys->at, keys->size)
                 : pbkdf2(password, salt, self->iterations, self->md, keys);
    return ok ? 0 : pyc_crypto_fault();
}

#define NO_MEMORY (PYC_FAULT_SYSTEM | ENOMEM)

static pyc_fault
have_memory(pyc_scratch *scratch, size_t size)
{
    if (scratch->memory_size >= size) {
        return 0;
    }
    pyc_forget_memory(scratch);
    scratch->memory = pyc_scrypt_memory(size);
    if (scratch->memory == NULL) {
        return NO_MEMORY;
    }
    scratch->memory_size = size;
    return 0;
}

static pyc_fault
derive_scrypt(pyc_batch *self, size_t index, size_t count,
              const derived_key *keys, pyc_scratch *scratch)
{
    const pyc_scrypt *cost = &self->scrypt;
    pyc_fault fault = have_memory(scratch, pyc_scrypt_size(cost, count));
    if (fault != 0) {
        return fault;
    }
    const EVP_MD *sha256 = EVP_sha256();
    const size_t size = 128 * cost->r * cost->p;
    for (size_t i = 0; i < count; i++) {
        derived_key blocks = {pyc_scrypt_blocks(cost, scratch->memory, i),
                              size};
        if (!pbkdf2(&self->inputs[index + i], salt_of(self, index + i), 1,
                    sha256, &blocks)) {
            return pyc_crypto_fault();
        }
    }
    pyc_scrypt_mix(cost, scratch->memory, count);
    for (size_t i = 0; i < count; i++) {
        pyc_span mixed = {pyc_scrypt_blocks(cost, scratch->memory, i), size};
        if (!pbkdf2(&self->inputs[index + i], &mixed, 1, sha256, &keys[i])) {
            return pyc_crypto_fault();
        }
    }
    return 0;
}

/* Derives the keys and compares them with those they must be, in a time that
 * does not tell where they differ. */
static pyc_fault
verify(pyc_batch *self, size_t index, size_t count, derivation derive,
       pyc_scratch *scratch)
{
    derived_key keys[PYC_BATCH_LANES] = {0};
    pyc_fault fault = 0;
    for (size_t i = 0; i < count; i++) {
        keys[i].size = self->key_spans[index + i].size;
        keys[i].at = malloc(keys[i].size);
        if (keys[i].at == NULL) {
            fault = NO_MEMORY;
            goto done;
        }
    }
    fault = derive(self, index, count, keys, scratch);
    for (size_t i = 0; i < count && fault == 0; i++) {
        self->matches[index + i] =
            CRYPTO_memcmp(keys[i].at, self->key_spans[index + i].data,
                          keys[i].size) == 0;
    }

done:
    for (size_t i = 0; i < count && keys[i].at != NULL; i++) {
        OPENSSL_cleanse(keys[i].at, keys[i].size);
        free(keys[i].at);
    }
    return fault;
}

static pyc_fault
derive_items(pyc_batch *self, size_t index, size_t count, derivation derive,
             pyc_scratch *scratch)
{
    if (self->matches != NULL) {
        return verify(self, index, count, derive, scratch);
    }
    derived_key keys[PYC_BATCH_LANES];
    for (size_t i = 0; i < count; i++) {
        keys[i].at = pyc_batch_result(self, index + i);
        keys[i].size = self->digest_size;
    }
    return derive(self, index, count, keys, scratch);
}

/* Where there is no memory for two there may be for one. */
static pyc_fault
scrypt_items(pyc_batch *self, size_t index, size_t count, pyc_scratch *scratch)
{
    pyc_fault fault = derive_items(self, index, count, derive_scrypt, scratch);
    if (fault != NO_MEMORY || count == 1) {
        return fault;
    }
    for (size_t i = 0; i < count; i++) {
        fault = derive_items(self, index + i, 1, derive_scrypt, scratch);
        if (fault != 0) {
            break;
        }
    }
    return fault;
}

static pyc_fault
pbkdf2_items(pyc_batch *self, size_t index, size_t count, pyc_scratch *scratch)
{
    return derive_items(self, index, count, derive_pbkdf2, scratch);
}

/* libcrypto takes these lengths as int. */
static int
check_sizes(const pyc_span *spans, size_t count, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        if (spans[i].size > INT_MAX) {
            PyErr_Format(PyExc_OverflowError, "%s is too long.", what);
            return -1;
        }
    }
    return 0;
}

static int
hold_secrets(pyc_batch *self, PyObject *passwords, PyObject *salt,
             PyObject *keys)
{
    if (pyc_batch_hold_inputs(self, passwords, "passwords") < 0 ||
        pyc_batch_hold_salts(self, salt) < 0 ||
        check_sizes(self->inputs, self->job.total, "password") < 0 ||
        check_sizes(self->salt_spans, (size_t)PyTuple_GET_SIZE(self->salts),
                    "salt") < 0) {
        return -1;
    }
    self->work = self->job.total > 0 ? SIZE_MAX : 0;
    if (Py_IsNone(keys)) {
        return pyc_batch_make_results(self, self->digest_size, Py_None);
    }
    if (pyc_batch_hold_keys(self, keys) < 0) {
        return -1;
    }
    return check_sizes(self->key_spans, self->job.total, "key");
}

static int
as_number(PyObject *object, unsigned long long *number)
{
    *number = PyLong_AsUnsignedLongLong(object);
    return *number == (unsigned long long)-1 && PyErr_Occurred() ? -1 : 0;
}

/* args: passwords, salt, n, r, p, maxmem, dklen, keys or None, whether a thread
 * works on two at once; the numbers are checked. */
PyObject *
pyc_scrypt_batch(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    unsigned long long n, r, p, maxmem, dklen;
    if (pyc_expect_args("scrypt_batch", count, 9) < 0) {
        return NULL;
    }
    pyc_batch *self = pyc_batch_new(module, scrypt_items);
    if (self == NULL || as_number(args[2], &n) < 0 ||
        as_number(args[3], &r) < 0 || as_number(args[4], &p) < 0 ||
        as_number(args[5], &maxmem) < 0 || as_number(args[6], &dklen) < 0) {
        goto fail;
    }
    if (!EVP_PBE_scrypt(NULL, 0, NULL, 0, n, r, p, maxmem, NULL, 0)) {
        pyc_raise_crypto(ERR_peek_last_error(),
                         "Invalid parameter combination for n, r, p, maxmem.");
        goto fail;
    }
    self->scrypt = (pyc_scrypt){n, (size_t)r, (size_t)p};
    self->lanes = args[8] == Py_True ? PYC_SCRYPT_LANES : 1;
    self->digest_size = (size_t)dklen;
    if (hold_secrets(self, args[0], args[1], args[7]) < 0) {
        goto fail;
    }
    return (PyObject *)self;

fail:
    Py_XDECREF(self);
    return NULL;
}

/* args: name, passwords, salt, iterations, dklen or None, keys or None; checked
 * as above. */
PyObject *
pyc_pbkdf2_batch(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    unsigned long long iterations, dklen;
    if (pyc_expect_args("pbkdf2_batch", count, 6) < 0) {
        return NULL;
    }
    pyc_batch *self = pyc_batch_new(module, pbkdf2_items);
    if (self == NULL || pyc_batch_fetch_digest(self, args[0]) < 0 ||
        as_number(args[3], &iterations) < 0) {
        goto fail;
    }
    if (!Py_IsNone(args[4])) {
        if (as_number(args[4], &dklen) < 0) {
            goto fail;
        }
        self->digest_size = (size_t)dklen;
    }
    self->iterations = (int)iterations;
    if (hold_secrets(self, args[1], args[2], args[5]) < 0) {
        goto fail;
    }
    return (PyObject *)self;

fail:
    Py_XDECREF(self);
    return NULL;
}
