/* SPDX-License-Identifier: MIT */
/* Batch: inputs that are held, results made beforehand, and the job that
 * fills the second from the first without the GIL. */
#ifndef PYC_HASH_BATCH_H
#define PYC_HASH_BATCH_H

#include "py/compat.h"
#include "hash/crew.h"
#include "hash/low.h"

typedef struct {
    PyTypeObject *batch_type;
    _Atomic(pyc_crew *) crew; /* made when it is first needed */
} pyc_hash_state;

typedef struct {
    const void *data;
    size_t size;
} pyc_span;

typedef struct {
    PyObject_HEAD
    pyc_job job;
    pyc_hash_state *state;
    PyObject *owners; /* tuple: what the inputs point into */
    PyObject *salts;  /* tuple: the same for the salts */
    PyObject *paths;  /* tuple: the paths as they were given */
    PyObject *results;
    Py_buffer *views;
    size_t view_count;
    pyc_span *inputs;
    pyc_span *salt_spans; /* one each, or a single one */
    size_t salt_count;
    size_t work; /* about how many bytes there are to hash */
    atomic_bool started;

    EVP_MD *md;
    pyc_low_digest low; /* or NULL */
    size_t digest_size;
    unsigned long long n, r, p, maxmem; /* scrypt */
    int iterations;                     /* pbkdf2 */
    int *errnos; /* files whose errors are results: one each, 0 for none */
} pyc_batch;

extern PyType_Spec pyc_batch_spec;

/* A batch without inputs for that kind of item, or NULL. */
pyc_batch *pyc_batch_new(PyObject *module,
                         pyc_fault (*item)(pyc_job *, size_t, pyc_scratch *));
/* 0, or -1 with TypeError: `items` is one item where many are expected. */
int pyc_expect_many(PyObject *items, const char *what);
/* Take the buffers of an iterable; `what` names it in errors. 0 or -1. */
int pyc_batch_hold_inputs(pyc_batch *self, PyObject *buffers, const char *what);
/* The same for salts: one buffer, or a list or tuple of one each. */
int pyc_batch_hold_salts(pyc_batch *self, PyObject *salt);
/* Makes a result of that many bytes for each input. 0 or -1. */
int pyc_batch_make_results(pyc_batch *self, size_t size);

/* 0, or -1 with a TypeError unless a function got that many arguments. */
int pyc_expect_args(const char *function, Py_ssize_t count, Py_ssize_t wanted);
/* Raises what hashlib raises for a code of libcrypto; returns NULL. */
PyObject *pyc_raise_crypto(unsigned long code, const char *otherwise);
/* The code of the newest error of libcrypto in this thread, as a fault, with
 * the thread's errors cleared. */
pyc_fault pyc_crypto_fault(void);

static inline pyc_batch *
pyc_batch_of(pyc_job *job)
{
    return (pyc_batch *)((char *)job - offsetof(pyc_batch, job));
}

static inline unsigned char *
pyc_batch_result(pyc_batch *self, size_t index)
{
    return (unsigned char *)PyBytes_AS_STRING(
        PyList_GET_ITEM(self->results, (Py_ssize_t)index));
}

/* The digest that hashlib calls `name`, into self->md. 0 or -1. */
int pyc_batch_fetch_digest(pyc_batch *self, PyObject *name);

/* The factories, as methods of the module. */
PyObject *pyc_digest_batch(PyObject *module, PyObject *const *args,
                           Py_ssize_t count);
PyObject *pyc_file_batch(PyObject *module, PyObject *const *args,
                         Py_ssize_t count);
PyObject *pyc_scrypt_batch(PyObject *module, PyObject *const *args,
                           Py_ssize_t count);
PyObject *pyc_pbkdf2_batch(PyObject *module, PyObject *const *args,
                           Py_ssize_t count);

#endif
