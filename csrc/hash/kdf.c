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

typedef int (*derivation)(pyc_batch *, size_t index, unsigned char *key,
                          size_t size);

static int
derive_scrypt(pyc_batch *self, size_t index, unsigned char *key, size_t size)
{
    const pyc_span *password = &self->inputs[index];
    const pyc_span *salt = salt_of(self, index);
    return EVP_PBE_scrypt(password->data, password->size, salt->data,
                          salt->size, self->n, self->r, self->p, self->maxmem,
                          key, size);
}

static int
derive_pbkdf2(pyc_batch *self, size_t index, unsigned char *key, size_t size)
{
    const pyc_span *password = &self->inputs[index];
    const pyc_span *salt = salt_of(self, index);
    return PKCS5_PBKDF2_HMAC(password->data, (int)password->size, salt->data,
                             (int)salt->size, self->iterations, self->md,
                             (int)size, key);
}

/* Derives the key and compares it with the one it must be, in a time that
 * does not tell where they differ. */
static pyc_fault
verify(pyc_batch *self, size_t index, derivation derive)
{
    const pyc_span *wanted = &self->key_spans[index];
    unsigned char *key = malloc(wanted->size);
    if (key == NULL) {
        return PYC_FAULT_SYSTEM | ENOMEM;
    }
    int ok = derive(self, index, key, wanted->size);
    if (ok) {
        self->matches[index] =
            CRYPTO_memcmp(key, wanted->data, wanted->size) == 0;
    }
    OPENSSL_cleanse(key, wanted->size);
    free(key);
    return ok ? 0 : pyc_crypto_fault();
}

static pyc_fault
derive_item(pyc_batch *self, size_t index, derivation derive)
{
    if (self->matches != NULL) {
        return verify(self, index, derive);
    }
    int ok =
        derive(self, index, pyc_batch_result(self, index), self->digest_size);
    return ok ? 0 : pyc_crypto_fault();
}

static pyc_fault
scrypt_item(pyc_batch *self, size_t index, pyc_scratch *Py_UNUSED(scratch))
{
    return derive_item(self, index, derive_scrypt);
}

static pyc_fault
pbkdf2_item(pyc_batch *self, size_t index, pyc_scratch *Py_UNUSED(scratch))
{
    return derive_item(self, index, derive_pbkdf2);
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

/* args: passwords, salt, n, r, p, maxmem, dklen, keys or None; the numbers are
 * checked. */
PyObject *
pyc_scrypt_batch(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    unsigned long long dklen;
    if (pyc_expect_args("scrypt_batch", count, 8) < 0) {
        return NULL;
    }
    pyc_batch *self = pyc_batch_new(module, scrypt_item);
    if (self == NULL || as_number(args[2], &self->n) < 0 ||
        as_number(args[3], &self->r) < 0 || as_number(args[4], &self->p) < 0 ||
        as_number(args[5], &self->maxmem) < 0 ||
        as_number(args[6], &dklen) < 0) {
        goto fail;
    }
    if (!EVP_PBE_scrypt(NULL, 0, NULL, 0, self->n, self->r, self->p,
                        self->maxmem, NULL, 0)) {
        pyc_raise_crypto(ERR_peek_last_error(),
                         "Invalid parameter combination for n, r, p, maxmem.");
        goto fail;
    }
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
    pyc_batch *self = pyc_batch_new(module, pbkdf2_item);
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
