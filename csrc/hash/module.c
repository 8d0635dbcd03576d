/* SPDX-License-Identifier: MIT */
#include "hash/module.h"
#include "crew/module.h"
#include "hash/batch.h"

PyDoc_STRVAR(digest_batch_doc,
             "digest_batch($module, name, buffers, offsets, out, "
             "/)\n--\n\n"
             "A Batch of the digests of buffers.\n\n"
             "With offsets other than None, of the parts "
             "that they cut one buffer into.\nThe result is "
             "a list (out is None), a new object of the type "
             "`out` or `out`,\na writable buffer.");
PyDoc_STRVAR(file_batch_doc,
             "file_batch($module, paths, name, return_errors, /)\n--\n\n"
             "A Batch of the digests of files.\n\n"
             "With return_errors the OSError of an unreadable file takes the "
             "place of its\ndigest; otherwise result() raises the first one.");
PyDoc_STRVAR(
    scrypt_batch_doc,
    "scrypt_batch($module, passwords, salt, n, r, p, maxmem, dklen, "
    "keys, in_pairs, /)\n--\n\n"
    "A Batch of keys derived by scrypt; salt: one, or a list or tuple "
    "of one each.\n\n"
    "With keys other than None the results are whether each is the "
    "one of `keys`; in_pairs:\nwhether each thread works on two passwords at "
    "once.");
PyDoc_STRVAR(pbkdf2_batch_doc,
             "pbkdf2_batch($module, name, passwords, salt, iterations, dklen, "
             "keys, /)\n--\n\n"
             "A Batch of keys derived by PBKDF2; dklen None is the digest's "
             "size, keys as in\nscrypt_batch().");

#define FAST(function) ((PyCFunction)(void (*)(void))(function)), METH_FASTCALL

static PyMethodDef methods[] = {
    {"digest_batch", FAST(pyc_digest_batch), digest_batch_doc},
    {"file_batch", FAST(pyc_file_batch), file_batch_doc},
    {"scrypt_batch", FAST(pyc_scrypt_batch), scrypt_batch_doc},
    {"pbkdf2_batch", FAST(pyc_pbkdf2_batch), pbkdf2_batch_doc},
    PYC_CREW_MODULE_STOP,
    {NULL}};

static int
exec(PyObject *module)
{
    return pyc_crew_module_fill(module, &pyc_batch_spec, "pyconc._hash.Bell");
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec}, PYC_MOD_INTERPRETERS_SLOT PYC_MOD_GIL_SLOT{0, NULL}};

PyModuleDef pyc_hash_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyconc._hash",
    .m_doc = "Batches of digests and derived keys, in threads without the GIL.",
    .m_size = sizeof(pyc_crew_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = pyc_crew_module_traverse,
    .m_clear = pyc_crew_module_clear,
    .m_free = pyc_crew_module_free,
};
