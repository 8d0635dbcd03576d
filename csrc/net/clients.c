/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/clients.h"
#include "net/net.h"
#include "net/stream.h"

/* Without a GIL one in the list may have lost its last reference a moment ago:
 * a weak one knows. */
#ifdef Py_GIL_DISABLED
static void
make_ref(pyc_stream *stream)
{
    Py_XSETREF(stream->client_ref, PyWeakref_NewRef((PyObject *)stream, NULL));
    PyErr_Clear(); /* no memory: it is not in copies */
}

static PyObject *
get_ref(pyc_stream *stream)
{
    PyObject *ref = stream->client_ref;
    return ref == NULL ? NULL : pyc_weakref_get(ref);
}
#else
#    define make_ref(stream) ((void)(stream))
#    define get_ref(stream) Py_NewRef((PyObject *)(stream))
#endif

void
pyc_clients_add(pyc_clients *clients, pyc_stream *stream)
{
    stream->clients = (pyc_clients *)Py_NewRef(clients);
    make_ref(stream);
    pyc_lock_take(&clients->lock);
    pyc_link_insert(&clients->list, &stream->client);
    clients->len++;
    pyc_lock_give(&clients->lock);
}

int
pyc_clients_discard(pyc_stream *stream)
{
    pyc_clients *clients = stream->clients;
    PyObject *result = NULL;
    if (clients == NULL) {
        return 0;
    }
    stream->clients = NULL;
    pyc_lock_take(&clients->lock);
    pyc_link_remove(&stream->client);
    size_t left = --clients->len;
    pyc_lock_give(&clients->lock);
    if (left == 0 && clients->emptied != NULL && clients->emptied != Py_None) {
        result = PyObject_CallNoArgs(clients->emptied);
        if (result == NULL) {
            Py_DECREF(clients);
            return -1;
        }
    }
    Py_XDECREF(result);
    Py_DECREF(clients);
    return 0;
}

/* ---- the object -------------------------------------------------------- */

static PyObject *
clients_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (!PyArg_ParseTuple(args, ":Clients")) {
        return NULL;
    }
    pyc_clients *self = (pyc_clients *)type->tp_alloc(type, 0);
    if (self != NULL) {
        pyc_link_init(&self->list);
    }
    return (PyObject *)self;
}

static int
clients_traverse(pyc_clients *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->emptied);
    return 0;
}

static int
clients_clear(pyc_clients *self)
{
    Py_CLEAR(self->emptied);
    return 0;
}

static Py_ssize_t
clients_len(pyc_clients *self)
{
    return (Py_ssize_t)self->len;
}

/* The transport behind an argument of type `type`, or NULL with TypeError. */
static pyc_stream *
stream_from(pyc_clients *self, PyObject *object)
{
    pyc_state *state = pyc_state_of_type(Py_TYPE(self));
    if (!Py_IS_TYPE(object, state->stream_type)) {
        PyErr_Format(PyExc_TypeError, "expected a StreamTransport, not %R",
                     object);
        return NULL;
    }
    return (pyc_stream *)object;
}

static PyObject *
clients_add(pyc_clients *self, PyObject *object)
{
    pyc_stream *stream = stream_from(self, object);
    if (stream == NULL) {
        return NULL;
    }
    if (stream->clients != NULL) {
        return PyErr_Format(PyExc_ValueError, "%R is attached already", object);
    }
    pyc_clients_add(self, stream);
    Py_RETURN_NONE;
}

static PyObject *
clients_discard(pyc_clients *self, PyObject *object)
{
    pyc_stream *stream = stream_from(self, object);
    if (stream == NULL) {
        return NULL;
    }
    if (stream->clients == self && pyc_clients_discard(stream) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
clients_copy(pyc_clients *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    int code = list == NULL ? -1 : 0;
    pyc_lock_take(&self->lock);
    for (pyc_link *link = self->list.next; link != &self->list && code == 0;
         link = link->next) {
        PyObject *stream = get_ref(pyc_container(link, pyc_stream, client));
        if (stream != NULL) {
            code = PyList_Append(list, stream);
            Py_DECREF(stream); /* the list has it, so it does not end here */
        }
    }
    pyc_lock_give(&self->lock);
    if (code < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static PyMethodDef clients_methods[] = {
    {"add", (PyCFunction)clients_add, METH_O,
     "add($self, transport, /)\n--\n\nCounts a StreamTransport in."},
    {"discard", (PyCFunction)clients_discard, METH_O,
     "discard($self, transport, /)\n--\n\nCounts it out."},
    {"copy", (PyCFunction)clients_copy, METH_NOARGS,
     "copy($self, /)\n--\n\nA list of the transports."},
    {NULL},
};

static PyMemberDef clients_members[] = {
    {"emptied", T_OBJECT, offsetof(pyc_clients, emptied), 0,
     "Called without arguments each time the last one has gone, or None."},
    {NULL},
};

static PyType_Slot clients_slots[] = {
    {Py_tp_doc, "Clients()\n--\n\nThe connections of a server; it does not "
                "keep them alive."},
    {Py_tp_new, clients_new},
    {Py_tp_dealloc, pyc_dealloc},
    {Py_tp_traverse, clients_traverse},
    {Py_tp_clear, clients_clear},
    {Py_tp_methods, clients_methods},
    {Py_tp_members, clients_members},
    {Py_sq_length, clients_len},
    {0, NULL},
};

static PyType_Spec clients_spec = {
    .name = "pyconc._core.Clients",
    .basicsize = sizeof(pyc_clients),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = clients_slots,
};

int
pyc_clients_register(PyObject *module, pyc_state *state)
{
    return pyc_add_type(module, &clients_spec, NULL, &state->clients_type);
}
