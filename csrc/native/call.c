/* SPDX-License-Identifier: MIT */
/* The only lines that run in the threads: the calls of the functions. */
#include "native/work.h"

typedef void (*call_function)(void *);
typedef int (*call_int_function)(void *);
typedef int64_t (*block_function)(const void *, size_t, void *, size_t, void *);
typedef void (*range_function)(size_t, size_t, void *);
typedef int (*range_int_function)(size_t, size_t, void *);
typedef double (*unary_function)(double);
typedef double (*unary_data_function)(double, void *);

static int64_t
call_block(pyc_work *self, size_t begin, size_t end)
{
    const char *in = self->in;
    char *out = self->out;
    size_t in_size = (end - begin) * self->in_step;
    size_t out_size = (end - begin) * self->out_step;
    return ((block_function)self->function)(
        in == NULL ? NULL : in + begin * self->in_step, in_size,
        out == NULL ? NULL : out + begin * self->out_step, out_size,
        self->data);
}

static void
call_unary(pyc_work *self, size_t begin, size_t end)
{
    unary_function function = (unary_function)self->function;
    const double *in = self->in;
    double *out = self->out;
    for (size_t i = begin; i < end; i++) {
        out[i] = function(in[i]);
    }
}

static void
call_unary_data(pyc_work *self, size_t begin, size_t end)
{
    unary_data_function function = (unary_data_function)self->function;
    const double *in = self->in;
    double *out = self->out;
    for (size_t i = begin; i < end; i++) {
        out[i] = function(in[i], self->data);
    }
}

/* What the call returned, and 0 where it returns nothing. */
static int64_t
call(pyc_work *self, size_t begin, size_t end)
{
    switch (self->signature) {
    case PYC_CALL:
        ((call_function)self->function)(self->data);
        break;
    case PYC_CALL_INT:
        return ((call_int_function)self->function)(self->data);
    case PYC_BLOCK:
        return call_block(self, begin, end);
    case PYC_RANGE:
        ((range_function)self->function)(begin, end, self->data);
        break;
    case PYC_RANGE_INT:
        return ((range_int_function)self->function)(begin, end, self->data);
    case PYC_UNARY:
        call_unary(self, begin, end);
        break;
    case PYC_UNARY_DATA:
        call_unary_data(self, begin, end);
        break;
    default:
        break;
    }
    return 0;
}

size_t
pyc_work_call(pyc_crew_job *job, size_t begin, size_t end,
              void **Py_UNUSED(scratch), pyc_fault *fault)
{
    pyc_work *self = (pyc_work *)((char *)job - offsetof(pyc_work, job));
    int64_t code = call(self, begin, end);
    /* A block's function says by a number from 0 on how much it has done. */
    if (code < 0 || (code > 0 && self->signature != PYC_BLOCK)) {
        *fault = (pyc_fault)code;
        return 0;
    }
    if (job->total == 1) {
        self->value = code;
    }
    return end - begin;
}
