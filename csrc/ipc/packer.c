/* SPDX-License-Identifier: MIT */
#include "ipc/packer.h"

typedef struct {
    PyObject_HEAD
    PyObject *pickler;
    PyObject *dump, *clear_memo; /* its methods */
    PyObject *forking, *general; /* dicts of reducers by type */
    pyc_packed packed;
} packer;

/* write(data): the pickler's file. */
static PyObject *
packer_write(PyObject *object, PyObject *data)
{
    pyc_packed *packed = &((packer *)object)->packed;
    PyObject *bytes =
        PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL) {
        return NULL;
    }
    if (packed->first == NULL) {
        packed->first = bytes;
        Py_RETURN_NONE;
    }
    if (packed->rest == NULL) {
        packed->rest = PyList_New(0);
    }
    int rc = packed->rest == NULL ? -1 : PyList_Append(packed->rest, bytes);
    Py_DECREF(bytes);
    if (rc < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* buffer(pickle_buffer): whether it is to stay in the pickle. */
static PyObject *
packer_buffer(PyObject *object, PyObject *buffer)
{
    pyc_packed *packed = &((packer *)object)->packed;
    Py_buffer view;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_FULL_RO) < 0) {
        return NULL;
    }
    int is_large = view.len >= PYC_BUFFER_LEAST &&
                   PyBuffer_IsContiguous(&view, 'A') &&
                   (packed->buffers == NULL ||
                    PyList_GET_SIZE(packed->buffers) < PYC_BUFFERS_MOST);
    PyBuffer_Release(&view);
    if (!is_large) {
        Py_RETURN_TRUE;
    }
    if (packed->buffers == NULL) {
        packed->buffers = PyList_New(0);
    }
    if (packed->buffers == NULL || PyList_Append(packed->buffers, buffer) < 0) {
        return NULL;
    }
    Py_RETURN_FALSE;
}

/* packer[type]: the pickler's dispatch_table. */
static PyObject *
packer_reducer(PyObject *object, PyObject *type)
{
    packer *self = (packer *)object;
    PyObject *found = PyDict_GetItemWithError(self->forking, type);
    if (found == NULL && !PyErr_Occurred()) {
        found = PyDict_GetItemWithError(self->general, type);
    }
    if (found == NULL && !PyErr_Occurred()) {
        PyErr_SetObject(PyExc_KeyError, type);
    }
    return Py_XNewRef(found);
}

static int
packer_traverse(PyObject *object, visitproc visit, void *arg)
{
    packer *self = (packer *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->pickler);
    Py_VISIT(self->dump);
    Py_VISIT(self->clear_memo);
    Py_VISIT(self->forking);
    Py_VISIT(self->general);
    Py_VISIT(self->packed.rest);
    Py_VISIT(self->packed.buffers);
    return 0;
}

void
pyc_packed_clear(pyc_packed *packed)
{
    Py_CLEAR(packed->first);
    Py_CLEAR(packed->rest);
    Py_CLEAR(packed->buffers);
}

static int
packer_clear(PyObject *object)
{
    packer *self = (packer *)object;
    Py_CLEAR(self->pickler);
    Py_CLEAR(self->dump);
    Py_CLEAR(self->clear_memo);
    Py_CLEAR(self->forking);
    Py_CLEAR(self->general);
    pyc_packed_clear(&self->packed);
    return 0;
}

static void
packer_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    packer_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {{"write", packer_write, METH_O, NULL},
                                {"buffer", packer_buffer, METH_O, NULL},
                                {NULL}};

static PyType_Slot slots[] = {
    {Py_tp_methods, methods},          {Py_mp_subscript, packer_reducer},
    {Py_tp_traverse, packer_traverse}, {Py_tp_clear, packer_clear},
    {Py_tp_dealloc, packer_dealloc},   {0, NULL}};

PyType_Spec pyc_packer_spec = {
    .name = "pyconc._ipc._Packer",
    .basicsize = sizeof(packer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

/* The attribute of an attribute of a module; both exist. */
static PyObject *
find(const char *module, const char *name, const char *inner)
{
    PyObject *found = NULL, *from = PyImport_ImportModule(module);
    if (from != NULL) {
        found = PyObject_GetAttrString(from, name);
        Py_DECREF(from);
    }
    if (found != NULL && inner != NULL) {
        Py_SETREF(found, PyObject_GetAttrString(found, inner));
    }
    return found;
}

static int
set_up(packer *self, PyObject *type)
{
    int rc = -1;
    PyObject *args = NULL, *kwargs = NULL;
    PyObject *buffer = PyObject_GetAttrString((PyObject *)self, "buffer");
    if (buffer == NULL) {
        goto done;
    }
    args = Py_BuildValue("(Oi)", self, 5);
    kwargs = Py_BuildValue("{sO}", "buffer_callback", buffer);
    if (args == NULL || kwargs == NULL) {
        goto done;
    }
    self->pickler = PyObject_Call(type, args, kwargs);
    if (self->pickler == NULL ||
        PyObject_SetAttrString(self->pickler, "dispatch_table",
                               (PyObject *)self) < 0) {
        goto done;
    }
    self->dump = PyObject_GetAttrString(self->pickler, "dump");
    if (self->dump == NULL) {
        goto done;
    }
    self->clear_memo = PyObject_GetAttrString(self->pickler, "clear_memo");
    rc = self->clear_memo == NULL ? -1 : 0;
done:
    Py_XDECREF(buffer);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return rc;
}

/* 0, or -1 with an exception set. */
static int
find_reducers(packer *self)
{
    self->forking =
        find("multiprocessing.reduction", "ForkingPickler", "_extra_reducers");
    if (self->forking == NULL) {
        return -1;
    }
    self->general = find("copyreg", "dispatch_table", NULL);
    return self->general == NULL ? -1 : 0;
}

static packer *
packer_new(pyc_ipc *state)
{
    PyObject *type = find("_pickle", "Pickler", NULL);
    packer *self =
        type == NULL
            ? NULL
            : (packer *)state->packer_type->tp_alloc(state->packer_type, 0);
    if (self != NULL && (find_reducers(self) < 0 || set_up(self, type) < 0)) {
        Py_CLEAR(self);
    }
    Py_XDECREF(type);
    return self;
}

/* One that nobody uses, or a new one. */
static packer *
take(pyc_ipc *state)
{
    packer *self = NULL;
    pyc_lock_take(&state->packers_lock);
    for (int i = 0; i < PYC_PACKERS && self == NULL; i++) {
        self = (packer *)state->packers[i];
        state->packers[i] = NULL;
    }
    pyc_lock_give(&state->packers_lock);
    return self != NULL ? self : packer_new(state);
}

static void
give(pyc_ipc *state, packer *self)
{
    pyc_lock_take(&state->packers_lock);
    for (int i = 0; i < PYC_PACKERS && self != NULL; i++) {
        if (state->packers[i] == NULL) {
            state->packers[i] = (PyObject *)self;
            self = NULL;
        }
    }
    pyc_lock_give(&state->packers_lock);
    Py_XDECREF(self);
}

int
pyc_pack(pyc_ipc *state, PyObject *object, pyc_packed *packed)
{
    packer *self = take(state);
    if (self == NULL) {
        return -1;
    }
    PyObject *done = PyObject_CallOneArg(self->dump, object);
    PyObject *cleared = NULL;
    if (done != NULL) {
        cleared = PyObject_CallNoArgs(self->clear_memo);
    }
    Py_XDECREF(done);
    if (cleared == NULL) { /* who knows what it still has */
        packer_clear((PyObject *)self);
        Py_DECREF(self);
        return -1;
    }
    Py_DECREF(cleared);
    *packed = self->packed;
    self->packed = (pyc_packed){0};
    give(state, self);
    return 0;
}

PyObject *
pyc_unpack(pyc_ipc *state, PyObject *data, PyObject *buffers)
{
    if (buffers == NULL) {
        return PyObject_CallOneArg(state->pickle_loads, data);
    }
    PyObject *result = NULL;
    PyObject *args = PyTuple_Pack(1, data);
    PyObject *kwargs = Py_BuildValue("{sO}", "buffers", buffers);
    if (args != NULL && kwargs != NULL) {
        result = PyObject_Call(state->pickle_loads, args, kwargs);
    }
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}
