/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "py/context.h"
#include "loop/cycle.h"
#include "loop/handle.h"
#include "base/futex.h"

/* How many dead handles a loop keeps for reuse. Other threads may drop a
 * handle too, which only the GIL makes safe. */
#ifdef Py_GIL_DISABLED
#    define FREE_HANDLES_MAX 0
#    define NESTED_DEALLOC_MAX 0
#else
#    define FREE_HANDLES_MAX 16384
#    define NESTED_DEALLOC_MAX 50 /* handles that hold handles that ... */
#endif

/* ---- making ------------------------------------------------------------ */

static int
set_arguments(pyc_handle *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs <= PYC_HANDLE_INLINE_ARGS) {
        for (Py_ssize_t i = 0; i < nargs; i++) {
            self->stack[1 + i] = Py_NewRef(args[i]);
        }
        self->nargs = (signed char)nargs;
        return 0;
    }
    PyObject *tuple = PyTuple_New(nargs);
    if (tuple == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    self->stack[1] = tuple;
    self->nargs = -1;
    return 0;
}

/* ---- contexts ---------------------------------------------------------- */

/* A handle is to run in a copy of the context it was made in. Handles made in
 * contexts that hold the same variables share one copy until they run. */
static PyObject *
shared_copy(pyc_handle *self, pyc_loop *loop)
{
    PyObject *current = pyc_context_current(), *copy = loop->context_copy;
    self->context_shared = 1;
    if (current != NULL && copy != NULL &&
        pyc_context_vars(copy) == pyc_context_vars(current)) {
        return Py_NewRef(copy);
    }
    copy = PyContext_CopyCurrent();
    Py_XSETREF(loop->context_copy, Py_XNewRef(copy));
    return copy;
}

static PyObject *
context_for(pyc_handle *self, pyc_loop *loop, PyObject *context)
{
    if (context == NULL || context == Py_None) {
        return loop->state->context_known ? shared_copy(self, loop)
                                          : PyContext_CopyCurrent();
    }
    if (PYC_UNLIKELY(!PyContext_CheckExact(context))) {
        PyErr_Format(PyExc_TypeError,
                     "context must be a contextvars.Context, not %R", context);
        return NULL;
    }
    return Py_NewRef(context);
}

PyObject *
pyc_handle_own_context(pyc_handle *self)
{
    if (!self->context_shared) {
        return self->context;
    }
    PyObject *shared = Py_NewRef(self->context);
    PyObject *own = PyContext_Copy(shared);
    /* The collector may have run code that has asked for it too. */
    if (own != NULL && self->context_shared) {
        self->context_shared = 0;
        Py_SETREF(self->context, Py_NewRef(own));
    }
    Py_DECREF(shared);
    if (own == NULL) {
        return NULL;
    }
    Py_DECREF(own);
    return self->context;
}

/* A copy to run in: the one the handle before ran in, if that has changed
 * nothing and nobody else has it. */
static int
stop_sharing(pyc_handle *self)
{
    pyc_loop *loop = self->loop;
    PyObject *shared = self->context, *own = loop->context_used;
    if (Py_REFCNT(shared) == 1) {
        self->context_shared = 0;
    }
    else if (own != NULL && Py_REFCNT(own) == 1 &&
             pyc_context_vars(own) == pyc_context_vars(shared)) {
        self->context_shared = 0;
        self->context = Py_NewRef(own);
        Py_DECREF(shared);
    }
    else {
        own = pyc_handle_own_context(self);
        if (own == NULL) {
            return -1;
        }
        /* Last: what was in the one before may have a __del__. */
        Py_XSETREF(loop->context_used, Py_NewRef(own));
    }
    return 0;
}

void
pyc_handle_forget_contexts(pyc_loop *loop)
{
    Py_CLEAR(loop->context_copy);
    Py_CLEAR(loop->context_used);
}

/* Those kept for reuse are alive still, and own their type. */
static inline pyc_handle *
take_free(pyc_loop *loop)
{
    pyc_handle *self = loop->free_handles;
    if (self != NULL) {
        loop->free_handles = (pyc_handle *)self->callback;
        loop->free_handles_len--;
    }
    return self;
}

static pyc_handle *
allocate(PyTypeObject *type)
{
    pyc_handle *self = PyObject_GC_New(pyc_handle, type);
    if (self != NULL) {
        memset((char *)self + sizeof(PyObject), 0,
               (size_t)type->tp_basicsize - sizeof(PyObject));
    }
    return self;
}

static int
remember_source(pyc_handle *self)
{
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    if (frame == NULL) {
        return 0;
    }
    self->source_traceback =
        PyObject_CallOneArg(self->loop->state->extract_stack, frame);
    return self->source_traceback == NULL ? -1 : 0;
}

static inline int
fill(pyc_handle *self, pyc_loop *loop, PyObject *callback,
     PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    self->loop = (pyc_loop *)Py_NewRef(loop);
    self->callback = Py_NewRef(callback);
    self->context = context_for(self, loop, context);
    if (PYC_UNLIKELY(self->context == NULL) ||
        set_arguments(self, args, nargs) < 0) {
        return -1;
    }
    return PYC_UNLIKELY(loop->debug) ? remember_source(self) : 0;
}

static inline pyc_handle *
finish(pyc_handle *self, pyc_loop *loop, PyObject *callback,
       PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    if (PYC_UNLIKELY(self == NULL)) {
        return NULL;
    }
    if (PYC_UNLIKELY(fill(self, loop, callback, args, nargs, context) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    if (PYC_UNLIKELY(!PYC_LATE_TRACKING || loop->thread == 0)) {
        pyc_handle_track(self);
    }
    return self;
}

pyc_handle *
pyc_handle_new(pyc_loop *loop, PyObject *callback, PyObject *const *args,
               Py_ssize_t nargs, PyObject *context)
{
    pyc_handle *self = FREE_HANDLES_MAX ? take_free(loop) : NULL;
    if (self == NULL) {
        self = allocate(loop->state->handle_type);
    }
    return finish(self, loop, callback, args, nargs, context);
}

void
pyc_handle_track(pyc_handle *self)
{
    if (!self->tracked) {
        self->tracked = 1;
        PyObject_GC_Track(self);
    }
}

pyc_handle *
pyc_timer_handle_new(pyc_loop *loop, PyObject *callback, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *context)
{
    return finish(allocate(loop->state->timer_handle_type), loop, callback,
                  args, nargs, context);
}

/* ---- running ----------------------------------------------------------- */

static void
clear_call(pyc_handle *self)
{
    int used = self->nargs < 0 ? 1 : self->nargs;
    Py_CLEAR(self->callback);
    for (int i = 1; i <= used; i++) {
        Py_CLEAR(self->stack[i]);
    }
    self->nargs = 0;
}

PyObject *
pyc_handle_arguments(pyc_handle *self)
{
    if (self->callback == NULL) {
        Py_RETURN_NONE;
    }
    if (self->nargs < 0) {
        return Py_NewRef(self->stack[1]);
    }
    PyObject *tuple = PyTuple_New(self->nargs);
    for (int i = 0; tuple != NULL && i < self->nargs; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(self->stack[1 + i]));
    }
    return tuple;
}

/* Has the loop's Python side tell the exception handler which callback
 * failed. */
static void
report_failure(pyc_handle *self)
{
    PyObject *exc = pyc_take_exception();
    if (PyErr_GivenExceptionMatches(exc, PyExc_SystemExit) ||
        PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)) {
        pyc_loop_fail(self->loop, exc);
        return;
    }
    PyObject *done = PyObject_CallMethod((PyObject *)self->loop,
                                         "_callback_failed", "OO", self, exc);
    Py_DECREF(exc);
    if (done == NULL) {
        pyc_loop_fail(self->loop, pyc_take_exception());
    }
    Py_XDECREF(done);
}

static void
call(pyc_handle *self)
{
    PyObject *result;
    if ((self->context_shared && stop_sharing(self) < 0) ||
        PyContext_Enter(self->context) < 0) {
        report_failure(self);
        return;
    }
    vectorcallfunc function;
    if (PYC_LIKELY(self->nargs >= 0 && (function = PyVectorcall_Function(
                                            self->callback)) != NULL)) {
        result = function(self->callback, self->stack + 1,
                          (size_t)self->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET,
                          NULL);
    }
    else if (self->nargs >= 0) {
        result = PyObject_Vectorcall(self->callback, self->stack + 1,
                                     (size_t)self->nargs, NULL);
    }
    else {
        result = PyObject_Call(self->callback, self->stack[1], NULL);
    }
    if (PYC_LIKELY(result != NULL)) {
        Py_DECREF(result);
        if (PYC_UNLIKELY(PyContext_Exit(self->context) < 0)) {
            report_failure(self); /* the callback has left another entered */
        }
        return;
    }
    PyObject *exc = pyc_take_exception();
    PyContext_Exit(self->context);
    pyc_put_exception(exc);
    report_failure(self);
}

static void
call_timed(pyc_handle *self)
{
    double start = pyc_loop_time();
    call(self);
    if (self->loop->failure != NULL) {
        return;
    }
    PyObject *done =
        PyObject_CallMethod((PyObject *)self->loop, "_callback_took", "Od",
                            self, pyc_loop_time() - start);
    if (done == NULL) {
        pyc_loop_fail(self->loop, pyc_take_exception());
    }
    Py_XDECREF(done);
}

/* Whether a run may begin. Runs nest when a callback runs its own handle. */
static int
begin(pyc_handle *self, char *outer)
{
    int go;
    PYC_BEGIN_CRITICAL_SECTION(self);
    go = !self->cancelled;
    *outer = self->running;
    self->running = (char)(*outer | go);
    PYC_END_CRITICAL_SECTION();
    return go;
}

static Py_NO_INLINE void
tell_waiters(pyc_loop *loop)
{
    if (atomic_load(&loop->run_waiters) > 0) {
        atomic_fetch_add(&loop->runs_ended, 1);
        pyc_futex_wake(&loop->runs_ended, INT_MAX);
    }
}

static void
end(pyc_handle *self, char outer)
{
    PYC_BEGIN_CRITICAL_SECTION(self);
    self->running = outer;
    if (PYC_UNLIKELY(self->cancelled) && !outer) {
        clear_call(self);
    }
    PYC_END_CRITICAL_SECTION();
    if (PYC_HANDLE_WAITS && PYC_UNLIKELY(self->threadsafe)) {
        tell_waiters(self->loop);
    }
}

void
pyc_handle_run(pyc_handle *self)
{
    char outer;
    if (!begin(self, &outer)) {
        return;
    }
    if (PYC_UNLIKELY(self->loop->debug)) {
        call_timed(self);
    }
    else {
        call(self);
    }
    end(self, outer);
}

/* In debug mode: afterwards it could not say any more what it was. */
static void
keep_repr(pyc_handle *self)
{
    PyObject *pending = pyc_take_exception();
    PyObject *repr = PyObject_Repr((PyObject *)self);
    if (repr == NULL) {
        PyErr_Clear();
    }
    PYC_BEGIN_CRITICAL_SECTION(self);
    Py_XSETREF(self->repr, repr);
    PYC_END_CRITICAL_SECTION();
    if (pending != NULL) {
        pyc_put_exception(pending);
    }
}

void
pyc_handle_cancel(pyc_handle *self)
{
    int again;
    PYC_BEGIN_CRITICAL_SECTION(self);
    again = self->cancelled;
    self->cancelled = 1;
    PYC_END_CRITICAL_SECTION();
    if (again) {
        return;
    }
    if (self->scheduled) {
        pyc_timers_count_cancelled(self->loop);
    }
    if (PYC_UNLIKELY(self->loop->debug)) {
        keep_repr(self);
    }
    PYC_BEGIN_CRITICAL_SECTION(self);
    if (!self->running) {
        clear_call(self);
    }
    PYC_END_CRITICAL_SECTION();
}

/* ---- ending ------------------------------------------------------------ */

int
pyc_handle_traverse(pyc_handle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->callback);
    for (int i = 1; i <= PYC_HANDLE_INLINE_ARGS; i++) {
        Py_VISIT(self->stack[i]);
    }
    Py_VISIT(self->context);
    Py_VISIT(self->loop);
    Py_VISIT(self->source_traceback);
    return 0;
}

int
pyc_handle_clear(pyc_handle *self)
{
    self->cancelled = 1; /* there is nothing left to run */
    clear_call(self);
    Py_CLEAR(self->context);
    Py_CLEAR(self->source_traceback);
    Py_CLEAR(self->repr);
    return 0;
}

static void
free_handle(pyc_handle *self, PyTypeObject *type, pyc_loop *loop)
{
    if (type->tp_basicsize > (Py_ssize_t)sizeof(pyc_handle)) {
        Py_CLEAR(((pyc_timer_handle *)self)->when_given);
    }
    PyObject_GC_Del(self);
    Py_DECREF(type);
    Py_DECREF(loop);
}

/* Has CPython flatten what would recurse too deep. */
static Py_NO_INLINE void
dealloc_deep(pyc_handle *self)
{
    Py_TRASHCAN_BEGIN(self, pyc_handle_dealloc);
    pyc_handle_clear(self);
    free_handle(self, Py_TYPE(self), self->loop);
    Py_TRASHCAN_END;
}

void
pyc_handle_dealloc(pyc_handle *self)
{
    pyc_loop *loop = self->loop;
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (PYC_UNLIKELY(loop->handles_dying >= NESTED_DEALLOC_MAX)) {
        dealloc_deep(self);
        return;
    }
    loop->handles_dying++;
    pyc_handle_clear(self);
    loop->handles_dying--;
    free_handle(self, Py_TYPE(self), loop);
}

/* Nobody but the loop has ever had it, as far as anyone can see now. */
static inline int
may_keep(pyc_handle *self, pyc_loop *loop)
{
    return FREE_HANDLES_MAX && Py_REFCNT(self) == 1 && !self->tracked &&
           Py_IS_TYPE(self, loop->state->handle_type) &&
           self->weakrefs == NULL && self->source_traceback == NULL &&
           self->repr == NULL && loop->free_handles_len < FREE_HANDLES_MAX;
}

void
pyc_handle_done(pyc_handle *self)
{
    pyc_loop *loop = self->loop;
    if (PYC_UNLIKELY(!may_keep(self, loop))) {
        if (Py_REFCNT(self) > 1) {
            pyc_handle_track(self);
        }
        Py_DECREF(self);
        return;
    }
    pyc_handle_clear(self);
    self->loop = NULL;
    self->cancelled = 0;
    self->threadsafe = 0;
    self->context_shared = 0;
    self->callback = (PyObject *)loop->free_handles;
    loop->free_handles = self;
    loop->free_handles_len++;
    Py_DECREF(loop);
}

void
pyc_handle_free_all(pyc_loop *loop)
{
    pyc_handle *self;
    while ((self = take_free(loop)) != NULL) {
        PyTypeObject *type = Py_TYPE(self);
        PyObject_GC_Del(self);
        Py_DECREF(type);
    }
}
