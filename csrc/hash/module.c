/* SPDX-License-Identifier: MIT */
#include "hash/module.h"
#include "crew/bell.h"
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
PyDoc_STRVAR(scrypt_batch_doc,
             "scrypt_batch($module, passwords, salt, n, r, p, maxmem, dklen, "
             "keys, /)\n--\n\n"
             "A Batch of keys derived by scrypt; salt: one, or a list or tuple "
             "of one each.\n\n"
             "With keys other than None the results are whether each is the "
             "one of `keys`.");
PyDoc_STRVAR(pbkdf2_batch_doc,
             "pbkdf2_batch($module, name, passwords, salt, iterations, dklen, "
             "keys, /)\n--\n\n"
             "A Batch of keys derived by PBKDF2; dklen None is the digest's "
             "size, keys as in\nscrypt_batch().");
PyDoc_STRVAR(stop_doc, "stop($module, /)\n--\n\n"
                       "Cancel all batches and end the threads, for good: for "
                       "the interpreter's exit.");

static PyObject *
stop(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    pyc_crew_state *state = PyModule_GetState(module);
    pyc_job_stop_all(&state->crew);
    Py_RETURN_NONE;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function)), METH_FASTCALL

static PyMethodDef methods[] = {
    {"digest_batch", FAST(pyc_digest_batch), digest_batch_doc},
    {"file_batch", FAST(pyc_file_batch), file_batch_doc},
    {"scrypt_batch", FAST(pyc_scrypt_batch), scrypt_batch_doc},
    {"pbkdf2_batch", FAST(pyc_pbkdf2_batch), pbkdf2_batch_doc},
    {"stop", stop, METH_NOARGS, stop_doc},
    {NULL}};

static int
exec(PyObject *module)
{
    pyc_crew_state *state = PyModule_GetState(module);
    state->job_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &pyc_batch_spec, NULL);
    if (state->job_type == NULL ||
        PyModule_AddType(module, state->job_type) < 0) {
        return -1;
    }
    return pyc_bell_add(module, "pyconc._hash.Bell");
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    pyc_crew_state *state = PyModule_GetState(module);
    Py_VISIT(state->job_type);
    return 0;
}

static int
clear(PyObject *module)
{
    pyc_crew_state *state = PyModule_GetState(module);
    Py_CLEAR(state->job_type);
    return 0;
}

static void
free_module(void *module)
{
    clear(module);
    pyc_crew_state *state = PyModule_GetState(module);
    pyc_crew *crew = atomic_load(&state->crew);
    if (crew != NULL && !pyc_crew_is_orphan(crew)) {
        pyc_crew_free(crew);
    }
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
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = free_module,
};
