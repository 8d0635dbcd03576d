/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/tls/tls.h"

#define LEAST 4096

int
pyc_tls_bytes_grow(pyc_tls_bytes *bytes, size_t more)
{
    size_t need = bytes->len + more, size = bytes->size * 2;
    if (need <= bytes->size) {
        return 0;
    }
    size = size < need ? need : size;
    size = size < LEAST ? LEAST : size;
    char *data = realloc(bytes->data, size);
    if (data == NULL) {
        return -1;
    }
    bytes->data = data;
    bytes->size = size;
    return 0;
}

int
pyc_tls_bytes_append(pyc_tls_bytes *bytes, const char *data, size_t len)
{
    if (len == 0) {
        return 0;
    }
    if (pyc_tls_bytes_grow(bytes, len) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
    return 0;
}

void
pyc_tls_bytes_cut(pyc_tls_bytes *bytes, size_t len)
{
    if (len == bytes->len) {
        pyc_tls_bytes_free(bytes);
        return;
    }
    bytes->len -= len;
    memmove(bytes->data, bytes->data + len, bytes->len);
}

void
pyc_tls_bytes_free(pyc_tls_bytes *bytes)
{
    free(bytes->data);
    *bytes = (pyc_tls_bytes){NULL};
}
