/* SPDX-License-Identifier: MIT */
#include "sync/watch.h"

struct pyc_watched {
    pyc_link link;
    pyc_wait *wait;
    uintptr_t thread;
};

static pyc_watched *
find(pyc_state *module, uintptr_t thread)
{
    for (pyc_link *at = module->watched.next; at != &module->watched;
         at = at->next) {
        pyc_watched *found = pyc_container(at, pyc_watched, link);
        if (found->thread == thread) {
            return found;
        }
    }
    return NULL;
}

static pyc_watched *
next_of(pyc_state *module, const pyc_watched *self)
{
    pyc_wait *wait = self->wait;
    uintptr_t holder = wait->operation->holder(wait->subject);
    return holder == 0 ? NULL : find(module, holder);
}

/* How many threads are in the cycle that begins and ends with `self`; 0 when
 * there is none. */
static Py_ssize_t
cycle_length(pyc_state *module, pyc_watched *self)
{
    Py_ssize_t length = 1, most = 0;
    for (pyc_link *at = module->watched.next; at != &module->watched;
         at = at->next) {
        most++;
    }
    pyc_watched *at = next_of(module, self);
    while (at != NULL && at != self && length < most) {
        at = next_of(module, at);
        length++;
    }
    return at == self ? length : 0;
}

/* What is reported: thread and lock by turns. References are taken under the
 * lock, objects made after. */
static PyObject **
collect(pyc_state *module, pyc_watched *self, Py_ssize_t length,
        uintptr_t *threads)
{
    PyObject **locks = PyMem_RawMalloc((size_t)length * sizeof(*locks));
    pyc_watched *at = self;
    for (Py_ssize_t i = 0; locks != NULL && at != NULL && i < length; i++) {
        threads[i] = at->thread;
        locks[i] = Py_NewRef(at->wait->subject);
        at = next_of(module, at);
    }
    return locks;
}

static void
report(pyc_state *module, const uintptr_t *threads, PyObject **locks,
       Py_ssize_t length)
{
    PyObject *told = NULL, *callback = Py_XNewRef(module->watch_report);
    PyObject *cycle = PyList_New(0);
    for (Py_ssize_t i = 0; cycle != NULL && i < length; i++) {
        PyObject *pair =
            Py_BuildValue("kO", (unsigned long)threads[i], locks[i]);
        if (pair == NULL || PyList_Append(cycle, pair) < 0) {
            Py_CLEAR(cycle);
        }
        Py_XDECREF(pair);
    }
    if (cycle != NULL && callback != NULL) {
        told = PyObject_CallOneArg(callback, cycle);
    }
    if (told == NULL && callback != NULL) {
        PyErr_WriteUnraisable(callback);
    }
    Py_XDECREF(told);
    Py_XDECREF(callback);
    Py_XDECREF(cycle);
}

pyc_watched *
pyc_watch_begin(pyc_wait *wait)
{
    pyc_state *module = wait->module;
    pyc_watched *self = PyMem_RawMalloc(sizeof(*self));
    if (self == NULL) {
        return NULL;
    }
    self->wait = wait;
    self->thread = PyThread_get_thread_ident();
    uintptr_t *threads = NULL;
    PyObject **locks = NULL;
    pyc_lock_take(&module->watch_guard);
    pyc_link_insert(&module->watched, &self->link);
    Py_ssize_t length = cycle_length(module, self);
    if (length > 0) {
        threads = PyMem_RawMalloc((size_t)length * sizeof(*threads));
        locks = threads == NULL ? NULL : collect(module, self, length, threads);
    }
    pyc_lock_give(&module->watch_guard);
    if (locks != NULL) {
        report(module, threads, locks, length);
        for (Py_ssize_t i = 0; i < length; i++) {
            Py_DECREF(locks[i]);
        }
    }
    PyMem_RawFree(locks);
    PyMem_RawFree(threads);
    return self;
}

void
pyc_watch_end(pyc_watched *self)
{
    pyc_state *module = self->wait->module;
    pyc_lock_take(&module->watch_guard);
    pyc_link_remove(&self->link);
    pyc_lock_give(&module->watch_guard);
    PyMem_RawFree(self);
}

static PyObject *
watch_locks(PyObject *module, PyObject *callback)
{
    pyc_state *state = pyc_state_of_module(module);
    PyObject *old = state->watch_report;
    state->watch_report = callback == Py_None ? NULL : Py_NewRef(callback);
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyObject *
forget_watched(PyObject *module, PyObject *Py_UNUSED(unused))
{
    pyc_state *state = pyc_state_of_module(module);
    pyc_lock_reset(&state->watch_guard);
    pyc_link_init(&state->watched);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"watch_locks", watch_locks, METH_O,
     "watch_locks(callback, /)\n--\n\n"
     "callback([(thread, lock it waits for), ...]) for each cycle; None: off."},
    {"forget_watched", forget_watched, METH_NOARGS,
     "In a forked child: nobody waits."},
    {NULL},
};

int
pyc_watch_register(PyObject *module, pyc_state *state)
{
    pyc_link_init(&state->watched);
    return PyModule_AddFunctions(module, functions);
}
