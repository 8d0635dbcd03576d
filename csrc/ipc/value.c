/* SPDX-License-Identifier: MIT */
/* multiprocessing.Value of a simple C type, and what Array has in common with
 * it. */
#include "ipc/value.h"

#include "py/arguments.h"

#include <string.h>
#include <wchar.h>

#define SELF ((pyc_value *)self)

/* Bytes of an item, 0 for an unknown code. */
static Py_ssize_t
width_of(const char *code)
{
    static const struct {
        char code;
        unsigned char width;
    } widths[] = {
        {'c', 1},
        {'b', 1},
        {'B', 1},
        {'h', sizeof(short)},
        {'H', sizeof(short)},
        {'i', sizeof(int)},
        {'I', sizeof(int)},
        {'l', sizeof(long)},
        {'L', sizeof(long)},
        {'q', sizeof(long long)},
        {'Q', sizeof(long long)},
        {'f', sizeof(float)},
        {'d', sizeof(double)},
        {'u', sizeof(wchar_t)},
    };
    for (size_t i = 0; code[0] != '\0' && i < Py_ARRAY_LENGTH(widths); i++) {
        if (widths[i].code == code[0]) {
            return widths[i].width;
        }
    }
    return 0;
}

static PyObject *
number(char code, uint64_t bits)
{
    union {
        uint64_t bits;
        double number;
    } wide = {bits};
    union {
        uint32_t bits;
        float number;
    } narrow = {(uint32_t)bits};
    return PyFloat_FromDouble(code == 'd' ? wide.number
                                          : (double)narrow.number);
}

static PyObject *
character(char code, uint64_t bits)
{
    char byte = (char)bits;
    wchar_t wide = (wchar_t)bits;
    return code == 'c' ? PyBytes_FromStringAndSize(&byte, 1)
                       : PyUnicode_FromWideChar(&wide, 1);
}

PyObject *
pyc_item_object(char code, uint64_t bits)
{
    switch (code) {
    case 'b':
        return PyLong_FromLong((signed char)bits);
    case 'h':
        return PyLong_FromLong((short)bits);
    case 'i':
        return PyLong_FromLong((int)bits);
    case 'l':
        return PyLong_FromLong((long)bits);
    case 'q':
        return PyLong_FromLongLong((long long)bits);
    case 'f':
    case 'd':
        return number(code, bits);
    case 'c':
    case 'u':
        return character(code, bits);
    default:
        return PyLong_FromUnsignedLongLong(bits);
    }
}

static int
float_bits(char code, PyObject *object, uint64_t *bits)
{
    if (!PyFloat_CheckExact(object) && !PyLong_CheckExact(object)) {
        return 0;
    }
    double value = PyFloat_AsDouble(object);
    if (value == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    float narrow = (float)value;
    uint32_t narrow_bits;
    if (code == 'd') {
        memcpy(bits, &value, sizeof(*bits));
    }
    else {
        memcpy(&narrow_bits, &narrow, sizeof(narrow_bits));
        *bits = narrow_bits;
    }
    return 1;
}

int
pyc_item_bits(char code, PyObject *value, uint64_t *bits)
{
    if (code == 'c' || code == 'u') {
        return 0;
    }
    if (code == 'd' || code == 'f') {
        return float_bits(code, value, bits);
    }
    if (!PyLong_CheckExact(value)) {
        return 0;
    }
    *bits = PyLong_AsUnsignedLongLongMask(value);
    return 1;
}

/* A task may have taken it, which its own access must not wait for. */
int
pyc_value_wait(pyc_value *self)
{
    PyObject *taken = self->rlock != NULL ? pyc_rlock_enter(self->lock, NULL)
                                          : PyObject_CallNoArgs(self->acquire);
    Py_XDECREF(taken);
    return taken == NULL ? PYC_NOT_TAKEN : PYC_CALLED;
}

int
pyc_value_called(pyc_value *self, int how)
{
    if (how == PYC_NOT_TAKEN) {
        return -1;
    }
    PyObject *raised = pyc_take_exception();
    PyObject *given = self->rlock != NULL ? pyc_rlock_release(self->lock, NULL)
                                          : PyObject_CallNoArgs(self->release);
    Py_XDECREF(given);
    if (raised != NULL) {
        pyc_put_exception(raised);
        return -1;
    }
    return given == NULL ? -1 : 0;
}

int
pyc_value_is_bound(pyc_value *self)
{
    if (PYC_LIKELY(self->obj != NULL)) {
        return 1;
    }
    PyErr_Format(PyExc_ValueError, "%s.__init__() was not called",
                 Py_TYPE(self)->tp_name);
    return 0;
}

PyObject *
pyc_value_ask(pyc_value *self, PyObject *key, PyObject *value)
{
    int rc = 0;
    PyObject *result = NULL;
    if (!pyc_value_is_bound(self)) {
        return NULL;
    }
    int how = pyc_value_wait(self);
    if (how == PYC_NOT_TAKEN) {
        return NULL;
    }
    if (value == NULL) {
        result = key == NULL ? PyObject_GetAttrString(self->obj, "value")
                             : PyObject_GetItem(self->obj, key);
    }
    else {
        rc = key == NULL ? PyObject_SetAttrString(self->obj, "value", value)
                         : PyObject_SetItem(self->obj, key, value);
        result = rc < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (pyc_value_give(self, how) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* Whether a type's acquire() and release() are those of our RLock. */
static int
is_rlock(pyc_ipc *state, PyObject *lock)
{
    static const char *const names[] = {"acquire", "release"};
    PyTypeObject *type = Py_TYPE(lock);
    if (!PyType_IsSubtype(type, state->rlock_type)) {
        return 0;
    }
    int same = 1;
    for (int i = 0; i < 2 && same == 1; i++) {
        PyObject *theirs = PyObject_GetAttrString((PyObject *)type, names[i]);
        PyObject *ours = theirs == NULL
                             ? NULL
                             : PyObject_GetAttrString(
                                   (PyObject *)state->rlock_type, names[i]);
        same = ours == NULL ? -1 : theirs == ours;
        Py_XDECREF(theirs);
        Py_XDECREF(ours);
    }
    return same;
}

static int
set_method(PyObject **method, PyObject *of, const char *name)
{
    Py_XSETREF(*method, PyObject_GetAttrString(of, name));
    return *method == NULL ? -1 : 0;
}

/* The last that may fail: with `at` set it is read and written. */
static int
bind_memory(pyc_value *self, PyObject *memory, const char *code,
            Py_ssize_t length)
{
    size_t size;
    Py_ssize_t width = width_of(code);
    if (memory == Py_None || width == 0) {
        return 0;
    }
    char *at = pyc_memory_of(self->state, memory, &size);
    if (at == NULL) {
        return -1;
    }
    if (length < 0 || (size_t)length > size / (size_t)width) {
        PyErr_Format(PyExc_ValueError, "%R is too small for %zd items", memory,
                     length);
        return -1;
    }
    self->at = at;
    self->width = width;
    self->code[0] = code[0];
    return 0;
}

/* _bind(obj, lock, memory, code, length): what __init__() does. `code` is ""
 * unless it is the type code of a simple type; `memory` is where the items of
 * `obj` are, or None. */
PyObject *
pyc_value_bind(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 5 || SELF->obj != NULL) {
        PyErr_SetString(PyExc_TypeError, "_bind() is for __init__()");
        return NULL;
    }
    PyObject *obj = args[0], *lock = args[1], *memory = args[2];
    const char *code = PyUnicode_AsUTF8(args[3]);
    Py_ssize_t length = code == NULL ? -1 : PyLong_AsSsize_t(args[4]);
    if (length == -1 && PyErr_Occurred()) {
        return NULL;
    }
    int ours = is_rlock(SELF->state, lock);
    if (ours < 0 || set_method(&SELF->acquire, lock, "acquire") < 0 ||
        set_method(&SELF->release, lock, "release") < 0 ||
        bind_memory(SELF, memory, code, length) < 0) {
        return NULL;
    }
    SELF->length = length;
    SELF->rlock = ours ? (pyc_ipc_lock *)lock : NULL;
    SELF->memory = Py_NewRef(memory);
    SELF->lock = Py_NewRef(lock);
    SELF->obj = Py_NewRef(obj);
    Py_RETURN_NONE;
}

PyObject *
pyc_value_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
              PyObject *Py_UNUSED(kwargs))
{
    PyObject *module = PyType_GetModuleByDef(type, &pyc_ipc_module);
    PyObject *self = module == NULL ? NULL : type->tp_alloc(type, 0);
    if (self != NULL) {
        SELF->state = pyc_ipc_of_module(module);
    }
    return self;
}

int
pyc_value_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(SELF->obj);
    Py_VISIT(SELF->lock);
    Py_VISIT(SELF->acquire);
    Py_VISIT(SELF->release);
    Py_VISIT(SELF->memory);
    return 0;
}

int
pyc_value_clear(PyObject *self)
{
    SELF->at = NULL;
    SELF->rlock = NULL;
    Py_CLEAR(SELF->obj);
    Py_CLEAR(SELF->lock);
    Py_CLEAR(SELF->acquire);
    Py_CLEAR(SELF->release);
    Py_CLEAR(SELF->memory);
    return 0;
}

void
pyc_value_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pyc_value_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *
pyc_value_get_obj(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return pyc_value_is_bound(SELF) ? Py_NewRef(SELF->obj) : NULL;
}

PyObject *
pyc_value_get_lock(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return pyc_value_is_bound(SELF) ? Py_NewRef(SELF->lock) : NULL;
}

PyObject *
pyc_value_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!pyc_value_is_bound(SELF)) {
        return NULL;
    }
    return SELF->rlock != NULL
               ? pyc_rlock_enter(SELF->lock, NULL)
               : PyObject_CallMethod(SELF->lock, "__enter__", NULL);
}

PyObject *
pyc_value_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (!pyc_value_is_bound(SELF)) {
        return NULL;
    }
    if (SELF->rlock != NULL) {
        return pyc_rlock_release(SELF->lock, NULL);
    }
    PyObject *exit = PyObject_GetAttrString(SELF->lock, "__exit__");
    PyObject *result =
        exit == NULL ? NULL
                     : PyObject_Vectorcall(exit, args, (size_t)nargs, NULL);
    Py_XDECREF(exit);
    return result;
}

PyMemberDef pyc_value_members[] = {
    {"_obj", T_OBJECT_EX, offsetof(pyc_value, obj), READONLY, NULL},
    {"_lock", T_OBJECT_EX, offsetof(pyc_value, lock), READONLY, NULL},
    {"acquire", T_OBJECT_EX, offsetof(pyc_value, acquire), READONLY,
     "acquire() of the lock."},
    {"release", T_OBJECT_EX, offsetof(pyc_value, release), READONLY,
     "release() of the lock."},
    {NULL},
};

static PyObject *
get_value(PyObject *self, void *Py_UNUSED(closure))
{
    if (PYC_UNLIKELY(SELF->at == NULL)) {
        return pyc_value_ask(SELF, NULL, NULL);
    }
    int how = pyc_value_take(SELF);
    if (how == PYC_NOT_TAKEN) {
        return NULL;
    }
    uint64_t bits = pyc_item_load(SELF->at, SELF->width);
    return pyc_value_give(SELF, how) < 0 ? NULL
                                         : pyc_item_object(SELF->code[0], bits);
}

static int
set_value(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    uint64_t bits;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete value");
        return -1;
    }
    if (PYC_UNLIKELY(SELF->at == NULL ||
                     !pyc_item_bits(SELF->code[0], value, &bits))) {
        PyObject *done = pyc_value_ask(SELF, NULL, value);
        Py_XDECREF(done);
        return done == NULL ? -1 : 0;
    }
    int how = pyc_value_take(SELF);
    if (how == PYC_NOT_TAKEN) {
        return -1;
    }
    pyc_item_store(SELF->at, SELF->width, bits);
    return pyc_value_give(SELF, how);
}

static PyGetSetDef value_getset[] = {
    {"value", get_value, set_value,
     "The value, read or written under the lock.", NULL},
    {NULL},
};

static PyMethodDef value_methods[] = {PYC_VALUE_METHODS, {NULL}};

static PyType_Slot value_slots[] = {
    PYC_VALUE_SLOTS,
    {Py_tp_getset, value_getset},
    {Py_tp_methods, value_methods},
    {0, NULL},
};

PyType_Spec pyc_value_spec = {
    .name = "pyconc._ipc.Value",
    .basicsize = sizeof(pyc_value),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = value_slots,
};
