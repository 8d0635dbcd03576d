/* SPDX-License-Identifier: MIT */
/* Digests of buffers. */
#include "hash/batch.h"
#include <errno.h>
#include <openssl/err.h>

/* Between two looks at whether the batch was cancelled. */
#define STEP ((size_t)1 << 20)

/* hashlib's names that libcrypto knows by another one than with '-' for '_'. */
static const char *const renamed[][2] = {
    {"blake2b", "BLAKE2B-512"},
    {"blake2s", "BLAKE2S-256"},
};

static int
name_for_libcrypto(const char *name, char *buffer, size_t size)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(renamed); i++) {
        if (strcmp(name, renamed[i][0]) == 0) {
            name = renamed[i][1];
        }
    }
    if (strlen(name) >= size) {
        return -1;
    }
    do {
        *buffer++ = *name == '_' ? '-' : *name;
    } while (*name++ != '\0');
    return 0;
}

int
pyc_batch_fetch_digest(pyc_batch *self, PyObject *name)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "name must be a string, not '%.100s'",
                     Py_TYPE(name)->tp_name);
        return -1;
    }
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(name, &size);
    char known[64];
    if (text == NULL) {
        return -1;
    }
    if ((size_t)size == strlen(text) &&
        name_for_libcrypto(text, known, sizeof(known)) == 0) {
        self->md = EVP_MD_fetch(NULL, known, NULL);
        ERR_clear_error();
    }
    if (self->md == NULL) {
        PyErr_Format(PyExc_ValueError, "unsupported hash type %U", name);
        return -1;
    }
    bool varies = EVP_MD_get_flags(self->md) & EVP_MD_FLAG_XOF;
    int digest_size = EVP_MD_get_size(self->md);
    if (varies || digest_size <= 0) {
        PyErr_Format(PyExc_ValueError,
                     "unsupported hash type %U: its digests %s", name,
                     varies ? "have no fixed size" : "are empty");
        return -1;
    }
    self->low = pyc_low_find(self->md);
    self->digest_size = (size_t)digest_size;
    return 0;
}

static pyc_fault
digest_item(pyc_batch *self, size_t index, size_t Py_UNUSED(count),
            pyc_scratch *scratch)
{
    const unsigned char *data = self->inputs[index].data;
    size_t left = self->inputs[index].size;
    if (self->low != NULL && left <= STEP) {
        return pyc_low_digest(self->low, data, left,
                              pyc_batch_result(self, index))
                   ? 0
                   : pyc_crypto_fault();
    }
    if (scratch->context == NULL) {
        scratch->context = EVP_MD_CTX_new();
    }
    if (scratch->context == NULL) {
        return PYC_FAULT_SYSTEM | ENOMEM;
    }
    if (!EVP_DigestInit_ex2(scratch->context, self->md, NULL)) {
        return pyc_crypto_fault();
    }
    for (; left > STEP; data += STEP, left -= STEP) {
        if (pyc_crew_is_cut(&self->job, index)) {
            return PYC_FAULT_STOPPED;
        }
        if (!EVP_DigestUpdate(scratch->context, data, STEP)) {
            return pyc_crypto_fault();
        }
    }
    if (!EVP_DigestUpdate(scratch->context, data, left) ||
        !EVP_DigestFinal_ex(scratch->context, pyc_batch_result(self, index),
                            NULL)) {
        return pyc_crypto_fault();
    }
    return 0;
}

PyObject *
pyc_digest_batch(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (pyc_expect_args("digest_batch", count, 4) < 0) {
        return NULL;
    }
    pyc_batch *self = pyc_batch_new(module, digest_item);
    if (self == NULL || pyc_batch_fetch_digest(self, args[0]) < 0) {
        goto fail;
    }
    int rc = Py_IsNone(args[2])
                 ? pyc_batch_hold_inputs(self, args[1], "buffers")
                 : pyc_batch_hold_parts(self, args[1], args[2]);
    if (rc < 0 ||
        pyc_batch_make_results(self, self->digest_size, args[3]) < 0) {
        goto fail;
    }
    return (PyObject *)self;

fail:
    Py_XDECREF(self);
    return NULL;
}
