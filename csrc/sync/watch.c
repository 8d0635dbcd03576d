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

/* One thread of a cycle and the lock it waits for. */
typedef struct {
    uintptr_t thread;
    PyObject *lock;
} place;

/* References are taken under the guard, objects made after. How many were
 * found: fewer than `length` when a lock has found another holder meanwhile. */
static Py_ssize_t
collect(pyc_state *module, pyc_watched *self, Py_ssize_t length, place *places)
{
    Py_ssize_t count = 0;
    for (pyc_watched *at = self; at != NULL && count < length; count++) {
        places[count] = (place){at->thread, Py_NewRef(at->wait->subject)};
        at = next_of(module, at);
    }
    return count;
}

static void
report(PyObject *callback, const place *places, Py_ssize_t length)
{
    PyObject *told = NULL, *cycle = PyList_New(0);
    for (Py_ssize_t i = 0; cycle != NULL && i < length; i++) {
        PyObject *pair = Py_BuildValue("kO", (unsigned long)places[i].thread,
                                       places[i].lock);
        if (pair == NULL || PyList_Append(cycle, pair) < 0) {
            Py_CLEAR(cycle);
        }
        Py_XDECREF(pair);
    }
    if (cycle != NULL) {
        told = PyObject_CallOneArg(callback, cycle);
    }
    if (told == NULL) {
        PyErr_WriteUnraisable(callback);
    }
    Py_XDECREF(told);
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
    place *places = NULL;
    Py_ssize_t count = 0;
    pyc_lock_take(&module->watch_guard);
    pyc_link_insert(&module->watched, &self->link);
    PyObject *callback = Py_XNewRef(module->watch_report);
    Py_ssize_t length = cycle_length(module, self);
    if (length > 0) {
        places = PyMem_RawMalloc((size_t)length * sizeof(*places));
    }
    if (places != NULL) {
        count = collect(module, self, length, places);
    }
    pyc_lock_give(&module->watch_guard);
    if (count > 0 && count == length && callback != NULL) {
        report(callback, places, length);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_DECREF(places[i].lock);
    }
    PyMem_RawFree(places);
    Py_XDECREF(callback);
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
    pyc_lock_take(&state->watch_guard);
    PyObject *old = state->watch_report;
    pyc_store(state->watch_report,
              callback == Py_None ? NULL : Py_NewRef(callback));
    pyc_lock_give(&state->watch_guard);
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
