/* SPDX-License-Identifier: MIT */
/* How the streams that asyncio makes become ours. */
#include "py/compat.h"
#include "net/streams/streams.h"

#if !PYC_FREE_THREADED

static int
import_module(pyc_state *state)
{
    PyObject *module = PyImport_ImportModule("pyconc.loop.streams");
    if (module == NULL) {
        return -1;
    }
    PyObject *adopt = PyObject_GetAttrString(module, "adopt_streams");
    PyObject *source_of =
        adopt == NULL ? NULL : PyObject_GetAttrString(module, "source_of");
    Py_DECREF(module);
    if (source_of == NULL) {
        Py_XDECREF(adopt);
        Py_XDECREF(source_of);
        return -1;
    }
    Py_XSETREF(state->adopt_streams, adopt);
    Py_XSETREF(state->source_of, source_of);
    return 0;
}

int
pyc_streams_adopt(pyc_state *state, PyObject *protocol)
{
    PyTypeObject *wanted = (PyTypeObject *)state->StreamReaderProtocol;
    if (PYC_LIKELY(!PyObject_TypeCheck(protocol, wanted))) {
        return 0;
    }
    if (state->adopt_streams == NULL && import_module(state) < 0) {
        return -1;
    }
    PyObject *result = PyObject_CallOneArg(state->adopt_streams, protocol);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

#else

/* A change of an object's class stops every thread here. */
int
pyc_streams_adopt(pyc_state *Py_UNUSED(state), PyObject *Py_UNUSED(protocol))
{
    return 0;
}

#endif

int
pyc_callback_find_data(pyc_callback *callback, pyc_state *state,
                       PyObject *protocol)
{
    if (pyc_callback_find(callback, protocol, state->str_data_received) < 0) {
        return -1;
    }
    if (PYC_LIKELY(!Py_IS_TYPE(protocol,
                               (PyTypeObject *)state->StreamReaderProtocol)) ||
        callback->fn != state->data_received || state->source_of == NULL) {
        return 0;
    }
    PyObject *source = PyObject_CallOneArg(state->source_of, protocol);
    PyObject *feed = NULL;
    if (source != NULL && source != Py_None) {
        feed = PyObject_GetAttr((PyObject *)Py_TYPE(source), state->str_feed);
    }
    if (feed != NULL) {
        Py_XSETREF(callback->fn, feed);
        Py_XSETREF(callback->self, Py_NewRef(source));
    }
    int code = source == NULL || (feed == NULL && source != Py_None) ? -1 : 0;
    if (code < 0) {
        pyc_callback_clear(callback);
    }
    Py_XDECREF(source);
    return code;
}

int
pyc_streams_register(PyObject *module, pyc_state *state)
{
    state->data_received =
        PyObject_GetAttr(state->StreamReaderProtocol, state->str_data_received);
    return state->data_received == NULL
               ? -1
               : pyc_stream_source_register(module, state);
}
