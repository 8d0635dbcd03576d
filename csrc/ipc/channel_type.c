/* SPDX-License-Identifier: MIT */
/* The methods of channels. */
#include "ipc/channel.h"

#include "ipc/sleep.h"
#include "py/arguments.h"

static pyc_channel *
as_channel(PyObject *self)
{
    return (pyc_channel *)self;
}

int
pyc_channel_check_parent(pyc_channel *self)
{
    if (PYC_LIKELY(self->pid == self->state->pid)) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "this channel is another process's: here one can only "
                    "take() and reply()");
    return -1;
}

int
pyc_channel_worker_of(pyc_channel *self, PyObject *object, uint32_t *worker)
{
    Py_ssize_t number = PyNumber_AsSsize_t(object, PyExc_OverflowError);
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (number < 0 || number >= (Py_ssize_t)self->board->workers) {
        PyErr_Format(PyExc_ValueError, "there is no worker %zd of %u", number,
                     (unsigned)self->board->workers);
        return -1;
    }
    *worker = (uint32_t)number;
    return 0;
}

static PyObject *
channel_send(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    pyc_channel *self = as_channel(object);
    if (nargs != 4) {
        PyErr_Format(PyExc_TypeError,
                     "send() takes exactly 4 arguments (%zd given)", nargs);
        return NULL;
    }
    pyc_call call = {args[0], args[1], args[2], args[3]};
    int rc =
        pyc_channel_check_parent(self) < 0 ? -1 : pyc_channel_send(self, &call);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
channel_collect(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Py_ssize_t ended = pyc_channel_check_parent(as_channel(object)) < 0
                           ? -1
                           : pyc_channel_collect(as_channel(object), true);
    return ended < 0 ? NULL : PyLong_FromSsize_t(ended);
}

static PyObject *
channel_watch(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
              PyObject *kwnames)
{
    static const pyc_signature signature = {"watch", {"timeout", NULL}, 0};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (pyc_channel_check_parent(as_channel(object)) < 0 ||
        pyc_arguments(&signature, args, nargs, kwnames, &timeout) < 0 ||
        pyc_sleep_deadline(NULL, timeout, &deadline) < 0) {
        return NULL;
    }
    int rc = pyc_channel_watch(as_channel(object), deadline);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *
channel_wake(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    pyc_channel_wake(as_channel(object));
    Py_RETURN_NONE;
}

static PyObject *
channel_revoke(PyObject *object, PyObject *future)
{
    pyc_channel *self = as_channel(object);
    pyc_call call = {0};
    if (pyc_channel_check_parent(self) < 0) {
        return NULL;
    }
    uint64_t task = pyc_channel_find(self, future);
    bool revoked = task != 0 && pyc_channel_revoke(self, task, &call);
    pyc_call_clear(&call);
    return PyBool_FromLong(revoked);
}

static PyObject *
channel_is_running(PyObject *object, PyObject *future)
{
    pyc_channel *self = as_channel(object);
    if (pyc_channel_check_parent(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(self->source.is_running(&self->source, future));
}

static PyObject *
future_of(pyc_channel *self, uint64_t task)
{
    PyObject *future = Py_None;
    pyc_lock_take(&self->lock);
    pyc_slot *slot = &self->slots[PYC_TASK_SLOT(task)];
    if (task != 0 && slot->generation == PYC_TASK_GENERATION(task) &&
        slot->call.future != NULL) {
        future = slot->call.future;
    }
    Py_INCREF(future);
    pyc_lock_give(&self->lock);
    return future;
}

static PyObject *
channel_running(PyObject *object, PyObject *number)
{
    pyc_channel *self = as_channel(object);
    uint32_t worker;
    if (pyc_channel_check_parent(self) < 0 ||
        pyc_channel_worker_of(self, number, &worker) < 0) {
        return NULL;
    }
    return future_of(self, pyc_channel_begun(self, worker));
}

static PyObject *
channel_call_of(PyObject *object, PyObject *future)
{
    pyc_channel *self = as_channel(object);
    pyc_call call = {0};
    if (pyc_channel_check_parent(self) < 0) {
        return NULL;
    }
    pyc_lock_take(&self->lock);
    for (uint32_t i = 0; i < self->board->slots; i++) {
        pyc_call *at = &self->slots[i].call;
        if (at->future == future) {
            call = (pyc_call){NULL, Py_NewRef(at->blob), Py_NewRef(at->args),
                              Py_NewRef(at->kwargs)};
            break;
        }
    }
    pyc_lock_give(&self->lock);
    if (call.blob == NULL) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(NNN)", call.blob, call.args, call.kwargs);
}

static PyObject *
channel_futures(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    pyc_channel *self = as_channel(object);
    return pyc_channel_check_parent(self) < 0 ? NULL
                                              : pyc_channel_futures(self);
}

static PyObject *
channel_in_flight(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLong(pyc_load(as_channel(object)->in_flight));
}

static void
forget_worker(pyc_worker *record)
{
    atomic_store(&record->pid, 0);
    atomic_store(&record->asked, 0);
    atomic_store(&record->task, 0);
    atomic_store(&record->began, 0);
    atomic_store(&record->tasks, 0);
    atomic_store(&record->busy, 0);
    atomic_store(&record->peak, 0);
    atomic_store(&record->unwanted, 0);
    atomic_store(&record->bytes_in, 0);
    atomic_store(&record->bytes_out, 0);
}

/* What it had answered before it died counts, so that comes first. */
static PyObject *
channel_bury(PyObject *object, PyObject *number)
{
    pyc_channel *self = as_channel(object);
    uint32_t worker;
    uint64_t task;
    pyc_call call = {0};
    if (pyc_channel_check_parent(self) < 0 ||
        pyc_channel_worker_of(self, number, &worker) < 0 ||
        pyc_channel_collect(self, false) == -1) {
        return NULL;
    }
    do {
        task = pyc_channel_begun(self, worker);
    } while (task != 0 && !pyc_channel_end(self, task, &call));
    forget_worker(pyc_board_worker(self->board, worker));
    PyObject *future = call.future == NULL ? Py_None : call.future;
    Py_INCREF(future);
    pyc_call_clear(&call);
    return future;
}

static PyObject *
channel_retire(PyObject *object, PyObject *number)
{
    pyc_channel *self = as_channel(object);
    uint32_t worker;
    if (pyc_channel_check_parent(self) < 0 ||
        pyc_channel_worker_of(self, number, &worker) < 0) {
        return NULL;
    }
    atomic_store(&pyc_board_worker(self->board, worker)->asked, 1);
    pyc_queue_tell_getters(self->jobs, PY_SSIZE_T_MAX);
    Py_RETURN_NONE;
}

static PyObject *
channel_worker(PyObject *object, PyObject *number)
{
    pyc_channel *self = as_channel(object);
    uint32_t worker;
    if (pyc_channel_worker_of(self, number, &worker) < 0) {
        return NULL;
    }
    pyc_worker *at = pyc_board_worker(self->board, worker);
    uint64_t task = atomic_load(&at->task);
    int64_t began = atomic_load(&at->began);
    double since = began == 0 ? 0.0 : (double)(pyc_clock_now() - began) / 1e9;
    return Py_BuildValue(
        "{sIsKsdsdsKsdsKsKsK}", "pid", atomic_load(&at->pid), "task",
        (unsigned long long)task, "running", task == 0 ? 0.0 : since, "idle",
        task == 0 ? since : 0.0, "tasks",
        (unsigned long long)atomic_load(&at->tasks), "busy",
        (double)atomic_load(&at->busy) / 1e9, "peak",
        (unsigned long long)atomic_load(&at->peak), "bytes_in",
        (unsigned long long)atomic_load(&at->bytes_in), "bytes_out",
        (unsigned long long)atomic_load(&at->bytes_out));
}

static PyObject *
shut(pyc_channel *self, int immediate)
{
    if (pyc_channel_check_parent(self) < 0) {
        return NULL;
    }
    pyc_queue_shutdown(self->jobs, immediate);
    Py_RETURN_NONE;
}

static PyObject *
channel_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return shut(as_channel(object), 0);
}

static PyObject *
channel_stop(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return shut(as_channel(object), 1);
}

static PyObject *
channel_recall(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    pyc_channel *self = as_channel(object);
    if (pyc_channel_check_parent(self) < 0) {
        return NULL;
    }
    pyc_block_recall(&self->jobs->shared.block);
    pyc_block_recall(&self->results->shared.block);
    pyc_block_recall(&((pyc_shared *)self->segment)->block);
    pyc_queue_give_back(self->jobs);
    Py_RETURN_NONE;
}

static PyObject *
channel_take(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames)
{
    static const pyc_signature signature = {
        "take", {"worker", "timeout", NULL}, 1};
    pyc_channel *self = as_channel(object);
    PyObject *values[2] = {NULL};
    uint32_t worker;
    int64_t deadline;
    if (pyc_arguments(&signature, args, nargs, kwnames, values) < 0 ||
        pyc_channel_worker_of(self, values[0], &worker) < 0 ||
        pyc_sleep_deadline(NULL, values[1], &deadline) < 0) {
        return NULL;
    }
    return pyc_channel_take(self, worker, deadline);
}

static PyObject *
answer(PyObject *object, PyObject *const *args, Py_ssize_t nargs, bool failed)
{
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError,
                     "%s() takes exactly 2 arguments (%zd given)",
                     failed ? "fail" : "reply", nargs);
        return NULL;
    }
    uint64_t task = PyLong_AsUnsignedLongLong(args[0]);
    if ((task == UINT64_MAX && PyErr_Occurred()) ||
        pyc_channel_reply(as_channel(object), task, args[1], failed) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
channel_reply(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    return answer(object, args, nargs, false);
}

static PyObject *
channel_fail(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    return answer(object, args, nargs, true);
}

static PyObject *
get_source(PyObject *object, void *Py_UNUSED(closure))
{
    pyc_channel *self = as_channel(object);
    PyObject *made = NULL, *capsule;
    if (pyc_load(self->capsule) == NULL) {
        made = PyCapsule_New(&self->source, PYC_SOURCE, NULL);
        if (made == NULL) {
            return NULL;
        }
    }
    pyc_lock_take(&self->lock);
    if (self->capsule == NULL) {
        self->capsule = made;
        made = NULL;
    }
    capsule = Py_NewRef(self->capsule);
    pyc_lock_give(&self->lock);
    Py_XDECREF(made);
    return capsule;
}

/* An attribute that the pool calls; `offset`: where it is in a channel. */
static PyObject *
get_callable(PyObject *object, void *offset)
{
    pyc_channel *self = as_channel(object);
    PyObject **at = (PyObject **)((char *)self + (uintptr_t)offset);
    pyc_lock_take(&self->lock);
    PyObject *value = *at == NULL ? Py_None : *at;
    Py_INCREF(value);
    pyc_lock_give(&self->lock);
    return value;
}

static int
set_callable(PyObject *object, PyObject *value, void *offset)
{
    pyc_channel *self = as_channel(object);
    PyObject **at = (PyObject **)((char *)self + (uintptr_t)offset);
    if (value != NULL && value != Py_None && !PyCallable_Check(value)) {
        PyErr_Format(PyExc_TypeError,
                     "what a channel calls must be callable, not %R", value);
        return -1;
    }
    value = value == Py_None ? NULL : Py_XNewRef(value);
    pyc_lock_take(&self->lock);
    PyObject *old = *at;
    *at = value;
    pyc_lock_give(&self->lock);
    Py_XDECREF(old);
    return 0;
}

static PyObject *
get_workers(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(as_channel(object)->board->workers);
}

static PyObject *
get_slots(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(as_channel(object)->board->slots);
}

static PyObject *
get_memory_size(PyObject *object, void *Py_UNUSED(closure))
{
    pyc_channel *self = as_channel(object);
    return PyLong_FromUnsignedLongLong(
        pyc_heap_size(&pyc_queue_shared(self->jobs)->ring.heap) +
        pyc_heap_size(&pyc_queue_shared(self->results)->ring.heap));
}

static PyGetSetDef members[] = {
    {"workers", get_workers, NULL, "How many workers there may be."},
    {"slots", get_slots, NULL, "How many tasks may be in flight."},
    {"memory_size", get_memory_size, NULL,
     "How many bytes of shared memory it has mapped, in use or not."},
    {"source", get_source, NULL,
     "A capsule by which a thread that waits for a Future collects results; it "
     "does not keep the\nchannel there."},
    {"refill", get_callable, set_callable,
     "Called without arguments, once tasks that had no room may have some; or "
     "None.",
     (void *)offsetof(pyc_channel, refill)},
    {"describe", get_callable, set_callable,
     "Called with a Future whose result cannot be unpickled, for the text of "
     "its call; or None.",
     (void *)offsetof(pyc_channel, describe)},
    {"relief", get_callable, set_callable,
     "Called without arguments, instead of waking the collector, when a thread "
     "has left callbacks\nto be called by collect(); or None: somebody calls "
     "watch().",
     (void *)offsetof(pyc_channel, relief)},
    {NULL}};

static PyMemberDef fields[] = {{"__weaklistoffset__", T_PYSSIZET,
                                offsetof(pyc_channel, weakrefs), READONLY},
                               {NULL}};

#define FAST PYC_KEYWORDS
#define FAST_FLAGS METH_FASTCALL | METH_KEYWORDS

static PyMethodDef methods[] = {
    {"send", FAST(channel_send), METH_FASTCALL,
     "send($self, future, blob, args, kwargs, /)\n--\n\n"
     "Put a job into the queue. False: there is no room (refill() will be "
     "called). The\nchannel keeps the four until the task is over. Raises what "
     "pickling them raises;\nthen, as after False, nothing was sent."},
    {"collect", channel_collect, METH_NOARGS,
     "collect($self, /)\n--\n\n"
     "End the Futures of all results that have arrived; how many. Any thread "
     "may, at any time. Raises what a "
     "callback raised that is no Exception,\nand OSError when results cannot "
     "be "
     "read: they never will."},
    {"watch", FAST(channel_watch), FAST_FLAGS,
     "watch($self, timeout=None)\n--\n\n"
     "Wait for results that no thread in a Future's result() collects; "
     "whether there are any.\nFor one thread, the collector. wake() has it "
     "return."},
    {"wake", channel_wake, METH_NOARGS,
     "wake($self, /)\n--\n\nHave watch() return, now or when it is called "
     "next."},
    {"revoke", channel_revoke, METH_O,
     "revoke($self, future, /)\n--\n\n"
     "Take a task back that no worker has begun; False: it is begun or over. "
     "It will never be\nbegun then, and the channel has forgotten its "
     "Future. Does not call refill()."},
    {"is_running", channel_is_running, METH_O,
     "is_running($self, future, /)\n--\n\n"
     "Whether a worker has begun the task and its result was not collected "
     "yet."},
    {"running", channel_running, METH_O,
     "running($self, worker, /)\n--\n\n"
     "The Future of the task that the worker has begun; None: there is none. "
     "Its result may be\nthere: collect() first."},
    {"call_of", channel_call_of, METH_O,
     "call_of($self, future, /)\n--\n\n"
     "(blob, args, kwargs) of a task in flight; None: it is over."},
    {"futures", channel_futures, METH_NOARGS,
     "futures($self, /)\n--\n\nA list of the Futures of all tasks in flight, "
     "as they were sent."},
    {"in_flight", channel_in_flight, METH_NOARGS,
     "in_flight($self, /)\n--\n\nHow many tasks are sent and not over."},
    {"bury", channel_bury, METH_O,
     "bury($self, worker, /)\n--\n\n"
     "After the worker's process has ended: collect what it sent, and return "
     "the Future of the\ntask it had begun, which is over for the channel; "
     "None: there is none. Nothing else is lost.\nThe worker's number is free "
     "for another process then. Does not call refill()."},
    {"interrupt", pyc_channel_interrupt, METH_O,
     "interrupt($self, future, /)\n--\n\n"
     "Mark the task as one that the next SIGINT of its worker is for: the "
     "number of the worker\nthat has begun it, or None when none has or its "
     "result was collected."},
    {"interrupted", pyc_channel_interrupted, METH_O,
     "interrupted($self, worker, /)\n--\n\n"
     "In a worker, at a SIGINT: the task that was marked since, 0 for none."},
    {"ran", pyc_channel_ran, METH_O,
     "ran($self, future, /)\n--\n\n"
     "Seconds since a worker has begun the task; None when none has or its "
     "result was collected."},
    {"retire", channel_retire, METH_O,
     "retire($self, worker, /)\n--\n\n"
     "Have the worker's take() return None when it is called next, or is "
     "waiting."},
    {"worker", channel_worker, METH_O,
     "worker($self, worker, /)\n--\n\n"
     "What the board says of a worker: a dict of its pid (0: it has not "
     "called take() yet), task\n(0: none), running and idle (seconds since "
     "it began this task or to wait), tasks (done), busy\n(seconds in them), "
     "peak (bytes of memory), bytes_in and bytes_out."},
    {"close", channel_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "Nothing can be sent any more; workers end when no job is left."},
    {"stop", channel_stop, METH_NOARGS,
     "stop($self, /)\n--\n\n"
     "close(), and drop all jobs that no worker has begun: they stay in "
     "futures()."},
    {"recall", channel_recall, METH_NOARGS,
     "recall($self, /)\n--\n\n"
     "No process that was sent the channel and has not received it will: those "
     "have ended. Otherwise\nits memory stays for them. What of it is free is "
     "given back to the system."},
    {"take", FAST(channel_take), FAST_FLAGS,
     "take($self, worker, timeout=None)\n--\n\n"
     "In a worker, the next job: (task, data, buffers, flags). None: there "
     "will be "
     "no more, since the\nchannel is closed, the worker is to retire or the "
     "parent is gone. Raises queue.Empty."},
    {"load", pyc_channel_load, METH_O,
     "load($self, job, /)\n--\n\n"
     "(blob, args, kwargs) of a job. Raises what unpickling them raises."},
    {"reply", FAST(channel_reply), METH_FASTCALL,
     "reply($self, task, value, /)\n--\n\n"
     "Send a task's result. Raises what pickling it raises; then nothing was "
     "sent."},
    {"fail", FAST(channel_fail), METH_FASTCALL,
     "fail($self, task, exception, /)\n--\n\n"
     "Send what a task raised, or what unpickles to that. As reply()."},
    {"_attach", pyc_channel_attach, METH_VARARGS | METH_CLASS, NULL},
    {"__reduce__", pyc_channel_reduce, METH_NOARGS, NULL},
    {NULL}};

PyDoc_STRVAR(channel_doc,
             "Channel(workers, slots=1024, max_bytes=268435456)\n--\n\n"
             "Between a pool and up to `workers` processes that work for it. "
             "No more than `slots` tasks are\nin flight, and none is sent "
             "while those that are have `max_bytes` in all, unless they are "
             "fewer\nthan the workers.");

static PyType_Slot slots[] = {{Py_tp_new, pyc_channel_new},
                              {Py_tp_doc, (void *)channel_doc},
                              {Py_tp_methods, methods},
                              {Py_tp_getset, members},
                              {Py_tp_members, fields},
                              {Py_tp_traverse, pyc_channel_traverse},
                              {Py_tp_clear, pyc_channel_clear},
                              {Py_tp_dealloc, pyc_channel_dealloc},
                              {0, NULL}};

PyType_Spec pyc_channel_spec = {
    .name = "pyconc._ipc.Channel",
    .basicsize = sizeof(pyc_channel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
