/* SPDX-License-Identifier: MIT */
/* What the tests have called in threads. */
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static void
nap(long microseconds)
{
    struct timespec time = {microseconds / 1000000,
                            microseconds % 1000000 * 1000};
    nanosleep(&time, NULL);
}

/* data: a counter for each number. */
void
count_range(size_t begin, size_t end, void *data)
{
    for (size_t i = begin; i < end; i++) {
        ((unsigned char *)data)[i]++;
    }
}

typedef struct {
    int64_t bad;         /* the item that fails, or -1 */
    int64_t code;        /* what it returns */
    int64_t nap;         /* microseconds a call */
    _Atomic int64_t calls;
    _Atomic int64_t largest; /* range */
    _Atomic int64_t running;
    _Atomic int64_t most_running;
    _Atomic int64_t stop; /* hold() returns */
} account;

static void
raise_to(_Atomic int64_t *most, int64_t value)
{
    int64_t old = atomic_load(most);
    while (old < value && !atomic_compare_exchange_weak(most, &old, value)) {
    }
}

int
check_range(size_t begin, size_t end, void *data)
{
    account *self = data;
    atomic_fetch_add(&self->calls, 1);
    raise_to(&self->largest, (int64_t)(end - begin));
    raise_to(&self->most_running, atomic_fetch_add(&self->running, 1) + 1);
    if (self->nap) {
        nap(self->nap);
    }
    atomic_fetch_sub(&self->running, 1);
    int bad = self->bad >= 0 && (size_t)self->bad >= begin &&
              (size_t)self->bad < end;
    return bad ? (int)self->code : 0;
}

/* Turns bytes around, in every row; data: an int64_t that is returned instead
 * of the size unless it is 0. */
int64_t
invert(const void *in, size_t in_len, void *out, size_t out_len, void *data)
{
    if (data != NULL && *(int64_t *)data != 0) {
        return *(int64_t *)data;
    }
    for (size_t i = 0; i < in_len && i < out_len; i++) {
        ((unsigned char *)out)[i] = (unsigned char)~((const unsigned char *)in)[i];
    }
    return (int64_t)(in_len < out_len ? in_len : out_len);
}

/* The sum of a row of 8 doubles. */
int64_t
sum_rows(const void *in, size_t in_len, void *out, size_t out_len, void *data)
{
    (void)data;
    size_t rows = out_len / sizeof(double);
    if (in_len != rows * 8 * sizeof(double)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < 8; j++) {
            sum += ((const double *)in)[i * 8 + j];
        }
        ((double *)out)[i] = sum;
    }
    return 0;
}

double
halve(double x)
{
    return x / 2;
}

double
scale(double x, void *factor)
{
    return x * *(double *)factor;
}

void
increment(void *data)
{
    ++*(int64_t *)data;
}

int
fail_with(void *data)
{
    return (int)*(int64_t *)data;
}

/* Until data->stop. */
void
hold(void *data)
{
    while (!atomic_load(&((account *)data)->stop)) {
        nap(200);
    }
}

int
hold_range(size_t begin, size_t end, void *data)
{
    (void)begin, (void)end;
    atomic_fetch_add(&((account *)data)->calls, 1);
    hold(data);
    return 0;
}

float
single(float x)
{
    return x;
}
