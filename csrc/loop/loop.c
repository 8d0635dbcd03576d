/* SPDX-License-Identifier: MIT */
/* The C half of pyconc.Loop: its life and its methods. */
#include "py/compat.h"
#include "loop/cycle.h"
#include "loop/executor.h"
#include "loop/reader.h"
#include "loop/schedule.h"
#include "loop/watchdog.h"

#include <pthread.h>

/* ---- fork -------------------------------------------------------------- */

atomic_uint pyc_fork_generation;

static void
count_fork(void)
{
    atomic_fetch_add(&pyc_fork_generation, 1);
}

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void
watch_forks(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

void
pyc_loop_part(pyc_loop *loop)
{
    unsigned generation = atomic_load(&pyc_fork_generation);
    if (loop->parted_generation != generation) {
        loop->parted_generation = generation;
        loop->saved = NULL; /* of a thread that is not in this process */
        pyc_lock_reset(&loop->watching);
        if (loop->thread != PyThread_get_thread_ident()) {
            loop->thread = 0;
        }
        uv_loop_fork(&loop->uv);
    }
}

/* In a child of fork() only the thread that forked goes on. */
static int
running(pyc_loop *loop)
{
    return loop->thread != 0 && (!pyc_loop_forked(loop) ||
                                 loop->thread == PyThread_get_thread_ident());
}

/* ---- checks ------------------------------------------------------------ */

int
pyc_loop_check_usable(pyc_loop *loop)
{
    int initialized = loop->initialized; /* cleared after `closed` is set */
    if (PYC_UNLIKELY(loop->closed)) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    if (PYC_UNLIKELY(!initialized)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Event loop is not initialized: __init__() of a "
                        "subclass has to call super().__init__()");
        return -1;
    }
    if (PYC_UNLIKELY(pyc_loop_forked(loop))) {
        PyErr_SetString(PyExc_RuntimeError,
                        "This event loop was made before a fork(): the child "
                        "process needs a loop of its own, "
                        "pyconc.new_event_loop()");
        return -1;
    }
    return 0;
}

int
pyc_loop_check_thread(pyc_loop *loop)
{
    if (loop->thread != PyThread_get_thread_ident() && running(loop)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Non-thread-safe operation invoked on an event loop "
                        "other than the current one");
        return -1;
    }
    return 0;
}

int
pyc_loop_check_callback(pyc_loop *self, PyObject *callback, const char *method)
{
    if (PYC_LIKELY(!self->debug)) {
        return 0;
    }
    PyObject *done = PyObject_CallMethod((PyObject *)self, "_check_callback",
                                         "Os", callback, method);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyObject *
pyc_loop_by_name(pyc_loop *self, const char *function, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *bound = PyObject_GetAttrString((PyObject *)self, function);
    if (bound == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(bound, args, (size_t)nargs, kwnames);
    Py_DECREF(bound);
    return result;
}

/* ---- running ----------------------------------------------------------- */

static void
set_thread(pyc_loop *self, unsigned long thread)
{
    pyc_lock_take(&self->watching);
    self->thread = thread;
    pyc_lock_give(&self->watching);
}

static PyObject *
loop_run(pyc_loop *self, PyObject *unused)
{
    if (pyc_loop_check_usable(self) < 0) {
        return NULL;
    }
    if (self->thread != 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "This event loop is already running");
        return NULL;
    }
    set_thread(self, PyThread_get_thread_ident());
    PyObject *result = NULL;
    if (pyc_futures_run_begins(self) == 0 &&
        pyc_watchdog_run_begins(self) == 0) {
        result = pyc_cycle_run(self);
        if (self->watchdog != NULL) {
            pyc_watchdog_rest(self->watchdog);
        }
    }
    Py_CLEAR(self->future_kwargs);
    set_thread(self, 0);
    return result;
}

static PyObject *
loop_stop(pyc_loop *self, PyObject *unused)
{
    self->stopping = 1;
    Py_RETURN_NONE;
}

static PyObject *
loop_poll_next(pyc_loop *self, PyObject *unused)
{
    self->poll_wanted = 1;
    Py_RETURN_NONE;
}

static PyObject *
loop_is_running(pyc_loop *self, PyObject *unused)
{
    return PyBool_FromLong(running(self));
}

static PyObject *
loop_is_closed(pyc_loop *self, PyObject *unused)
{
    return PyBool_FromLong(self->closed);
}

static PyObject *
loop_get_debug(pyc_loop *self, PyObject *unused)
{
    return PyBool_FromLong(self->debug);
}

char *
pyc_loop_scratch(pyc_loop *loop)
{
    if (loop->scratch == NULL) {
        loop->scratch = malloc(PYC_SCRATCH_SIZE);
        if (loop->scratch == NULL) {
            PyErr_NoMemory();
        }
    }
    return loop->scratch;
}

/* ---- life -------------------------------------------------------------- */

static int
loop_init(pyc_loop *self, PyObject *args, PyObject *kwargs)
{
    if (self->initialized) {
        return 0;
    }
    pthread_once(&fork_once, watch_forks);
    self->fork_generation = atomic_load(&pyc_fork_generation);
    self->parted_generation = self->fork_generation;
    int code = uv_loop_init(&self->uv);
    if ((code == UV_EMFILE || code == UV_ENFILE) &&
        uv_backend_fd(&self->uv) >= 0) {
        close(uv_backend_fd(&self->uv)); /* libuv 1.44 leaves it open */
    }
    if (code != 0) {
        self->closed = 1; /* there is nothing for __del__ to complain about */
        errno = -code;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->uv_wanted = 1; /* libuv registers what it needs when it polls */
    self->initialized = 1;
    return 0;
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    pyc_loop *self = (pyc_loop *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    pyc_link_init(&self->flushes);
    pyc_link_init(&self->fresh);
    pyc_link_init(&self->late);
    self->module = Py_XNewRef(PyType_GetModuleByDef(type, &pyc_core_module));
    if (self->module == NULL || pyc_inbox_init(&self->inbox) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->state = pyc_state_of_module(self->module);
    return (PyObject *)self;
}

/* Ends the libuv loop with all its handles; callable twice. */
static void
close_uv(pyc_loop *self)
{
    if (!self->initialized) {
        return;
    }
    self->initialized = 0;
    pyc_watchdog_end(self);
    if (pyc_loop_forked(self)) {
        pyc_loop_part(self);
    }
    Py_CLEAR(self->sock_poll);
    pyc_readers_close(self);
    pyc_watcher_close_own(&self->wake);
    pyc_watcher_close_own(&self->deadline);
    pyc_watcher_clear(self);
    pyc_lock_take(&self->watching);
    pyc_watcher_close_all(self);
    while (uv_loop_close(&self->uv) == UV_EBUSY) {
        uv_run(&self->uv, UV_RUN_NOWAIT);
    }
    pyc_lock_give(&self->watching);
}

static PyObject *
loop_close(pyc_loop *self, PyObject *unused)
{
    if (running(self)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Cannot close a running event loop");
        return NULL;
    }
    uv_mutex_lock(&self->inbox.lock);
    self->closed = 1;
    uv_mutex_unlock(&self->inbox.lock);
    close_uv(self);
    pyc_ready_clear(&self->ready);
    pyc_ready_clear(&self->inbox.items);
    pyc_timers_clear(self);
    Py_RETURN_NONE;
}

static int
visit_ring(pyc_ring *ring, visitproc visit, void *arg)
{
    for (size_t at = ring->head; at != ring->tail; at++) {
        Py_VISIT((PyObject *)ring->items[at & ring->mask].what);
    }
    return 0;
}

static int
loop_traverse(pyc_loop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->default_executor);
    Py_VISIT(self->sock_poll);
    Py_VISIT(self->future_kwargs);
    Py_VISIT(self->failure);
    Py_VISIT(self->context_copy);
    Py_VISIT(self->context_used);
    int stop = visit_ring(&self->ready, visit, arg);
    if (stop == 0) {
        stop = visit_ring(&self->inbox.items, visit, arg);
    }
    for (size_t i = 0; stop == 0 && i < self->timers.len; i++) {
        Py_VISIT((PyObject *)self->timers.items[i].what);
    }
    if (stop == 0) {
        stop = pyc_watcher_traverse(self, visit, arg);
    }
    return stop != 0 ? stop : pyc_readers_traverse(self, visit, arg);
}

static int
loop_clear(pyc_loop *self)
{
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->default_executor);
    Py_CLEAR(self->sock_poll);
    Py_CLEAR(self->future_kwargs);
    Py_CLEAR(self->failure);
    pyc_handle_forget_contexts(self);
    pyc_watcher_clear(self);
    pyc_readers_close(self);
    pyc_ready_clear(&self->ready);
    pyc_ready_clear(&self->inbox.items);
    pyc_timers_clear(self);
    return 0;
}

static void
loop_dealloc(pyc_loop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    close_uv(self);
    loop_clear(self);
    if (self->state != NULL) {
        pyc_handle_free_all(self);
        pyc_inbox_free(&self->inbox);
    }
    while (!pyc_link_alone(&self->flushes)) {
        pyc_link_remove(self->flushes.next);
    }
    free(self->watchers);
    free(self->scratch);
    free(self->tls_out);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

pyc_loop *
pyc_loop_from(pyc_state *state, PyObject *object)
{
    if (!PyObject_TypeCheck(object, state->loop_type)) {
        PyErr_Format(PyExc_TypeError, "expected a pyconc.Loop, not %R", object);
        return NULL;
    }
    return (pyc_loop *)object;
}

/* ---- attributes of asyncio's loop that its Python code uses ------------- */

#define FLAG(field)                                                            \
    static PyObject *get_##field(pyc_loop *self, void *closure)                \
    {                                                                          \
        return PyBool_FromLong(self->field);                                   \
    }                                                                          \
    static int set_##field(pyc_loop *self, PyObject *value, void *closure)     \
    {                                                                          \
        int flag = value == NULL ? 0 : PyObject_IsTrue(value);                 \
        if (flag >= 0) {                                                       \
            self->field = (char)flag;                                          \
        }                                                                      \
        return flag < 0 ? -1 : 0;                                              \
    }
FLAG(debug)
FLAG(stopping)
FLAG(executor_shutdown)
#undef FLAG

static PyObject *
get_closed(pyc_loop *self, void *closure)
{
    return PyBool_FromLong(self->closed);
}

/* BaseEventLoop sets it; only _close() really closes. */
static int
set_closed(pyc_loop *self, PyObject *value, void *closure)
{
    return 0;
}

static PyObject *
get_thread_id(pyc_loop *self, void *closure)
{
    if (!running(self)) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(self->thread);
}

static int
set_thread_id(pyc_loop *self, PyObject *value, void *closure)
{
    return 0;
}

#define OBJECT(field)                                                          \
    static PyObject *get_##field(pyc_loop *self, void *closure)                \
    {                                                                          \
        return Py_NewRef(self->field == NULL ? Py_None : self->field);         \
    }                                                                          \
    static int set_##field(pyc_loop *self, PyObject *value, void *closure)     \
    {                                                                          \
        PyObject *object = value == Py_None ? NULL : Py_XNewRef(value);        \
        Py_XSETREF(self->field, object);                                       \
        return 0;                                                              \
    }
OBJECT(task_factory)
OBJECT(default_executor)
#undef OBJECT

static PyGetSetDef loop_getset[] = {
    {"_debug", (getter)get_debug, (setter)set_debug},
    {"_stopping", (getter)get_stopping, (setter)set_stopping},
    {"_closed", (getter)get_closed, (setter)set_closed},
    {"_thread_id", (getter)get_thread_id, (setter)set_thread_id},
    {"_task_factory", (getter)get_task_factory, (setter)set_task_factory},
    {"_default_executor", (getter)get_default_executor,
     (setter)set_default_executor},
    {"_executor_shutdown_called", (getter)get_executor_shutdown,
     (setter)set_executor_shutdown},
    {NULL},
};

static PyMemberDef loop_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(pyc_loop, weakrefs), READONLY},
    {NULL},
};

static PyObject *
loop_adopt(PyObject *type, PyObject *method)
{
    if (!Py_IS_TYPE(method, &PyMethodDescr_Type) ||
        !PyType_IsSubtype((PyTypeObject *)type, PyDescr_TYPE(method))) {
        return PyErr_Format(PyExc_TypeError,
                            "expected a method of a base of %R, not %R", type,
                            method);
    }
    return PyDescr_NewMethod((PyTypeObject *)type,
                             ((PyMethodDescrObject *)method)->d_method);
}

static PyMethodDef loop_methods[] = {
    {"_adopt", loop_adopt, METH_O | METH_CLASS,
     "_adopt($type, method, /)\n--\n\nA method of this class as one of a "
     "subclass, on whose own objects the interpreter then calls it directly."},
    PYC_SCHEDULE_METHODS
    {"run_in_executor", PYC_FASTCALL(pyc_loop_run_in_executor),
     "run_in_executor($self, /, executor, func, *args)\n--\n\n"
     "Run func(*args) in `executor`, or in the default one when it is "
     "None.\n\nReturns an asyncio.Future; cancelling it keeps the call from "
     "starting. RuntimeError when the loop is closed or the default "
     "executor "
     "has been shut down.\n\nSource: asyncio.loop.run_in_executor"},
    {"_run", (PyCFunction)loop_run, METH_NOARGS,
     "_run($self, /)\n--\n\nThe run cycle, until stop()."},
    {"stop", (PyCFunction)loop_stop, METH_NOARGS,
     "stop($self, /)\n--\n\nEnd run_forever() after the callbacks that are "
     "ready now.\n\nSource: asyncio.loop.stop"},
    {"_poll_next", (PyCFunction)loop_poll_next, METH_NOARGS,
     "_poll_next($self, /)\n--\n\nPoll before more callbacks run: after "
     "something that another descriptor of this loop should see first."},
    {"is_running", (PyCFunction)loop_is_running, METH_NOARGS,
     "is_running($self, /)\n--\n\nTrue inside run_forever().\n\n"
     "Source: asyncio.loop.is_running"},
    {"is_closed", (PyCFunction)loop_is_closed, METH_NOARGS,
     "is_closed($self, /)\n--\n\nTrue after close().\n\n"
     "Source: asyncio.loop.is_closed"},
    {"get_debug", (PyCFunction)loop_get_debug, METH_NOARGS,
     "get_debug($self, /)\n--\n\nTrue in debug mode.\n\n"
     "Source: asyncio.loop.get_debug"},
    {"_close", (PyCFunction)loop_close, METH_NOARGS,
     "_close($self, /)\n--\n\nDrop all callbacks and the libuv loop."},
    PYC_READER_METHODS
    PYC_WATCHDOG_METHODS{NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "The part of an event loop that runs per callback."},
    {Py_tp_new, loop_new},
    {Py_tp_init, loop_init},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {Py_tp_members, loop_members},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "pyconc._core.Loop",
    .basicsize = sizeof(pyc_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = loop_slots,
};

int
pyc_loop_register(PyObject *module, pyc_state *state)
{
    if (pyc_handle_register(module, state) < 0) {
        return -1;
    }
    return pyc_add_type(module, &loop_spec, NULL, &state->loop_type);
}
