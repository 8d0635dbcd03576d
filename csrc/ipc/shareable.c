/* SPDX-License-Identifier: MIT */
/* The items of a ShareableList, in the layout of the standard library's:
 *
 *   8 bytes              the number of items, n
 *   8 (n + 1) bytes      where each item's data begins and the last one's ends
 *   the data
 *   8 n bytes            the format of each item, as struct knows it
 *   n bytes              what becomes of what struct would unpack
 *
 * Another process may write anything there: each access is checked. */
#include "ipc/posix.h"

#include <ctype.h>
#include <string.h>

#define TEXT_CODE 1
#define BYTES_CODE 2
#define NONE_CODE 3

#define INT_FORMAT "q\0\0\0\0\0\0\0"
#define FLOAT_FORMAT "d\0\0\0\0\0\0\0"
#define BOOL_FORMAT "xxxxxxx?"
#define NONE_FORMAT "xxxxxx?x"

typedef struct {
    PyObject_HEAD
    PyObject *shm; /* a pyc_named; NULL before _attach() */
    Py_ssize_t length;
    Py_ssize_t data;    /* where the data begins */
    Py_ssize_t formats; /* and ends */
} shareable;

/* One item of the mapping. */
typedef struct {
    pyc_mapping *mapping; /* owned */
    char *data;
    Py_ssize_t room;
    char *format;
    char *code;
} item;

#define SELF ((shareable *)self)

static int64_t
word(const pyc_mapping *mapping, Py_ssize_t index)
{
    return __atomic_load_n((int64_t *)mapping->memory + index,
                           __ATOMIC_RELAXED);
}

static int
corrupt(const shareable *self)
{
    PyErr_Format(PyExc_ValueError, "%R does not hold a ShareableList",
                 self->shm);
    return -1;
}

static int
find_item(shareable *self, Py_ssize_t index, const char *out_of_range,
          item *found)
{
    if (self->shm == NULL || index < 0 || index >= self->length) {
        PyErr_SetString(PyExc_IndexError, out_of_range);
        return -1;
    }
    found->mapping = pyc_named_mapping(self->shm);
    if (found->mapping == NULL) {
        return -1;
    }
    int64_t begin = -1, end = -1;
    if (found->mapping->size >= self->formats + 9 * self->length) {
        begin = word(found->mapping, 1 + index);
        end = word(found->mapping, 2 + index);
    }
    if (begin < 0 || begin % 8 != 0 || end < 8 || begin > end - 8 ||
        end > self->formats - self->data) {
        Py_DECREF(found->mapping);
        return corrupt(self);
    }
    found->data = found->mapping->memory + self->data + begin;
    found->room = (Py_ssize_t)(end - begin);
    found->format = found->mapping->memory + self->formats + 8 * index;
    found->code =
        found->mapping->memory + self->formats + 8 * self->length + index;
    return 0;
}

/* The number in a format like "24s", or -1. */
static Py_ssize_t
string_size(const char *format)
{
    Py_ssize_t size = 0;
    int i = 0;
    while (i < 7 && isdigit((unsigned char)format[i])) {
        size = 10 * size + (format[i++] - '0');
    }
    return i > 0 && format[i] == 's' ? size : -1;
}

/* Of a copy: what is decoded is read more than once, and must not change. */
static PyObject *
load_text(const char *data, Py_ssize_t size)
{
    char few[256], *copy = few;
    if (size > (Py_ssize_t)sizeof(few)) {
        copy = PyMem_Malloc((size_t)size);
        if (copy == NULL) {
            return PyErr_NoMemory();
        }
    }
    memcpy(copy, data, (size_t)size);
    PyObject *text = PyUnicode_DecodeUTF8(copy, size, NULL);
    if (copy != few) {
        PyMem_Free(copy);
    }
    return text;
}

static PyObject *
load_string(shareable *self, const item *of, Py_ssize_t size, char code)
{
    if (size < 0 || size > of->room) {
        corrupt(self);
        return NULL;
    }
    if (code == TEXT_CODE || code == BYTES_CODE) {
        while (size > 0 && of->data[size - 1] == '\0') {
            size--;
        }
    }
    return code == TEXT_CODE ? load_text(of->data, size)
                             : PyBytes_FromStringAndSize(of->data, size);
}

static PyObject *
load(shareable *self, const item *of)
{
    char format[8];
    memcpy(format, of->format, sizeof(format));
    char code = *of->code;
    if (code == NONE_CODE) {
        Py_RETURN_NONE;
    }
    Py_ssize_t size = string_size(format);
    if (size >= 0) {
        return load_string(self, of, size, code);
    }
    uint64_t bits = __atomic_load_n((uint64_t *)of->data, __ATOMIC_RELAXED);
    if (code == 0 && memcmp(format, INT_FORMAT, 8) == 0) {
        return PyLong_FromLongLong((long long)bits);
    }
    if (code == 0 && memcmp(format, FLOAT_FORMAT, 8) == 0) {
        double number;
        memcpy(&number, &bits, sizeof(number));
        return PyFloat_FromDouble(number);
    }
    if (code == 0 && memcmp(format, BOOL_FORMAT, 8) == 0) {
        return PyBool_FromLong(of->data[7] != 0);
    }
    corrupt(self);
    return NULL;
}

static void
describe(const item *of, const char *format, char code)
{
    memcpy(of->format, format, 8);
    *of->code = code;
}

static int
store_word(const item *of, const char *format, char code, uint64_t bits)
{
    describe(of, format, code);
    __atomic_store_n((uint64_t *)of->data, bits, __ATOMIC_RELAXED);
    return 0;
}

static int
store_int(shareable *self, const item *of, PyObject *value)
{
    int overflow;
    pyc_ipc *state = pyc_posix_state((PyObject *)self);
    if (state == NULL) {
        return -1;
    }
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0) {
        PyErr_Format(state->struct_error, "%R does not fit into 64 bits",
                     value);
        return -1;
    }
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    return store_word(of, INT_FORMAT, 0, (uint64_t)number);
}

static int
store_string(const item *of, PyObject *value)
{
    const char *bytes;
    Py_ssize_t size;
    if (PyUnicode_Check(value)) {
        bytes = PyUnicode_AsUTF8AndSize(value, &size);
        if (bytes == NULL) {
            return -1;
        }
    }
    else {
        bytes = PyBytes_AS_STRING(value);
        size = PyBytes_GET_SIZE(value);
    }
    Py_ssize_t room = string_size(of->format);
    int keeps_format = room >= 0 && room <= of->room;
    if (!keeps_format) {
        room = of->room;
    }
    if (size > room) {
        PyErr_Format(PyExc_ValueError,
                     "bytes/str item exceeds available storage: %zd bytes, "
                     "there are %zd",
                     size, room);
        return -1;
    }
    char format[16] = {0};
    if (keeps_format) {
        memcpy(format, of->format, 8);
    }
    else if (snprintf(format, sizeof(format), "%zds", room) > 8) {
        PyErr_SetString(PyExc_ValueError,
                        "bytes/str item exceeds available storage");
        return -1;
    }
    describe(of, format, PyUnicode_Check(value) ? TEXT_CODE : BYTES_CODE);
    memcpy(of->data, bytes, (size_t)size);
    memset(of->data + size, 0, (size_t)(room - size));
    return 0;
}

static int
store(shareable *self, const item *of, PyObject *value)
{
    if (value == Py_None) {
        return store_word(of, NONE_FORMAT, NONE_CODE, 0);
    }
    if (PyBool_Check(value)) {
        /* The last byte is the bool, whatever the order of the bytes. */
        describe(of, BOOL_FORMAT, 0);
        memset(of->data, 0, 7);
        of->data[7] = value == Py_True;
        return 0;
    }
    if (PyLong_Check(value)) {
        return store_int(self, of, value);
    }
    if (PyFloat_Check(value)) {
        uint64_t bits;
        double number = PyFloat_AS_DOUBLE(value);
        memcpy(&bits, &number, sizeof(bits));
        return store_word(of, FLOAT_FORMAT, 0, bits);
    }
    if (PyUnicode_Check(value) || PyBytes_Check(value)) {
        return store_string(of, value);
    }
    PyErr_Format(PyExc_KeyError,
                 "%R: a ShareableList holds int, float, bool, str, bytes and "
                 "None",
                 value);
    return -1;
}

static PyObject *
get(PyObject *self, Py_ssize_t index)
{
    item of;
    if (find_item(SELF, index, "index out of range", &of) < 0) {
        return NULL;
    }
    PyObject *value = load(SELF, &of);
    Py_DECREF(of.mapping);
    return value;
}

static Py_ssize_t
position(PyObject *self, PyObject *key)
{
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    return index < 0 ? index + SELF->length : index;
}

static PyObject *
shareable_subscript(PyObject *self, PyObject *key)
{
    Py_ssize_t index = position(self, key);
    return PyErr_Occurred() ? NULL : get(self, index);
}

static int
shareable_assign(PyObject *self, PyObject *key, PyObject *value)
{
    Py_ssize_t index = position(self, key);
    item of;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "a ShareableList cannot change its length");
    }
    if (PyErr_Occurred() ||
        find_item(SELF, index, "assignment index out of range", &of) < 0) {
        return -1;
    }
    int rc = store(SELF, &of, value);
    Py_DECREF(of.mapping);
    return rc;
}

static Py_ssize_t
shareable_length(PyObject *self)
{
    pyc_mapping *mapping = NULL;
    if (SELF->shm != NULL) {
        mapping = pyc_named_mapping(SELF->shm);
    }
    if (mapping == NULL) {
        return SELF->shm == NULL ? 0 : -1;
    }
    Py_DECREF(mapping);
    return SELF->length;
}

/* _get_packing_format(position): as the standard one has it. */
static PyObject *
shareable_format(PyObject *self, PyObject *key)
{
    Py_ssize_t index = position(self, key);
    item of;
    if (PyErr_Occurred() ||
        find_item(SELF, index, "Requested position out of range.", &of) < 0) {
        return NULL;
    }
    Py_ssize_t size = (Py_ssize_t)strnlen(of.format, 8);
    PyObject *format = PyUnicode_DecodeUTF8(of.format, size, NULL);
    Py_DECREF(of.mapping);
    return format;
}

/* _attach(shm): reads what the memory holds from now on. */
static PyObject *
shareable_attach(PyObject *self, PyObject *shm)
{
    pyc_ipc *state = pyc_posix_state(self);
    if (state == NULL) {
        return NULL;
    }
    if (!PyObject_TypeCheck(shm, state->named_type)) {
        PyErr_Format(PyExc_TypeError, "%R is no SharedMemory", shm);
        return NULL;
    }
    pyc_mapping *mapping = pyc_named_mapping(shm);
    if (mapping == NULL) {
        return NULL;
    }
    int64_t most = mapping->size / 8;
    int64_t length = most > 0 ? word(mapping, 0) : -1;
    int64_t data = -1;
    if (length >= 0 && length + 2 <= most) {
        data = word(mapping, 1 + (Py_ssize_t)length);
    }
    int good = data >= 0 && data <= mapping->size &&
               (length + 2) * 8 + data + 9 * length <= mapping->size;
    Py_DECREF(mapping);
    Py_XSETREF(SELF->shm, Py_NewRef(shm));
    if (!good) {
        corrupt(SELF);
        return NULL;
    }
    SELF->length = (Py_ssize_t)length;
    SELF->data = (Py_ssize_t)(length + 2) * 8;
    SELF->formats = SELF->data + (Py_ssize_t)data;
    Py_RETURN_NONE;
}

static int
shareable_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(SELF->shm);
    return 0;
}

static int
shareable_clear(PyObject *self)
{
    Py_CLEAR(SELF->shm);
    return 0;
}

static void
shareable_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    shareable_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef shareable_methods[] = {
    {"_attach", shareable_attach, METH_O, NULL},
    {"_get_packing_format", shareable_format, METH_O, NULL},
    {NULL},
};

static PyMemberDef shareable_members[] = {
    {"shm", T_OBJECT_EX, offsetof(shareable, shm), READONLY,
     "The SharedMemory it lies in."},
    {"_list_len", T_PYSSIZET, offsetof(shareable, length), READONLY, NULL},
    {NULL},
};

static PyType_Slot shareable_slots[] = {
    {Py_tp_dealloc, shareable_dealloc},
    {Py_tp_traverse, shareable_traverse},
    {Py_tp_clear, shareable_clear},
    {Py_tp_methods, shareable_methods},
    {Py_tp_members, shareable_members},
    {Py_sq_item, get},
    {Py_sq_length, shareable_length},
    {Py_mp_length, shareable_length},
    {Py_mp_subscript, shareable_subscript},
    {Py_mp_ass_subscript, shareable_assign},
    {0, NULL},
};

PyType_Spec pyc_shareable_list_spec = {
    .name = "pyconc._ipc.ShareableList",
    .basicsize = sizeof(shareable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = shareable_slots,
};
