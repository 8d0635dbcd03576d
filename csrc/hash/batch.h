/* SPDX-License-Identifier: MIT */
/* Batch: inputs that are held, results made beforehand, and the job that
 * fills the second from the first without the GIL. */
#ifndef PYC_HASH_BATCH_H
#define PYC_HASH_BATCH_H

#include "py/compat.h"
#include "py/crew.h"
#include "hash/low.h"
#include "hash/scrypt.h"

#define PYC_BLOCK_SIZE ((size_t)256 << 10)
/* What two threads are not quicker at than the calling one, which has to start
 * them. */
#define PYC_SERIAL_WORK ((size_t)512 << 10)

/* What a worker keeps from one item to the next; made by who needs it. The
 * memory only until its turn at the batch is over. */
typedef struct {
    EVP_MD_CTX *context;
    unsigned char *block; /* PYC_BLOCK_SIZE bytes */
    size_t ahead;         /* files before this one have been asked for */
    void *memory;         /* what scrypt mixes in, with secrets in it */
    size_t memory_size;
} pyc_scratch;

/* Kinds of pyc_fault, with their code below them. */
#define PYC_FAULT_STOPPED ((pyc_fault)1 << 40) /* the batch was cut short */
#define PYC_FAULT_SYSTEM ((pyc_fault)2 << 40)  /* + errno */
#define PYC_FAULT_CRYPTO ((pyc_fault)3 << 40)  /* + a code of libcrypto */
#define PYC_FAULT_KIND(fault) ((fault) & ~(PYC_FAULT_STOPPED - 1))
#define PYC_FAULT_CODE(fault) ((unsigned long)(uint32_t)(fault))

typedef struct pyc_batch pyc_batch;
/* Works on `count` items at once, from 1 to self->lanes of them. */
typedef pyc_fault (*pyc_batch_items)(pyc_batch *, size_t index, size_t count,
                                     pyc_scratch *);
#define PYC_BATCH_LANES PYC_SCRYPT_LANES

/* Begins as pyc_crew_object does. */
struct pyc_batch {
    PyObject_HEAD
    pyc_crew_job job;
    pyc_batch_items items;
    size_t lanes; /* how many items at once */
    pyc_crew_state *state;
    PyObject *owners; /* tuple: what the inputs point into */
    PyObject *salts;  /* tuple: the same for the salts */
    PyObject *keys;   /* tuple: the same for the keys */
    PyObject *paths;  /* tuple: the paths as they were given */
    PyObject *results;
    Py_buffer *views;
    size_t view_count;
    pyc_span *inputs;
    pyc_span *salt_spans; /* one each, or a single one */
    pyc_span *key_spans;  /* what the results must be; NULL: there are none */
    size_t work;          /* about how many bytes there are to hash */
    bool at_once; /* what would have to be waited for is left to threads */
    atomic_bool started;
    unsigned char *out; /* where all results go, one after the other; NULL:
                           each is a bytes object in the list */

    EVP_MD *md;
    const pyc_low_hash *low; /* or NULL */
    size_t digest_size;
    pyc_scrypt scrypt;
    int iterations; /* pbkdf2 */
    char
        *matches; /* whether each result is its key; NULL: they are not asked */
    int *errnos;  /* files whose errors are results: one each, 0 for none */
};

extern PyType_Spec pyc_batch_spec;

/* A batch without inputs for that kind of item, one at a time, or NULL. */
pyc_batch *pyc_batch_new(PyObject *module, pyc_batch_items items);
/* Frees the memory of a scratch, which tells of the passwords. */
void pyc_forget_memory(pyc_scratch *scratch);
/* 0, or -1 with TypeError: `items` is one item where many are expected. */
int pyc_expect_many(PyObject *items, const char *what);
/* Take the buffers of an iterable; `what` names it in errors. 0 or -1. */
int pyc_batch_hold_inputs(pyc_batch *self, PyObject *buffers, const char *what);
/* The same for the parts of one buffer: part i goes from offsets[i] to
 * offsets[i + 1], 32-bit or 64-bit integers in a buffer of their own. */
int pyc_batch_hold_parts(pyc_batch *self, PyObject *buffer, PyObject *offsets);
/* The same for salts: one buffer, or a list or tuple of one each. */
int pyc_batch_hold_salts(pyc_batch *self, PyObject *salt);
/* The same for the keys to compare with: an iterable of one each. */
int pyc_batch_hold_keys(pyc_batch *self, PyObject *keys);
/* Makes room for a result of that many bytes for each input: in a list of
 * bytes objects (out is None), in a new bytes or bytearray object (out is the
 * type) or in the writable buffer `out`. 0 or -1. */
int pyc_batch_make_results(pyc_batch *self, size_t size, PyObject *out);

/* Whether threads would take longer than the calling one to read the files, if
 * these are in memory. */
bool pyc_files_are_small(const pyc_batch *self);

/* 0, or -1 with a TypeError unless a function got that many arguments. */
int pyc_expect_args(const char *function, Py_ssize_t count, Py_ssize_t wanted);
/* Raises what hashlib raises for a code of libcrypto; returns NULL. */
PyObject *pyc_raise_crypto(unsigned long code, const char *otherwise);
/* The code of the newest error of libcrypto in this thread, as a fault, with
 * the thread's errors cleared. */
pyc_fault pyc_crypto_fault(void);

static inline unsigned char *
pyc_batch_result(pyc_batch *self, size_t index)
{
    if (self->out != NULL) {
        return self->out + index * self->digest_size;
    }
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
