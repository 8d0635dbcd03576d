/* SPDX-License-Identifier: MIT */
/* An integer in shared memory that is changed without a lock, and on which
 * processes wait. */
#include "ipc/bell.h"
#include "ipc/shared.h"
#include "ipc/sleep.h"
#include "ipc/values.h"

#include "py/arguments.h"

#include <limits.h>
#include <string.h>

#define WAITERS 1u /* in `signal`: somebody sleeps on it */
#define ONE_WAKE 2u
#define CODES "iIlLqQ"

typedef struct {
    _Atomic uint64_t value;  /* extended to 64 bits as its type demands */
    _Atomic uint32_t signal; /* changes with each wake() */
    _Atomic uint32_t code;
    pyc_bells bells;
} atomic_memory;

typedef struct {
    pyc_shared shared;
    char code;
} atomic_object;

enum { ADD, SUB, AND, OR, XOR, EXCHANGE };

#define SELF ((atomic_object *)self)
#define MEMORY(self) PYC_MEMORY(self, atomic_memory)

static int
is_signed(char code)
{
    return code == 'i' || code == 'l' || code == 'q';
}

static int
is_narrow(char code)
{
    return code == 'i' || code == 'I' ||
           (sizeof(long) == 4 && code != 'q' && code != 'Q');
}

/* As the type has it: the result of arithmetic wraps around. */
static uint64_t
wrapped(char code, uint64_t bits)
{
    if (!is_narrow(code)) {
        return bits;
    }
    return is_signed(code) ? (uint64_t)(int32_t)(uint32_t)bits
                           : (uint64_t)(uint32_t)bits;
}

static PyObject *
as_object(PyObject *self, uint64_t bits)
{
    return is_signed(SELF->code) ? PyLong_FromLongLong((long long)bits)
                                 : PyLong_FromUnsignedLongLong(bits);
}

/* 0, or -1 with an OverflowError or TypeError. */
static int
as_bits(PyObject *self, PyObject *object, uint64_t *bits)
{
    int overflow = 0;
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) {
        return -1;
    }
    if (is_signed(SELF->code)) {
        *bits = (uint64_t)PyLong_AsLongLongAndOverflow(number, &overflow);
    }
    else {
        *bits = PyLong_AsUnsignedLongLong(number);
        overflow = PyErr_Occurred() != NULL;
        PyErr_Clear();
    }
    Py_DECREF(number);
    if (overflow || *bits != wrapped(SELF->code, *bits)) {
        PyErr_Format(PyExc_OverflowError,
                     "%R does not fit into an AtomicInt of type '%c'", object,
                     SELF->code);
        return -1;
    }
    return 0;
}

static uint64_t
result_of(int operation, uint64_t value, uint64_t operand)
{
    switch (operation) {
    case ADD:
        return value + operand;
    case SUB:
        return value - operand;
    case AND:
        return value & operand;
    case OR:
        return value | operand;
    case XOR:
        return value ^ operand;
    default:
        return operand;
    }
}

/* The value before. */
static uint64_t
change(PyObject *self, int operation, uint64_t operand)
{
    _Atomic uint64_t *value = &MEMORY(self)->value;
    if (!is_narrow(SELF->code)) {
        switch (operation) {
        case ADD:
            return atomic_fetch_add(value, operand);
        case SUB:
            return atomic_fetch_sub(value, operand);
        case EXCHANGE:
            return atomic_exchange(value, operand);
        }
    }
    uint64_t old = atomic_load(value);
    while (!atomic_compare_exchange_weak(
        value, &old, wrapped(SELF->code, result_of(operation, old, operand)))) {
    }
    return old;
}

static PyObject *
fetch(PyObject *self, int operation, PyObject *operand)
{
    uint64_t bits;
    if (as_bits(self, operand, &bits) < 0) {
        return NULL;
    }
    return as_object(self, change(self, operation, bits));
}

static PyObject *
fetch_add(PyObject *self, PyObject *operand)
{
    return fetch(self, ADD, operand);
}

static PyObject *
fetch_sub(PyObject *self, PyObject *operand)
{
    return fetch(self, SUB, operand);
}

static PyObject *
fetch_and(PyObject *self, PyObject *operand)
{
    return fetch(self, AND, operand);
}

static PyObject *
fetch_or(PyObject *self, PyObject *operand)
{
    return fetch(self, OR, operand);
}

static PyObject *
fetch_xor(PyObject *self, PyObject *operand)
{
    return fetch(self, XOR, operand);
}

static PyObject *
exchange(PyObject *self, PyObject *value)
{
    return fetch(self, EXCHANGE, value);
}

static PyObject *
load(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return as_object(self, atomic_load(&MEMORY(self)->value));
}

static PyObject *
store(PyObject *self, PyObject *value)
{
    uint64_t bits;
    if (as_bits(self, value, &bits) < 0) {
        return NULL;
    }
    atomic_store(&MEMORY(self)->value, bits);
    Py_RETURN_NONE;
}

static PyObject *
compare_exchange(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t expected, desired;
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError,
                     "compare_exchange() takes 2 arguments (%zd given)", nargs);
        return NULL;
    }
    if (as_bits(self, args[0], &expected) < 0 ||
        as_bits(self, args[1], &desired) < 0) {
        return NULL;
    }
    return PyBool_FromLong(atomic_compare_exchange_strong(&MEMORY(self)->value,
                                                          &expected, desired));
}

/* Says that somebody will sleep; what to sleep on. */
static uint32_t
announce(atomic_memory *memory)
{
    return atomic_fetch_or(&memory->signal, WAITERS) | WAITERS;
}

static PyObject *
wait(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const pyc_signature signature = {
        "wait", {"expected", "timeout"}, .required = 1};
    PyObject *given[2] = {NULL, NULL};
    atomic_memory *memory = MEMORY(self);
    uint64_t expected;
    int64_t deadline;
    if (pyc_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        as_bits(self, given[0], &expected) < 0 ||
        pyc_sleep_deadline(NULL, given[1], &deadline) < 0) {
        return NULL;
    }
    int end = PYC_WOKEN;
    while (atomic_load(&memory->value) == expected) {
        if (end == PYC_TOO_LATE) {
            Py_RETURN_FALSE;
        }
        uint32_t signal = announce(memory);
        if (atomic_load(&memory->value) == expected) {
            end = pyc_sleep(&memory->signal, signal, deadline);
        }
        if (end == PYC_INTERRUPTED) {
            return NULL;
        }
    }
    Py_RETURN_TRUE;
}

static PyObject *
wake(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const pyc_signature signature = {"wake", {"count"}};
    PyObject *given = Py_None;
    atomic_memory *memory = MEMORY(self);
    int count = INT_MAX;
    if (pyc_arguments(&signature, args, nargs, kwnames, &given) < 0) {
        return NULL;
    }
    if (given != Py_None) {
        count = pyc_as_int(given);
        if (count == -1 && PyErr_Occurred()) {
            return NULL;
        }
        if (count < 1) {
            PyErr_Format(PyExc_ValueError, "count must be positive, not %R",
                         given);
            return NULL;
        }
    }
    uint32_t old = atomic_load(&memory->signal), next;
    do {
        next = (old | WAITERS) + ONE_WAKE - (count == INT_MAX ? WAITERS : 0);
    } while ((old & WAITERS) != 0 &&
             !atomic_compare_exchange_weak(&memory->signal, &old, next));
    if ((old & WAITERS) != 0) {
        pyc_wake(&memory->signal, count);
    }
    pyc_bells_ring(pyc_ipc_of(self), PYC_ARENA(self), &memory->bells);
    Py_RETURN_NONE;
}

static PyObject *
arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromUnsignedLongLong(
        pyc_bells_arm(PYC_ARENA(self), &MEMORY(self)->bells));
}

static int
set_code(PyObject *self, int code)
{
    if (code == 0 || strchr(CODES, code) == NULL) {
        PyErr_Format(PyExc_ValueError, "an AtomicInt's typecode is one of "
                                       "'i', 'I', 'l', 'L', 'q' and 'Q'");
        return -1;
    }
    SELF->code = (char)code;
    return 0;
}

static PyObject *
atomic_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"typecode", "value", NULL};
    int code = 'q';
    PyObject *value = NULL;
    uint64_t bits = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|CO:AtomicInt", names,
                                     &code, &value)) {
        return NULL;
    }
    PyObject *self =
        pyc_shared_new(type, sizeof(atomic_memory), PYC_KIND_ATOMIC);
    if (self == NULL) {
        return NULL;
    }
    if (set_code(self, code) < 0 ||
        (value != NULL && as_bits(self, value, &bits) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    atomic_store(&MEMORY(self)->value, bits);
    atomic_store(&MEMORY(self)->code, (uint32_t)code);
    return self;
}

static PyObject *
atomic_receive(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *self =
        pyc_shared_receive((PyTypeObject *)type, args, nargs, PYC_KIND_ATOMIC);
    if (self != NULL &&
        set_code(self, (unsigned char)atomic_load(&MEMORY(self)->code)) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

static PyObject *
get_value(PyObject *self, void *Py_UNUSED(closure))
{
    return load(self, NULL);
}

static int
set_value(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete value");
        return -1;
    }
    PyObject *done = store(self, value);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *
get_typecode(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromStringAndSize(&SELF->code, 1);
}

static PyObject *
atomic_repr(PyObject *self)
{
    PyObject *value = load(self, NULL);
    PyObject *repr = value == NULL ? NULL
                                   : PyUnicode_FromFormat("AtomicInt('%c', %S)",
                                                          SELF->code, value);
    Py_XDECREF(value);
    return repr;
}

/* clang-format off */
PyDoc_STRVAR(wait_doc,
"wait($self, /, expected, timeout=None)\n--\n\n"
"Sleeps while the value is `expected`: True once it is not, False when timeout\n"
"seconds have passed. Whoever changes the value calls wake(); without it, the\n"
"change is seen some 40 ms later.");
PyDoc_STRVAR(wake_doc,
"wake($self, /, count=None)\n--\n\n"
"Has `count` of those who wait() look at the value; None: all.");
PyDoc_STRVAR(compare_exchange_doc,
"compare_exchange($self, expected, desired, /)\n--\n\n"
"Stores `desired` if the value is `expected`: whether it was.");
PyDoc_STRVAR(atomic_doc,
"AtomicInt(typecode='q', value=0)\n--\n\n"
"An integer in shared memory that processes and threads change without a lock.\n\n"
"typecode: 'i', 'I', 'l', 'L', 'q' or 'Q', as in multiprocessing.Value. A value\n"
"that does not fit raises OverflowError; what arithmetic yields wraps around.\n"
"Each operation is one step (sequentially consistent); `value` is load() and\n"
"store(), so that `a.value += 1` is two.");
/* clang-format on */

#define FETCH_DOC(name, what)                                                  \
    name "($self, operand, /)\n--\n\n" what " Returns the value before."

static PyMethodDef methods[] = {
    {"load", load, METH_NOARGS, "load($self, /)\n--\n\nThe value."},
    {"store", store, METH_O, "store($self, value, /)\n--\n\nSets the value."},
    {"exchange", exchange, METH_O,
     "exchange($self, value, /)\n--\n\n"
     "Sets the value. Returns the value before."},
    {"compare_exchange", PYC_KEYWORDS(compare_exchange), METH_FASTCALL,
     compare_exchange_doc},
    {"fetch_add", fetch_add, METH_O, FETCH_DOC("fetch_add", "Adds.")},
    {"fetch_sub", fetch_sub, METH_O, FETCH_DOC("fetch_sub", "Subtracts.")},
    {"fetch_and", fetch_and, METH_O, FETCH_DOC("fetch_and", "Bitwise and.")},
    {"fetch_or", fetch_or, METH_O, FETCH_DOC("fetch_or", "Bitwise or.")},
    {"fetch_xor", fetch_xor, METH_O, FETCH_DOC("fetch_xor", "Bitwise xor.")},
    {"wait", PYC_KEYWORDS(wait), METH_FASTCALL | METH_KEYWORDS, wait_doc},
    {"wake", PYC_KEYWORDS(wake), METH_FASTCALL | METH_KEYWORDS, wake_doc},
    {"arm", arm, METH_NOARGS,
     "arm($self, /)\n--\n\n"
     "Has the next wake() ring this process's bell: with which key."},
    {"receive", PYC_KEYWORDS(atomic_receive), METH_FASTCALL | METH_CLASS,
     "receive($type, sent, extra=None, /)\n--\n\n"
     "The integer that another process sent."},
    PYC_SHARED_METHODS,
    {NULL},
};

static PyGetSetDef getset[] = {
    {"value", get_value, set_value, "load() and store().", NULL},
    {"typecode", get_typecode, NULL, "As it was made with.", NULL},
    {NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, atomic_new},
    {Py_tp_doc, (void *)atomic_doc},
    {Py_tp_methods, methods},
    {Py_tp_getset, getset},
    {Py_tp_repr, atomic_repr},
    PYC_SHARED_SLOTS,
    {0, NULL},
};

PyType_Spec pyc_atomic_spec = {
    .name = "pyconc._ipc.AtomicInt",
    .basicsize = sizeof(atomic_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
