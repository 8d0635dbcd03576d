/* SPDX-License-Identifier: MIT */
#include "ipc/module.h"
#include "ipc/arena.h"
#include "ipc/barrier.h"
#include "ipc/bell.h"
#include "ipc/bound.h"
#include "ipc/channel.h"
#include "ipc/guard.h"
#include "ipc/packer.h"
#include "ipc/queue.h"
#include "ipc/condition.h"
#include "ipc/event.h"
#include "ipc/lock.h"
#include "ipc/posix.h"
#include "ipc/rwlock.h"
#include "ipc/segment.h"
#include "ipc/semaphore.h"
#include "ipc/spare.h"
#include "ipc/value.h"
#include "ipc/values.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#ifndef NDEBUG
void
pyc_kill_point(const char *name)
{
    const char *wanted = getenv("PYCONC_KILL_AT");
    if (wanted != NULL && strcmp(wanted, name) == 0) {
        raise(SIGKILL);
    }
}
#endif

int
pyc_ipc_introduce(pyc_ipc *state)
{
    state->pid = (int)getpid();
    if (getrandom(state->bell_name, sizeof(state->bell_name), 0) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static PyObject *
before_fork(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    pyc_guard_before_fork(pyc_ipc_of_module(module));
    Py_RETURN_NONE;
}

static PyObject *
after_fork_in_parent(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    pyc_guard_after_fork_in_parent(pyc_ipc_of_module(module));
    Py_RETURN_NONE;
}

static PyObject *
after_fork_in_child(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (pyc_guard_after_fork_in_child(pyc_ipc_of_module(module)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
adopt(PyObject *module, PyObject *fd)
{
    int number = pyc_as_int(fd);
    if ((number == -1 && PyErr_Occurred()) ||
        pyc_arena_adopt(pyc_ipc_of_module(module), number) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
keep_memory(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (pyc_spare_begin() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"bell", pyc_bell_descriptor, METH_NOARGS,
     "bell($module, /)\n--\n\n"
     "The descriptor that is readable when another process has changed what "
     "was armed."},
    {"rung", pyc_bell_rung, METH_NOARGS,
     "rung($module, /)\n--\n\n"
     "The keys of what was changed, emptying the bell; None when all may be "
     "meant."},
    {"adopt", adopt, METH_O,
     "adopt($module, fd, /)\n--\n\n"
     "Map the arena behind a descriptor that was passed on to this process."},
    {"keep_memory", keep_memory, METH_NOARGS,
     "keep_memory($module, /)\n--\n\n"
     "In a worker: keep some memory from one job to the next, until take() has "
     "found none for a\nwhile."},
    {"before_fork", before_fork, METH_NOARGS, NULL},
    {"after_fork_in_parent", after_fork_in_parent, METH_NOARGS, NULL},
    {"after_fork_in_child", after_fork_in_child, METH_NOARGS, NULL},
    {NULL, NULL}};

/* The attribute of another module. */
static PyObject *
imported(const char *module, const char *name)
{
    PyObject *found = NULL, *from = PyImport_ImportModule(module);
    if (from != NULL) {
        found = PyObject_GetAttrString(from, name);
        Py_DECREF(from);
    }
    return found;
}

static int
add_types(PyObject *module, pyc_ipc *state)
{
#define X(name, spec)                                                          \
    state->name##_type =                                                       \
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);         \
    if (state->name##_type == NULL ||                                          \
        PyModule_AddType(module, state->name##_type) < 0) {                    \
        return -1;                                                             \
    }
    PYC_IPC_TYPES(X)
#undef X
    return 0;
}

/* Calls the module's functions around every fork. */
static int
watch_forks(PyObject *module)
{
    PyObject *result = NULL, *none = PyTuple_New(0);
    PyObject *os_register = imported("os", "register_at_fork");
    PyObject *hooks = Py_BuildValue(
        "{sNsNsN}", "before", PyObject_GetAttrString(module, "before_fork"),
        "after_in_parent",
        PyObject_GetAttrString(module, "after_fork_in_parent"),
        "after_in_child",
        PyObject_GetAttrString(module, "after_fork_in_child"));
    if (none != NULL && os_register != NULL && hooks != NULL) {
        result = PyObject_Call(os_register, none, hooks);
    }
    Py_XDECREF(none);
    Py_XDECREF(os_register);
    Py_XDECREF(hooks);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
exec(PyObject *module)
{
    pyc_ipc *state = pyc_ipc_of_module(module);
    pyc_link_init(&state->arenas);
    pyc_link_init(&state->kept);
    pyc_link_init(&state->queues);
    pthread_mutex_init(&state->guard, NULL);
    state->bell = state->ringer = -1;
    if (pyc_ipc_introduce(state) < 0) {
        return -1;
    }
#define X(field, from, name)                                                   \
    state->field = imported(from, name);                                       \
    if (state->field == NULL) {                                                \
        return -1;                                                             \
    }
    PYC_IPC_IMPORTED(X)
#undef X
#define X(name)                                                                \
    state->str_##name = PyUnicode_InternFromString(#name);                     \
    if (state->str_##name == NULL) {                                           \
        return -1;                                                             \
    }
    PYC_IPC_NAMES(X)
#undef X
    state->OwnerDied = PyErr_NewExceptionWithDoc(
        "pyconc.multiprocessing.OwnerDied",
        "The process that had the lock died with it; the lock is this "
        "process's now.\n\n"
        "What the lock protects may be half changed. `pid` is the dead "
        "process (0: not known),\n`lock` the lock.",
        PyExc_RuntimeError, NULL);
    if (state->OwnerDied == NULL ||
        PyModule_AddObjectRef(module, "OwnerDied", state->OwnerDied) < 0 ||
        add_types(module, state) < 0) {
        return -1;
    }
    if (pyc_quick_with(state, state->lock_type, pyc_lock_enter,
                       pyc_lock_release) < 0 ||
        pyc_quick_with(state, state->rlock_type, pyc_rlock_enter,
                       pyc_rlock_release) < 0) {
        return -1;
    }
    return watch_forks(module);
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    pyc_ipc *state = pyc_ipc_of_module(module);
#define X(field, from, name) Py_VISIT(state->field);
    PYC_IPC_IMPORTED(X)
#undef X
#define X(name, spec) Py_VISIT(state->name##_type);
    PYC_IPC_TYPES(X)
#undef X
    Py_VISIT(state->OwnerDied);
    Py_VISIT(state->reduce);
    for (int i = 0; i < PYC_PACKERS; i++) {
        Py_VISIT(state->packers[i]);
    }
    return 0;
}

static int
clear(PyObject *module)
{
    pyc_ipc *state = pyc_ipc_of_module(module);
#define X(field, from, name) Py_CLEAR(state->field);
    PYC_IPC_IMPORTED(X)
#undef X
#define X(name, spec) Py_CLEAR(state->name##_type);
    PYC_IPC_TYPES(X)
#undef X
#define X(name) Py_CLEAR(state->str_##name);
    PYC_IPC_NAMES(X)
#undef X
    Py_CLEAR(state->OwnerDied);
    Py_CLEAR(state->reduce);
    for (int i = 0; i < PYC_PACKERS; i++) {
        Py_CLEAR(state->packers[i]);
    }
    return 0;
}

/* Objects of the module hold it by their type: none is left here. */
static void
module_free(void *module)
{
    clear(module);
    pyc_ipc *state = pyc_ipc_of_module(module);
    if (state->arenas.next != NULL) {
        pyc_segments_forget(state, true);
        pyc_arenas_free(state);
        pyc_bell_close(state);
        pthread_mutex_destroy(&state->guard);
    }
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec}, PYC_MOD_INTERPRETERS_SLOT PYC_MOD_GIL_SLOT{0, NULL}};

PyModuleDef pyc_ipc_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyconc._ipc",
    .m_doc = "Objects in memory that processes share.",
    .m_size = sizeof(pyc_ipc),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = module_free,
};
