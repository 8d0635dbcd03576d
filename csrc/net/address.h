/* SPDX-License-Identifier: MIT */
/* Socket addresses: the kernel's form and the socket module's. */
#ifndef PYC_NET_ADDRESS_H
#define PYC_NET_ADDRESS_H

#include "py/compat.h"

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct {
    socklen_t len;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } u;
} pyc_address;

/* Whether addresses of this family are understood here; those of all others
 * are left to the socket module. */
static inline int
pyc_address_known(int family)
{
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

/* What socket.recvfrom() would give for an address of a known family: a new
 * reference, or NULL with an exception. */
PyObject *pyc_address_to_object(const pyc_address *address);

/* The reverse, for what needs no name resolution. 1, or 0 when the socket
 * module has to judge it (no exception is set). */
int pyc_address_from_object(pyc_address *address, int family, PyObject *object);

/* The last peers of an endpoint in both forms. Grows with their number up to a
 * bound; zeroed memory is an empty one. */
typedef struct pyc_peer pyc_peer;
typedef struct {
    pyc_peer *by_address;
    pyc_peer *by_object;
    uint32_t size; /* a power of two, or 0 */
} pyc_peers;

PyObject *pyc_peers_to_object(pyc_peers *peers, const pyc_address *address);
int pyc_peers_from_object(pyc_peers *peers, pyc_address *address, int family,
                          PyObject *object);
void pyc_peers_clear(pyc_peers *peers);

#endif
