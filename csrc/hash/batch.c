/* SPDX-License-Identifier: MIT */
#include "hash/batch.h"
#include <errno.h>
#include <openssl/err.h>

/* Below this much work a batch keeps the GIL: giving it up can cost the 5 ms
 * of the switch interval, and this is over in some 50 microseconds. */
#define TINY_WORK ((size_t)64 << 10)
/* What makes it worth while to wake one thread (more). */
#define THREAD_WORK ((size_t)256 << 10)
/* Below this much work a batch for one thread stays in the calling one, which
 * is as quick and answers signals soon enough. */
#define LONE_WORK ((size_t)4 << 20)
#define ATTEND_MS 50

void
pyc_forget_memory(pyc_scratch *scratch)
{
    if (scratch->memory != NULL) {
        pyc_scrypt_free(scratch->memory, scratch->memory_size);
        scratch->memory = NULL;
        scratch->memory_size = 0;
    }
}

static void
free_scratch(void *kept)
{
    pyc_scratch *scratch = kept;
    EVP_MD_CTX_free(scratch->context);
    free(scratch->block);
    free(scratch);
}

static size_t
run_items(pyc_crew_job *job, size_t begin, size_t end, void **kept,
          pyc_fault *fault)
{
    pyc_batch *self = (pyc_batch *)((char *)job - offsetof(pyc_batch, job));
    if (*kept == NULL) {
        *kept = calloc(1, sizeof(pyc_scratch));
    }
    if (*kept == NULL) {
        *fault = PYC_FAULT_SYSTEM | ENOMEM;
        return 0;
    }
    size_t i = begin;
    while (i < end && !pyc_crew_is_cut(job, i)) {
        size_t count = end - i < self->lanes ? end - i : self->lanes;
        *fault = self->items(self, i, count, *kept);
        if (*fault != 0) {
            break;
        }
        i += count;
    }
    /* Nothing of it outlives the turn, after which another batch may come. */
    pyc_forget_memory(*kept);
    if (*fault == PYC_FAULT_STOPPED) {
        *fault = 0;
    }
    return i - begin;
}

pyc_batch *
pyc_batch_new(PyObject *module, pyc_batch_items items)
{
    pyc_crew_state *state = PyModule_GetState(module);
    pyc_batch *self =
        (pyc_batch *)state->job_type->tp_alloc(state->job_type, 0);
    if (self != NULL) {
        self->state = state;
        self->items = items;
        self->lanes = 1;
        self->job.run = run_items;
    }
    return self;
}

int
pyc_expect_args(const char *function, Py_ssize_t count, Py_ssize_t wanted)
{
    if (count == wanted) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", function,
                 wanted, count);
    return -1;
}

PyObject *
pyc_raise_crypto(unsigned long code, const char *otherwise)
{
    const char *library = code ? ERR_lib_error_string(code) : NULL;
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    if (ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE) {
        return PyErr_NoMemory();
    }
    if (library == NULL || reason == NULL) {
        PyErr_SetString(PyExc_ValueError, reason ? reason : otherwise);
        return NULL;
    }
    return PyErr_Format(PyExc_ValueError, "[%s] %s", library, reason);
}

pyc_fault
pyc_crypto_fault(void)
{
    unsigned long code = ERR_peek_last_error();
    ERR_clear_error();
    return PYC_FAULT_CRYPTO | (uint32_t)code;
}

/* args: the threads for this batch and for all of them, at most. */
static int
begin(pyc_batch *self, PyObject *const *args)
{
    size_t width = PyLong_AsSize_t(args[0]);
    size_t threads = PyErr_Occurred() ? 0 : PyLong_AsSize_t(args[1]);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (atomic_exchange(&self->started, true)) {
        PyErr_SetString(PyExc_RuntimeError, "a batch runs once");
        return -1;
    }
    pyc_crew_job *job = &self->job;
    job->threads = threads > 0 ? threads : 1;
    job->width = width < job->total ? width : job->total;
    if (self->work / THREAD_WORK < job->width) {
        job->width = self->work / THREAD_WORK + 1;
    }
    job->width = job->width > 0 ? job->width : 1;
    /* At least eight turns each, so that the last to finish is not late. */
    size_t turns = self->work / THREAD_WORK + 1;
    size_t even = job->width * 8;
    turns = turns > even ? turns : even;
    if (job->total <= job->width) {
        self->lanes = 1; /* a thread for each is quicker */
    }
    size_t chunk = job->total / turns + 1;
    job->chunk = (chunk + self->lanes - 1) / self->lanes * self->lanes;
    return 0;
}

static int
submit(pyc_batch *self)
{
    return pyc_job_submit(&self->state->crew, free_scratch, &self->job);
}

static int
report(PyObject *progress, size_t done, size_t total)
{
    if (Py_IsNone(progress)) {
        return 0;
    }
    PyObject *answer = PyObject_CallFunction(progress, "nn", (Py_ssize_t)done,
                                             (Py_ssize_t)total);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

/* A signal's handler or the callback may have forked: there is nothing to wait
 * for in the child. */
static int
check_owner(pyc_batch *self)
{
    if (!pyc_crew_is_lost(&self->job)) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "the batch belongs to the parent process");
    return -1;
}

/* Waits for the crew, answers signals and tells about the progress. */
static int
attend(pyc_batch *self, PyObject *progress)
{
    size_t told = 0;
    while (!pyc_job_wait(&self->job, ATTEND_MS)) {
        if (PyErr_CheckSignals() < 0 || check_owner(self) < 0) {
            return -1;
        }
        size_t done = pyc_crew_done(&self->job);
        if (done > told && report(progress, done, self->job.total) < 0) {
            return -1;
        }
        if (check_owner(self) < 0) {
            return -1;
        }
        told = done;
    }
    return 0;
}

/* Works through the batch in this thread, or returns false if threads should,
 * whatever has been done already. */
static bool
run_in_place(pyc_batch *self)
{
    if (self->work <= TINY_WORK) {
        return pyc_crew_run_here(&self->job, free_scratch);
    }
    bool done = false;
    self->at_once = self->paths != NULL;
    Py_BEGIN_ALLOW_THREADS
    if (self->at_once ? pyc_files_are_small(self)
                      : self->work < (self->job.width == 1 ? LONE_WORK
                                                           : PYC_SERIAL_WORK)) {
        done = pyc_crew_run_here(&self->job, free_scratch);
    }
    Py_END_ALLOW_THREADS
    self->at_once = false;
    return done;
}

static PyObject *
error_of_file(pyc_batch *self, size_t index, int code)
{
    PyObject *path = PyTuple_GET_ITEM(self->paths, (Py_ssize_t)index);
    errno = code;
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    return NULL;
}

static PyObject *
raise_fault(pyc_batch *self)
{
    unsigned long code = PYC_FAULT_CODE(self->job.fault);
    if (PYC_FAULT_KIND(self->job.fault) == PYC_FAULT_CRYPTO) {
        return pyc_raise_crypto(code, "libcrypto failed without a reason");
    }
    if (self->paths != NULL) {
        return error_of_file(self, self->job.end, (int)code);
    }
    return PyErr_NoMemory(); /* ENOMEM: nothing else is asked of the system */
}

/* Puts the exceptions of unreadable files in place of their digests. */
static int
place_errors(pyc_batch *self)
{
    for (size_t i = 0; i < self->job.total; i++) {
        if (self->errnos[i] != 0) {
            error_of_file(self, i, self->errnos[i]);
            PyObject *error = pyc_take_exception();
            if (PyList_SetItem(self->results, (Py_ssize_t)i, error) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static PyObject *
list_matches(pyc_batch *self)
{
    Py_ssize_t total = (Py_ssize_t)self->job.total;
    PyObject *list = PyList_New(total);
    for (Py_ssize_t i = 0; list != NULL && i < total; i++) {
        PyList_SET_ITEM(list, i, PyBool_FromLong(self->matches[i]));
    }
    return list;
}

/* Lets go of everything that was held for the threads. */
static void
release(pyc_batch *self)
{
    PYC_BEGIN_CRITICAL_SECTION(self);
    while (self->view_count > 0) {
        PyBuffer_Release(&self->views[--self->view_count]);
    }
    Py_CLEAR(self->owners);
    Py_CLEAR(self->salts);
    Py_CLEAR(self->keys);
    Py_CLEAR(self->paths);
    Py_CLEAR(self->results);
    PYC_END_CRITICAL_SECTION();
}

PyDoc_STRVAR(result_doc, "result($self, /)\n--\n\n"
                         "The results in order, once the batch is over.\n\n"
                         "Can be had once. RuntimeError when the batch is not "
                         "over or was cancelled;\nOSError or ValueError when "
                         "an item failed.");

/* The results of a batch that is over. */
static PyObject *
take_results(pyc_batch *self)
{
    if (self->job.fault != 0) {
        return raise_fault(self);
    }
    if (self->results == NULL || pyc_crew_done(&self->job) < self->job.total) {
        PyErr_SetString(PyExc_RuntimeError, "the batch was not run to its end");
        return NULL;
    }
    if (self->errnos != NULL && place_errors(self) < 0) {
        return NULL;
    }
    if (self->matches != NULL) {
        return list_matches(self);
    }
    PyObject *results = self->results;
    self->results = NULL;
    return results;
}

static PyObject *
batch_result(pyc_batch *self, PyObject *Py_UNUSED(ignored))
{
    if (!pyc_job_is_over(&self->job)) {
        PyErr_SetString(PyExc_RuntimeError, "the batch is not over");
        return NULL;
    }
    PyObject *results;
    PYC_BEGIN_CRITICAL_SECTION(self);
    results = take_results(self);
    PYC_END_CRITICAL_SECTION();
    release(self);
    return results;
}

PyDoc_STRVAR(run_doc,
             "run($self, width, threads, progress, /)\n--\n\n"
             "Work through the batch on at most `width` of the `threads` that "
             "there may be for\nall batches, and return the results.\n\n"
             "progress(done, total), or None, is called in this thread about "
             "every 50 ms\nand at the end; what it raises, or a signal's "
             "handler, cancels the batch.");

static PyObject *
batch_run(pyc_batch *self, PyObject *const *args, Py_ssize_t count)
{
    if (pyc_expect_args("run", count, 3) < 0 || begin(self, args) < 0) {
        return NULL;
    }
    if (!run_in_place(self)) {
        if (submit(self) < 0) {
            return NULL;
        }
        if (attend(self, args[2]) < 0) {
            goto fail;
        }
    }
    size_t total = self->job.total;
    if (self->job.fault == 0 && report(args[2], total, total) < 0) {
        goto fail;
    }
    return batch_result(self, NULL);

fail:;
    PyObject *error = pyc_take_exception();
    pyc_job_abandon(&self->job);
    pyc_put_exception(error);
    return NULL;
}

PyDoc_STRVAR(start_doc, "start($self, width, threads, /)\n--\n\n"
                        "Begin to work through the batch, on threads as in "
                        "run(). A Bell tells when it is\nover.");

static PyObject *
batch_start(pyc_batch *self, PyObject *const *args, Py_ssize_t count)
{
    if (pyc_expect_args("start", count, 2) < 0) {
        return NULL;
    }
    if (begin(self, args) < 0 || submit(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cancel_doc, "cancel($self, /)\n--\n\n"
                         "Begin no further item. Does not wait for those that "
                         "are being worked on.");

static PyObject *
batch_cancel(pyc_batch *self, PyObject *Py_UNUSED(ignored))
{
    if (self->job.crew != NULL && !pyc_crew_is_lost(&self->job)) {
        pyc_crew_cancel(&self->job);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Cancel, and wait until no thread works on the batch.");

static PyObject *
batch_close(pyc_batch *self, PyObject *Py_UNUSED(ignored))
{
    pyc_job_abandon(&self->job);
    Py_RETURN_NONE;
}

static PyObject *
batch_get_done(pyc_batch *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(pyc_crew_done(&self->job));
}

static PyObject *
batch_get_total(pyc_batch *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->job.total);
}

static PyObject *
batch_get_short(pyc_batch *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->work <= TINY_WORK);
}

static int
batch_traverse(pyc_batch *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owners);
    Py_VISIT(self->salts);
    Py_VISIT(self->keys);
    Py_VISIT(self->paths);
    Py_VISIT(self->results);
    for (size_t i = 0; i < self->view_count; i++) {
        Py_VISIT(self->views[i].obj);
    }
    return 0;
}

static int
batch_clear(pyc_batch *self)
{
    pyc_job_abandon(&self->job);
    release(self);
    return 0;
}

static void
batch_dealloc(pyc_batch *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    batch_clear(self);
    pyc_crew_clear(&self->job);
    EVP_MD_free(self->md);
    PyMem_Free(self->views);
    PyMem_Free(self->inputs);
    PyMem_Free(self->salt_spans);
    PyMem_Free(self->key_spans);
    PyMem_Free(self->matches);
    PyMem_Free(self->errnos);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef batch_methods[] = {
    {"run", (PyCFunction)(void (*)(void))batch_run, METH_FASTCALL, run_doc},
    {"start", (PyCFunction)(void (*)(void))batch_start, METH_FASTCALL,
     start_doc},
    {"cancel", (PyCFunction)batch_cancel, METH_NOARGS, cancel_doc},
    {"close", (PyCFunction)batch_close, METH_NOARGS, close_doc},
    {"result", (PyCFunction)batch_result, METH_NOARGS, result_doc},
    {NULL}};

static PyGetSetDef batch_getset[] = {
    {"done", (getter)batch_get_done, NULL, "Items that are worked through."},
    {"total", (getter)batch_get_total, NULL, "Items of the batch."},
    {"short", (getter)batch_get_short, NULL,
     "True when a thread would take longer to wake than the work takes."},
    {NULL}};

static PyType_Slot batch_slots[] = {
    {Py_tp_doc, "Work for threads that never take the GIL. It runs once."},
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_traverse, batch_traverse},
    {Py_tp_clear, batch_clear},
    {Py_tp_methods, batch_methods},
    {Py_tp_getset, batch_getset},
    {0, NULL}};

PyType_Spec pyc_batch_spec = {
    .name = "pyconc._hash.Batch",
    .basicsize = sizeof(pyc_batch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = batch_slots,
};
