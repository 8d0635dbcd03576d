/* SPDX-License-Identifier: MIT */
/* CPython for the rest of the tree: Python.h first, and the only place that
 * looks at PY_VERSION_HEX. */
#ifndef PYC_PY_COMPAT_H
#define PYC_PY_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#define PYC_LIKELY(x) __builtin_expect(!!(x), 1)
#define PYC_UNLIKELY(x) __builtin_expect(!!(x), 0)

#if PY_VERSION_HEX >= 0x030D0000 /* 3.13 */
#    define PYC_MOD_GIL_SLOT {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#else
#    define PYC_MOD_GIL_SLOT
#endif
#if PY_VERSION_HEX >= 0x030C0000 /* 3.12 */
#    define PYC_MOD_INTERPRETERS_SLOT                                          \
        {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
#    define PYC_MOD_INTERPRETERS_SLOT
#endif

/* What becomes of arguments to RLock, which it never used. */
enum {
    PYC_RLOCK_ARGUMENTS_DEPRECATED = PY_VERSION_HEX >= 0x030D0000,
    PYC_RLOCK_ARGUMENTS_GONE = PY_VERSION_HEX >= 0x030F0000,
};

/* True while this interpreter has a thread state we may attach to: false once
 * it began to finalize. */
#if PY_VERSION_HEX >= 0x030D0000
#    define pyc_is_finalizing() Py_IsFinalizing()
#else
#    define pyc_is_finalizing() _Py_IsFinalizing()
#endif

/* Exported by each version, but from 3.13 on declared for CPython alone. */
#if PY_VERSION_HEX >= 0x030D0000
PyAPI_FUNC(int) _PyOS_IsMainThread(void);
#endif
#define pyc_is_main_thread() _PyOS_IsMainThread()

/* The thread state that the calling thread is attached to, NULL when it has let
 * go of the GIL. */
#if PY_VERSION_HEX >= 0x030D0000
#    define pyc_thread_state() PyThreadState_GetUnchecked()
#else
#    define pyc_thread_state() _PyThreadState_UncheckedGet()
#endif

#ifdef Py_GIL_DISABLED
#    define PYC_FREE_THREADED 1
#else
#    define PYC_FREE_THREADED 0
#endif

#if PY_VERSION_HEX >= 0x030D0000
#    define PYC_BEGIN_CRITICAL_SECTION(op) Py_BEGIN_CRITICAL_SECTION(op)
#    define PYC_END_CRITICAL_SECTION() Py_END_CRITICAL_SECTION()
#else
#    define PYC_BEGIN_CRITICAL_SECTION(op) {
#    define PYC_END_CRITICAL_SECTION() }
#endif

/* The exception being raised, taken out of the thread state as one owned
 * reference (NULL when there is none), and put back (the reference is
 * stolen). */
#if PY_VERSION_HEX >= 0x030C0000
#    define pyc_take_exception() PyErr_GetRaisedException()
#    define pyc_put_exception(exc) PyErr_SetRaisedException(exc)
#else
static inline PyObject *
pyc_take_exception(void)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
    }
    Py_XDECREF(type);
    Py_XDECREF(tb);
    return value;
}
static inline void
pyc_put_exception(PyObject *exc)
{
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
}
#endif

#if PY_VERSION_HEX >= 0x030D0000
#    define pyc_as_int(object) PyLong_AsInt(object)
#else
#    define pyc_as_int(object) _PyLong_AsInt(object)
#endif

/* What a weak reference points to, as a new reference; NULL, without an
 * exception, when it is gone. */
static inline PyObject *
pyc_weakref_get(PyObject *ref)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *target;
    return PyWeakref_GetRef(ref, &target) > 0 ? target : NULL;
#else
    PyObject *target = PyWeakref_GetObject(ref);
    return target == Py_None ? NULL : Py_NewRef(target);
#endif
}

/* What a dict has for `key`, as a new reference; NULL when it has nothing, or
 * with an exception set. */
static inline PyObject *
pyc_dict_get(PyObject *dict, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value;
    return PyDict_GetItemRef(dict, key, &value) > 0 ? value : NULL;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
}

/* Whether no other thread can want the GIL. */
static inline int
pyc_only_thread(void)
{
    PyThreadState *state = PyThreadState_Get();
    PyInterpreterState *interpreter = PyInterpreterState_Head();
    return state->next == NULL && state->prev == NULL &&
           interpreter == state->interp &&
           PyInterpreterState_Next(interpreter) == NULL;
}

/* How objects are kept out of the collector's sight while that is safe: only
 * where tracking is cheap and all of it happens under the GIL. */
#ifdef Py_GIL_DISABLED
#    define PYC_LATE_TRACKING 0
#else
#    define PYC_LATE_TRACKING 1
#endif

/* What call_soon_threadsafe() gives out in asyncio. Since 3.14 it has a type of
 * its own, and other threads cannot cancel it while it runs: they wait. */
#if PY_VERSION_HEX >= 0x030E0000 /* 3.14 */
#    define PYC_HANDLE_WAITS 1
#    define PYC_THREADSAFE_HANDLE "_ThreadSafeHandle"
#else
#    define PYC_HANDLE_WAITS 0
#    define PYC_THREADSAFE_HANDLE "Handle"
#endif

/* asyncio's Server._attach() and _detach() take the transport since 3.13. */
#if PY_VERSION_HEX >= 0x030D0000
#    define PYC_SERVER_CLIENT_FORMAT "O"
#else
#    define PYC_SERVER_CLIENT_FORMAT NULL
#endif

#endif
