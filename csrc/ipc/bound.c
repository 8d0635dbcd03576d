/* SPDX-License-Identifier: MIT */
#include "ipc/bound.h"

typedef struct bound bound;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    pyc_quick_function function;
    PyTypeObject *of;    /* whose method it is */
    PyTypeObject *bound; /* the type of bound ones */
    bound *spare;        /* memory of one that is gone; NULL */
} method;

struct bound {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    method *method;
    PyObject *self;
};

static PyObject *
call_bound(PyObject *self, PyObject *const *Py_UNUSED(args),
           size_t Py_UNUSED(nargs), PyObject *Py_UNUSED(names))
{
    bound *one = (bound *)self;
    return one->method->function(one->self, NULL);
}

/* With the object as the first argument, as 3.14 does it. */
static PyObject *
call_unbound(PyObject *self, PyObject *const *args, size_t nargs,
             PyObject *Py_UNUSED(names))
{
    method *one = (method *)self;
    if (PyVectorcall_NARGS(nargs) < 1 ||
        !PyObject_TypeCheck(args[0], one->of)) {
        PyErr_Format(PyExc_TypeError, "needs an object of %s",
                     one->of->tp_name);
        return NULL;
    }
    return one->function(args[0], NULL);
}

static PyObject *
method_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    method *of = (method *)self;
    if (object == NULL) {
        return Py_NewRef(self);
    }
    bound *one = of->spare;
    if (one != NULL) {
        of->spare = NULL;
        PyObject_Init((PyObject *)one, of->bound);
    }
    else {
        one = PyObject_New(bound, of->bound);
        if (one == NULL) {
            return NULL;
        }
        one->vectorcall = call_bound;
    }
    one->method = (method *)Py_NewRef(self);
    one->self = Py_NewRef(object);
    return (PyObject *)one;
}

static void
bound_dealloc(PyObject *self)
{
    bound *one = (bound *)self;
    method *of = one->method;
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(one->self);
    if (!PYC_FREE_THREADED && of->spare == NULL) {
        of->spare = one;
    }
    else {
        PyObject_Free(self);
    }
    Py_DECREF(of);
    Py_DECREF(type);
}

static int
method_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((method *)self)->of);
    Py_VISIT(((method *)self)->bound);
    return 0;
}

/* What holds it is the type `of`, which lets go of it when it is cleared. */
static void
method_dealloc(PyObject *self)
{
    method *of = (method *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyObject_Free(of->spare);
    Py_DECREF(of->of);
    Py_DECREF(of->bound);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static int
add(pyc_ipc *state, PyTypeObject *type, const char *name,
    pyc_quick_function function)
{
    method *one = PyObject_GC_New(method, state->quick_method_type);
    if (one == NULL) {
        return -1;
    }
    one->vectorcall = call_unbound;
    one->function = function;
    one->of = (PyTypeObject *)Py_NewRef(type);
    one->bound = (PyTypeObject *)Py_NewRef(state->quick_bound_type);
    one->spare = NULL;
    PyObject_GC_Track(one);
    int rc = PyObject_SetAttrString((PyObject *)type, name, (PyObject *)one);
    Py_DECREF(one);
    return rc;
}

int
pyc_quick_with(pyc_ipc *state, PyTypeObject *type, pyc_quick_function enter,
               pyc_quick_function leave)
{
    return add(state, type, "__enter__", enter) < 0 ||
                   add(state, type, "__exit__", leave) < 0
               ? -1
               : 0;
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(method, vectorcall), READONLY,
     NULL},
    {NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_dealloc, method_dealloc}, {Py_tp_traverse, method_traverse},
    {Py_tp_descr_get, method_get},   {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, method_members}, {0, NULL},
};

PyType_Spec pyc_quick_method_spec = {
    .name = "pyconc._ipc.QuickMethod",
    .basicsize = sizeof(method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = method_slots,
};

static PyMemberDef bound_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(bound, vectorcall), READONLY,
     NULL},
    {NULL},
};

static PyType_Slot bound_slots[] = {
    {Py_tp_dealloc, bound_dealloc},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, bound_members},
    {0, NULL},
};

PyType_Spec pyc_quick_bound_spec = {
    .name = "pyconc._ipc.QuickBound",
    .basicsize = sizeof(bound),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = bound_slots,
};
