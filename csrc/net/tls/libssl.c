/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/tls/libssl.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

/* One for the process, as libssl itself is, and filled once. */
static pyc_libssl libssl;
static atomic_int known; /* it is filled */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char module_path[PATH_MAX];

/* No layout has to be guessed to get from Python's object to its SSL: OpenSSL
 * tells of every SSL it makes to whoever has data of his own in each. */
static _Thread_local pyc_SSL *newest;

static void
ssl_made(void *ssl, void *value, void *data, int index, long number,
         void *argument)
{
    newest = ssl;
}

pyc_SSL *
pyc_libssl_take_newest(void)
{
    pyc_SSL *ssl = newest;
    newest = NULL;
    return ssl;
}

static int
make_method(void)
{
    int index = libssl.BIO_get_new_index();
    if (index < 0) {
        return -1;
    }
    libssl.method =
        libssl.BIO_meth_new(index | PYC_BIO_TYPE_SOURCE_SINK, "pyconc");
    return libssl.method != NULL &&
                   libssl.BIO_meth_set_read(libssl.method, pyc_tls_pipe_read) &&
                   libssl.BIO_meth_set_write(libssl.method,
                                             pyc_tls_pipe_write) &&
                   libssl.BIO_meth_set_ctrl(libssl.method, pyc_tls_pipe_ctrl)
               ? 0
               : -1;
}

static void
load(void)
{
    void *module = dlopen(module_path, RTLD_LAZY | RTLD_NOLOAD);
    if (module == NULL) {
        return;
    }
#define X(result, name, arguments)                                             \
    *(void **)&libssl.name = dlsym(module, #name);                             \
    if (libssl.name == NULL) {                                                 \
        goto done;                                                             \
    }
    PYC_LIBSSL(X)
#undef X
    known = make_method() == 0 &&
            libssl.CRYPTO_get_ex_new_index(PYC_CRYPTO_EX_INDEX_SSL, 0, NULL,
                                           ssl_made, NULL, NULL) > 0;
done:
    dlclose(module);
}

/* Where _ssl was loaded from, if it is on an OpenSSL whose functions are those
 * declared here: 1, or 0, or -1 with an exception. */
static int
find_module(void)
{
    PyObject *module = PyImport_ImportModule("_ssl"), *file = NULL;
    PyObject *text = NULL;
    int found = -1;
    if (module == NULL ||
        (text = PyObject_GetAttrString(module, "OPENSSL_VERSION")) == NULL) {
        goto done;
    }
    const char *version = PyUnicode_AsUTF8(text);
    found = version == NULL ? -1
                            : strncmp(version, "OpenSSL 3.", 10) == 0 ||
                                  strncmp(version, "OpenSSL 1.1.1", 13) == 0;
    /* Built into the interpreter, it has no file. */
    if (found <= 0 || !PyObject_HasAttrString(module, "__file__")) {
        found = found < 0 ? -1 : 0;
        goto done;
    }
    file = PyObject_GetAttrString(module, "__file__");
    const char *path = file == NULL ? NULL : PyUnicode_AsUTF8(file);
    found = path == NULL ? -1 : strlen(path) < sizeof(module_path);
    if (found > 0) {
        strcpy(module_path, path);
    }
done:
    Py_XDECREF(module);
    Py_XDECREF(file);
    Py_XDECREF(text);
    return found;
}

const pyc_libssl *
pyc_libssl_get(void)
{
    if (PYC_LIKELY(known)) {
        return &libssl;
    }
    const char *wanted = getenv("PYCONC_TLS_ENGINE");
    if (wanted != NULL && strcmp(wanted, "object") == 0) {
        return NULL;
    }
    if (find_module() <= 0) {
        PyErr_Clear();
        return NULL;
    }
    pthread_once(&once, load);
    return known ? &libssl : NULL;
}
