/* SPDX-License-Identifier: MIT */
#include "py/compat.h"
#include "net/address.h"

#include <arpa/inet.h>
#include <string.h>

/* ---- one address ------------------------------------------------------- */

static PyObject *
in_to_object(const struct sockaddr_in *in)
{
    char host[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
    return Py_BuildValue("(si)", host, (int)ntohs(in->sin_port));
}

static PyObject *
in6_to_object(const struct sockaddr_in6 *in6)
{
    char host[INET6_ADDRSTRLEN];
    inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
    return Py_BuildValue("(siII)", host, (int)ntohs(in6->sin6_port),
                         (unsigned)ntohl(in6->sin6_flowinfo),
                         (unsigned)in6->sin6_scope_id);
}

static PyObject *
un_to_object(const struct sockaddr_un *un, socklen_t len)
{
    size_t size = len - offsetof(struct sockaddr_un, sun_path);
    if (size > 0 && un->sun_path[0] == '\0') {
        return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)size);
    }
    return PyUnicode_DecodeFSDefaultAndSize(
        un->sun_path, (Py_ssize_t)strnlen(un->sun_path, size));
}

PyObject *
pyc_address_to_object(const pyc_address *address)
{
    if (address->len == 0) {
        Py_RETURN_NONE;
    }
    switch (address->u.any.sa_family) {
    case AF_INET:
        return in_to_object(&address->u.in);
    case AF_INET6:
        return in6_to_object(&address->u.in6);
    default:
        return un_to_object(&address->u.un, address->len);
    }
}

static int
number_from(PyObject *object, unsigned long limit, unsigned long *number)
{
    if (!PyLong_CheckExact(object)) {
        return 0;
    }
    *number = PyLong_AsUnsignedLong(object);
    if (*number == (unsigned long)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return *number <= limit;
}

/* A literal address; names, "" and "<broadcast>" are not. */
static int
host_from(int family, PyObject *object, void *to)
{
    if (!PyUnicode_CheckExact(object) || !PyUnicode_IS_ASCII(object)) {
        return 0;
    }
    const char *host = (const char *)PyUnicode_1BYTE_DATA(object);
    return strlen(host) == (size_t)PyUnicode_GET_LENGTH(object) &&
           inet_pton(family, host, to) == 1;
}

static int
in_from_object(pyc_address *address, PyObject *tuple)
{
    struct sockaddr_in *in = &address->u.in;
    unsigned long port;
    if (PyTuple_GET_SIZE(tuple) != 2 ||
        !number_from(PyTuple_GET_ITEM(tuple, 1), 65535, &port)) {
        return 0;
    }
    *in = (struct sockaddr_in){.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port)};
    address->len = sizeof(*in);
    return host_from(AF_INET, PyTuple_GET_ITEM(tuple, 0), &in->sin_addr);
}

static int
in6_from_object(pyc_address *address, PyObject *tuple)
{
    struct sockaddr_in6 *in6 = &address->u.in6;
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    unsigned long port, flow = 0, scope = 0;
    if (n < 2 || n > 4 ||
        !number_from(PyTuple_GET_ITEM(tuple, 1), 65535, &port) ||
        (n > 2 && !number_from(PyTuple_GET_ITEM(tuple, 2), 0xfffff, &flow)) ||
        (n > 3 &&
         !number_from(PyTuple_GET_ITEM(tuple, 3), UINT32_MAX, &scope))) {
        return 0;
    }
    *in6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
                                 .sin6_port = htons((uint16_t)port),
                                 .sin6_flowinfo = htonl((uint32_t)flow),
                                 .sin6_scope_id = (uint32_t)scope};
    address->len = sizeof(*in6);
    return host_from(AF_INET6, PyTuple_GET_ITEM(tuple, 0), &in6->sin6_addr);
}

static int
un_from_object(pyc_address *address, PyObject *object)
{
    struct sockaddr_un *un = &address->u.un;
    PyObject *path;
    if (PyBytes_CheckExact(object)) {
        path = Py_NewRef(object);
    }
    else if (!PyUnicode_CheckExact(object) ||
             (path = PyUnicode_EncodeFSDefault(object)) == NULL) {
        PyErr_Clear();
        return 0;
    }
    size_t size = (size_t)PyBytes_GET_SIZE(path);
    const char *name = PyBytes_AS_STRING(path);
    int known = size > 0 && size < sizeof(un->sun_path);
    if (known) {
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, name, size);
        un->sun_path[size] = '\0';
        /* An abstract name has its length; a path ends with a zero. */
        address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
                                   size + (name[0] != '\0'));
    }
    Py_DECREF(path);
    return known;
}

int
pyc_address_from_object(pyc_address *address, int family, PyObject *object)
{
    if (family == AF_UNIX) {
        return un_from_object(address, object);
    }
    if (!PyTuple_CheckExact(object)) {
        return 0;
    }
    return family == AF_INET    ? in_from_object(address, object)
           : family == AF_INET6 ? in6_from_object(address, object)
                                : 0;
}

/* ---- the last peers ---------------------------------------------------- */

enum { FIRST_SIZE = 4, LAST_SIZE = 256 };

struct pyc_peer {
    PyObject *object; /* an address of exact, immutable parts, or NULL */
    uint32_t len;
    char raw[sizeof(struct sockaddr_in6)];
};

static size_t
raw_len(const pyc_address *address)
{
    /* Past its first eight bytes a sockaddr_in is padding. */
    return address->u.any.sa_family == AF_INET ? 8
                                               : sizeof(struct sockaddr_in6);
}

static uint32_t
mix(uint64_t value)
{
    return (uint32_t)((value * UINT64_C(0x9E3779B97F4A7C15)) >> 32);
}

static pyc_peer *
slot_of_address(pyc_peers *peers, const pyc_address *address)
{
    uint64_t words[3] = {0};
    memcpy(words, &address->u.any, raw_len(address) & ~(size_t)7);
    uint32_t hash = mix(words[0] ^ mix(words[1]) ^ words[2]);
    return &peers->by_address[hash & (peers->size - 1)];
}

static pyc_peer *
slot_of_object(pyc_peers *peers, PyObject *object)
{
    return &peers->by_object[mix((uintptr_t)object) & (peers->size - 1)];
}

static void
put(pyc_peer *slot, const pyc_address *address, PyObject *object)
{
    Py_XSETREF(slot->object, Py_NewRef(object));
    slot->len = address->len;
    memcpy(slot->raw, &address->u.any, sizeof(slot->raw));
}

static void
grow(pyc_peers *peers)
{
    uint32_t size = peers->size == 0 ? FIRST_SIZE : peers->size * 2;
    if (size > LAST_SIZE) {
        return;
    }
    pyc_peer *both = PyMem_Calloc(2 * size, sizeof(pyc_peer));
    if (both == NULL) {
        return;
    }
    pyc_peers_clear(peers);
    peers->by_address = both;
    peers->by_object = both + size;
    peers->size = size;
}

/* Nothing is lost when there is no room. */
static void
remember(pyc_peers *peers, const pyc_address *address, PyObject *object)
{
    if (peers->size == 0 || slot_of_address(peers, address)->object != NULL) {
        grow(peers);
    }
    if (peers->size != 0) {
        put(slot_of_address(peers, address), address, object);
        put(slot_of_object(peers, object), address, object);
    }
}

PyObject *
pyc_peers_to_object(pyc_peers *peers, const pyc_address *address)
{
    if (address->len == 0 || address->u.any.sa_family == AF_UNIX) {
        return pyc_address_to_object(address);
    }
    if (peers->size != 0) {
        pyc_peer *slot = slot_of_address(peers, address);
        if (slot->object != NULL &&
            memcmp(slot->raw, &address->u.any, raw_len(address)) == 0) {
            return Py_NewRef(slot->object);
        }
    }
    PyObject *object = pyc_address_to_object(address);
    if (object != NULL) {
        remember(peers, address, object);
    }
    return object;
}

int
pyc_peers_from_object(pyc_peers *peers, pyc_address *address, int family,
                      PyObject *object)
{
    if (peers->size != 0) {
        pyc_peer *slot = slot_of_object(peers, object);
        if (slot->object == object) {
            address->len = slot->len;
            memcpy(&address->u.any, slot->raw, sizeof(slot->raw));
            return 1;
        }
    }
    if (!pyc_address_from_object(address, family, object)) {
        return 0;
    }
    if (family != AF_UNIX) {
        if (peers->size == 0) {
            grow(peers);
        }
        if (peers->size != 0) {
            put(slot_of_object(peers, object), address, object);
        }
    }
    return 1;
}

void
pyc_peers_clear(pyc_peers *peers)
{
    pyc_peers old = *peers;
    *peers = (pyc_peers){0};
    for (uint32_t i = 0; i < 2 * old.size; i++) {
        Py_XDECREF(old.by_address[i].object);
    }
    PyMem_Free(old.by_address);
}
