/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/feed.h"
#include "net/net.h"

/* ---- StreamReader.feed_data() ------------------------------------------ */

/* reader.name is `wanted`: 1 or 0, or -1 with an exception. */
static int
attribute_is(PyObject *reader, PyObject *name, PyObject *wanted)
{
    PyObject *value = PyObject_GetAttr(reader, name);
    Py_XDECREF(value);
    return value == NULL ? -1 : value == wanted;
}

/* Appends a bytes object to the reader's buffer: how much that has then; -2
 * when it is not as asyncio makes it, -1 with an exception. */
static Py_ssize_t
append(pyc_state *state, PyObject *reader, PyObject *data)
{
    PyObject *buffer = PyObject_GetAttr(reader, state->str__buffer);
    Py_ssize_t len = -1, more = PyBytes_GET_SIZE(data);
    if (buffer == NULL) {
        return -1;
    }
    if (!PyByteArray_CheckExact(buffer)) {
        len = -2;
    }
    else if (PyByteArray_Resize(buffer, PyByteArray_GET_SIZE(buffer) + more) ==
             0) {
        len = PyByteArray_GET_SIZE(buffer);
        memcpy(PyByteArray_AS_STRING(buffer) + len - more,
               PyBytes_AS_STRING(data), (size_t)more);
    }
    Py_DECREF(buffer);
    return len;
}

static int
wake(pyc_state *state, PyObject *reader)
{
    PyObject *waiter = PyObject_GetAttr(reader, state->str__waiter);
    int code = waiter == NULL ? -1 : 0;
    if (code == 0 && waiter != Py_None) {
        code = PyObject_SetAttr(reader, state->str__waiter, Py_None);
        PyObject *result =
            code < 0 ? NULL
                     : PyObject_CallMethodNoArgs(waiter, state->str_cancelled);
        if (result == Py_False) {
            Py_SETREF(result, PyObject_CallMethodOneArg(
                                  waiter, state->str_set_result, Py_None));
        }
        code = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    Py_XDECREF(waiter);
    return code;
}

/* Has the transport stop when there is twice as much as the reader wants. */
static int
control(pyc_state *state, PyObject *reader, Py_ssize_t len)
{
    PyObject *limit = PyObject_GetAttr(reader, state->str__limit);
    double most = limit == NULL ? -1.0 : PyFloat_AsDouble(limit);
    Py_XDECREF(limit);
    if (most == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (PYC_LIKELY((double)len <= 2 * most)) {
        return 0;
    }
    int running = attribute_is(reader, state->str__paused, Py_False);
    PyObject *transport =
        running <= 0 ? NULL : PyObject_GetAttr(reader, state->str__transport);
    if (transport == NULL || transport == Py_None) {
        Py_XDECREF(transport);
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *result =
        PyObject_CallMethodNoArgs(transport, state->str_pause_reading);
    int code = -1;
    if (result != NULL) {
        code = PyObject_SetAttr(reader, state->str__paused, Py_True);
    }
    else if (PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        PyErr_Clear();
        code = PyObject_SetAttr(reader, state->str__transport, Py_None);
    }
    Py_XDECREF(result);
    Py_DECREF(transport);
    return code;
}

static int
feed(pyc_state *state, PyObject *reader, PyObject *data)
{
    int known = Py_IS_TYPE(reader, (PyTypeObject *)state->StreamReader) &&
                PyBytes_CheckExact(data);
    if (known) {
        known = attribute_is(reader, state->str__eof, Py_False);
    }
    Py_ssize_t len = known > 0 ? append(state, reader, data) : -2;
    if (known < 0 || len == -1) {
        return -1;
    }
    if (len == -2) {
        PyObject *result =
            PyObject_CallMethodOneArg(reader, state->str_feed_data, data);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    return wake(state, reader) < 0 ? -1 : control(state, reader, len);
}

/* ---- StreamReaderProtocol.data_received() ------------------------------ */

/* _feed_reader(protocol, data) */
static PyObject *
feed_reader(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    pyc_state *state = pyc_state_of_module(module);
    if (nargs != 2) {
        return PyErr_Format(PyExc_TypeError,
                            "_feed_reader expected 2 arguments, got %zd",
                            nargs);
    }
    PyObject *ref = PyObject_GetAttr(args[0], state->str__stream_reader_wr);
    PyObject *reader = NULL;
    int code = ref == NULL ? -1 : 0;
    if (code == 0 && PyWeakref_Check(ref)) {
        reader = pyc_weakref_get(ref);
        code = reader == NULL ? 0 : feed(state, reader, args[1]);
    }
    Py_XDECREF(reader);
    Py_XDECREF(ref);
    if (code < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef feed_functions[] = {
    {"_feed_reader", (PyCFunction)(void (*)(void))feed_reader, METH_FASTCALL,
     "_feed_reader(protocol, data, /)\n--\n\n"
     "asyncio.StreamReaderProtocol.data_received(protocol, data)."},
    {NULL},
};

/* Whether nobody has replaced the methods that _feed_reader() stands for. */
static int
is_original(pyc_state *state, PyObject *protocol, const pyc_callback *callback)
{
    if (!Py_IS_TYPE(protocol, (PyTypeObject *)state->StreamReaderProtocol) ||
        callback->fn != state->data_received) {
        return 0;
    }
    return attribute_is(state->StreamReader, state->str_feed_data,
                        state->feed_data);
}

int
pyc_callback_find_data(pyc_callback *callback, pyc_state *state,
                       PyObject *protocol)
{
    if (pyc_callback_find(callback, protocol, state->str_data_received) < 0) {
        return -1;
    }
    int original = is_original(state, protocol, callback);
    if (original > 0) {
        Py_SETREF(callback->fn, Py_NewRef(state->feed_reader));
    }
    if (original < 0) {
        pyc_callback_clear(callback);
    }
    return original < 0 ? -1 : 0;
}

int
pyc_feed_register(PyObject *module, pyc_state *state)
{
    if (PyModule_AddFunctions(module, feed_functions) < 0) {
        return -1;
    }
    state->feed_reader = PyObject_GetAttrString(module, "_feed_reader");
    state->feed_data =
        PyObject_GetAttr(state->StreamReader, state->str_feed_data);
    state->data_received =
        PyObject_GetAttr(state->StreamReaderProtocol, state->str_data_received);
    return state->feed_reader == NULL || state->feed_data == NULL ||
                   state->data_received == NULL
               ? -1
               : 0;
}
