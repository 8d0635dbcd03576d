/* SPDX-License-Identifier: MIT */
/* epoll_echo.c - limit line: the least work an echo server can do with epoll.
 *   epoll_echo tcp|unix|udp [PATH]
 * Prints "READY <port or path>", runs until killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct {
    int fd;
    char *out; /* bytes the socket refused, or NULL */
    size_t len, off;
} Conn;

static char buf[1 << 18];
static int ep, is_unix, is_udp;

static void
watch(Conn *c, int op, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(ep, op, c->fd, &e);
}

static int
listen_unix(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path, path, sizeof a.sun_path - 1);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(fd, (void *)&a, sizeof a) || listen(fd, 4096)) {
        exit(1);
    }
    printf("READY %s\n", path);
    return fd;
}

static int
listen_inet(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int type = is_udp ? SOCK_DGRAM : SOCK_STREAM;
    int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    if (bind(fd, (void *)&a, sizeof a) || (!is_udp && listen(fd, 4096))) {
        exit(1);
    }
    getsockname(fd, (void *)&a, &len);
    printf("READY %d\n", ntohs(a.sin_port));
    return fd;
}

static void
echo_datagram(int fd)
{
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    ssize_t r = recvfrom(fd, buf, sizeof buf, 0, (void *)&a, &len);
    if (r >= 0) {
        sendto(fd, buf, r, 0, (void *)&a, len);
    }
}

static void
accept_one(int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    if (!is_unix) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    Conn *c = calloc(1, sizeof *c);
    c->fd = fd;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

/* Goes before reading more. */
static void
flush(Conn *c)
{
    ssize_t w = send(c->fd, c->out + c->off, c->len - c->off, MSG_NOSIGNAL);
    if ((w < 0 && errno == EAGAIN) || (w > 0 && (c->off += w) < c->len)) {
        return;
    }
    free(c->out);
    c->out = NULL;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void
echo(Conn *c)
{
    ssize_t r = recv(c->fd, buf, sizeof buf, 0), w;
    if (r < 0 && errno == EAGAIN) {
        return;
    }
    if (r <= 0) {
        close(c->fd);
        free(c);
        return;
    }
    w = send(c->fd, buf, r, MSG_NOSIGNAL);
    if (w == r || (w < 0 && errno != EAGAIN)) {
        return;
    }
    w = w < 0 ? 0 : w;
    c->out = malloc(r - w);
    memcpy(c->out, buf + w, r - w);
    c->len = r - w;
    c->off = 0;
    watch(c, EPOLL_CTL_MOD, EPOLLOUT);
}

int
main(int argc, char **argv)
{
    is_unix = argc > 2 && !strcmp(argv[1], "unix");
    is_udp = argc > 1 && !strcmp(argv[1], "udp");
    ep = epoll_create1(0);
    Conn listener = {.fd = is_unix ? listen_unix(argv[2]) : listen_inet()};
    fflush(stdout);
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    struct epoll_event ev[1024];
    for (;;) {
        int n = epoll_wait(ep, ev, 1024, -1);
        for (int i = 0; i < n; i++) {
            Conn *c = ev[i].data.ptr;
            if (c == &listener) {
                (is_udp ? echo_datagram : accept_one)(c->fd);
            }
            else {
                (c->out ? flush : echo)(c);
            }
        }
    }
}
