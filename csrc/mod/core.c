/* SPDX-License-Identifier: MIT */
/* pyconc._core: the module and its state, nothing else. */
#include "py/asyncio.h"
#include "py/compat.h"
#include "py/context.h"
#include "py/state.h"
#include "sync/sync.h"
#include "pool/pool.h"
#include "loop/loop.h"
#include "net/net.h"
#include "proc/proc.h"

/* Leaves what is there. */
static int
import_name(PyObject **slot, const char *module_name, const char *name)
{
    if (*slot != NULL) {
        return 0;
    }
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return -1;
    }
    *slot = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return *slot == NULL ? -1 : 0;
}

static int
fill_state(pyc_state *state)
{
#define X(field, module, name)                                                 \
    if (import_name(&state->field, module, name) < 0) {                        \
        return -1;                                                             \
    }
    PYC_STATE_IMPORTED(X)
#undef X
#define X(name)                                                                \
    state->str_##name = PyUnicode_InternFromString(#name);                     \
    if (state->str_##name == NULL) {                                           \
        return -1;                                                             \
    }
    PYC_STATE_NAMES(X)
#undef X
    state->no_args = PyTuple_New(0);
    state->kwnames_loop = PyTuple_Pack(1, state->str_loop);
    state->kwnames_context = PyTuple_Pack(1, state->str_context);
    if (state->no_args == NULL || state->kwnames_loop == NULL ||
        state->kwnames_context == NULL) {
        return -1;
    }
    state->context_known = pyc_context_is_known();
    return state->context_known < 0 ? -1 : 0;
}

static int
core_exec(PyObject *module)
{
    pyc_state *state = pyc_state_of_module(module);
    if (fill_state(state) < 0 || pyc_sync_register(module, state) < 0 ||
        pyc_pool_register(module, state) < 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "libuv_version",
                                      uv_version_string());
}

static int
import_for_loop(pyc_state *state)
{
#define X(field, module, name)                                                 \
    if (import_name(&state->field, module, name) < 0) {                        \
        return -1;                                                             \
    }
    PYC_STATE_LOOP_IMPORTED(X)
#undef X
    if (!pyc_asyncio_is_there(state)) {
        PyErr_SetString(PyExc_ImportError, "asyncio is imported in part only");
        return -1;
    }
    return 0;
}

/* clang-format off */
PyDoc_STRVAR(add_loop_doc,
"add_loop($module, /)\n--\n\n"
"Adds Loop, the transports and spawn() to this module, unless they are there.\n"
"They rest on asyncio, which is imported. To be called by one thread at a\n"
"time, as while pyconc.loop is imported. Raises ImportError.");
/* clang-format on */

static PyObject *
add_loop(PyObject *module, PyObject *Py_UNUSED(unused))
{
    pyc_state *state = pyc_state_of_module(module);
    if (!state->has_loop) {
        if (import_for_loop(state) < 0 ||
            pyc_loop_register(module, state) < 0 ||
            pyc_net_register(module, state) < 0 ||
            pyc_proc_register(module, state) < 0) {
            return NULL;
        }
        state->has_loop = 1;
    }
    Py_RETURN_NONE;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    pyc_state *state = pyc_state_of_module(module);
#define X(field, module, name) Py_VISIT(state->field);
    PYC_STATE_IMPORTED(X)
    PYC_STATE_LOOP_IMPORTED(X)
#undef X
#define X(field, name) Py_VISIT(state->field);
    PYC_STATE_ASYNCIO(X)
#undef X
#define X(field) Py_VISIT(state->field);
    PYC_STATE_TYPES(X)
#undef X
    Py_VISIT(state->mailboxes);
    Py_VISIT(state->queue_ShutDown);
    Py_VISIT(state->watch_report);
    Py_VISIT(state->data_received);
    Py_VISIT(state->adopt_streams);
    Py_VISIT(state->source_of);
    Py_VISIT(state->tls_again);
    Py_VISIT(state->tls_error);
    Py_VISIT(state->tls_object);
    Py_VISIT(state->tls_memory_bio);
    return 0;
}

static int
core_clear(PyObject *module)
{
    pyc_state *state = pyc_state_of_module(module);
    atomic_store(&state->asyncio_is_there, 0);
    Py_CLEAR(state->no_args);
#define X(field, module, name) Py_CLEAR(state->field);
    PYC_STATE_IMPORTED(X)
    PYC_STATE_LOOP_IMPORTED(X)
#undef X
#define X(field, name) Py_CLEAR(state->field);
    PYC_STATE_ASYNCIO(X)
#undef X
#define X(name) Py_CLEAR(state->str_##name);
    PYC_STATE_NAMES(X)
#undef X
#define X(field) Py_CLEAR(state->field);
    PYC_STATE_TYPES(X)
#undef X
    Py_CLEAR(state->kwnames_loop);
    Py_CLEAR(state->kwnames_context);
    Py_CLEAR(state->kwnames_seen);
    Py_CLEAR(state->mailboxes);
    Py_CLEAR(state->queue_ShutDown);
    Py_CLEAR(state->watch_report);
    Py_CLEAR(state->data_received);
    Py_CLEAR(state->adopt_streams);
    Py_CLEAR(state->source_of);
    Py_CLEAR(state->tls_again);
    Py_CLEAR(state->tls_error);
    Py_CLEAR(state->tls_object);
    Py_CLEAR(state->tls_memory_bio);
    return 0;
}

static void
core_free(void *module)
{
    core_clear((PyObject *)module);
}

static PyMethodDef core_methods[] = {
    {"add_loop", add_loop, METH_NOARGS, add_loop_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
    PYC_MOD_INTERPRETERS_SLOT
    PYC_MOD_GIL_SLOT
    {0, NULL},
};

struct PyModuleDef pyc_core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyconc._core",
    .m_doc = "The parts of pyconc that run per callback, packet and job.",
    .m_size = sizeof(pyc_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&pyc_core_module);
}
