/* SPDX-License-Identifier: MIT */
/* load.c - closed-loop load client: each connection sends a request, waits for
 * the whole response, and sends again. One thread, edge-triggered epoll.
 *
 *   load MODE ADDR [--size N] [--resp N] [--line N] [--conns N] [--idle N]
 *        [--secs S] [--warm S] [--pid PID] [--tls] [--resume]
 *
 * MODE: echo (TCP, or TLS with --tls), unix, udp, churn (connect, one echo,
 * close), or idle: opens --conns connections, with --tls it exchanges one
 * message on each, prints READY, holds them until EOF on stdin.
 * --tls: TLS 1.3, a full handshake each; with --resume each but the first
 * offers the newest session ticket.
 * ADDR: a port number on 127.0.0.1, or a path for unix.
 * --line N puts a newline at the end of every N bytes of the request.
 * --pid samples that server's CPU time (schedstat) over the measured window.
 *
 * Prints one line of JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#    define IP_BIND_ADDRESS_NO_PORT 24
#endif
enum { ECHO, UNIX, UDP, CHURN, IDLE };
typedef struct {
    int fd, hs;
    size_t sent, got;
    uint64_t t0;
    SSL *ssl;
} Conn;

static int mode, tls, resume, nconns = 1, nidle, pid, ep;
static size_t size = 64, resp, line;
static double secs = 1, warm = 0.2;
static const char *addr;
static char *req, *buf;
static size_t bufsz = 1 << 20;
static SSL_CTX *ctx;
static SSL_SESSION *session; /* of the newest ticket */
static uint64_t done, errs, nsamp, resumed;
static uint32_t *samp; /* ring of latencies, in units of 10 ns */
#define NSAMP (1u << 20)

static void
die(const char *m)
{
    perror(m);
    exit(1);
}

static uint64_t
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static double
cpu_self(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec +
           (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static double
cpu_pid(void)
{ /* seconds on CPU, all threads of the server */
    if (!pid) {
        return 0;
    }
    char p[64];
    double tot = 0;
    struct dirent *e;
    snprintf(p, sizeof p, "/proc/%d/task", pid);
    DIR *d = opendir(p);
    if (!d) {
        return 0;
    }
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.') {
            continue;
        }
        char q[400];
        unsigned long long ns = 0;
        snprintf(q, sizeof q, "%s/%s/schedstat", p, e->d_name);
        FILE *f = fopen(q, "r");
        if (f) {
            if (fscanf(f, "%llu", &ns) != 1) {
                ns = 0;
            }
            fclose(f);
        }
        tot += ns / 1e9;
    }
    closedir(d);
    return tot;
}

/* Sources rotate over 127.0.0.2-251 so that ports never run out. */
static int
dial(int nonblock)
{
    static int src;
    int fd, one = 1, r;
    if (mode == UNIX) {
        struct sockaddr_un u = {.sun_family = AF_UNIX};
        strncpy(u.sun_path, addr, sizeof u.sun_path - 1);
        if ((fd = socket(AF_UNIX, SOCK_STREAM, 0)) < 0) {
            die("socket");
        }
        while ((r = connect(fd, (void *)&u, sizeof u)) < 0 && errno == EAGAIN) {
            usleep(1000);
        }
    }
    else {
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_port = htons(atoi(addr))};
        struct sockaddr_in s = {.sin_family = AF_INET};
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET,
                    (mode == UDP ? SOCK_DGRAM : SOCK_STREAM) |
                        (nonblock ? SOCK_NONBLOCK : 0),
                    0);
        if (fd < 0) {
            die("socket");
        }
        if (mode != UDP) {
            s.sin_addr.s_addr = htonl(0x7f000002 + src++ % 250);
            setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
                       sizeof one);
            if (bind(fd, (void *)&s, sizeof s) < 0) {
                die("bind");
            }
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        }
        r = connect(fd, (void *)&a, sizeof a);
        if (r < 0 && nonblock && errno == EINPROGRESS) {
            r = 0;
        }
    }
    if (r < 0) {
        die("connect");
    }
    return fd;
}

static void
connect_tls(Conn *c, int wait)
{
    c->ssl = SSL_new(ctx);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
    if (session) {
        SSL_set_session(c->ssl, session);
    }
    if (wait && SSL_do_handshake(c->ssl) != 1) {
        ERR_print_errors_fp(stderr);
        exit(1);
    }
    c->hs = wait;
}

static void
open_conn(Conn *c, int nonblock)
{
    c->fd = dial(nonblock);
    c->hs = 0;
    c->sent = c->got = 0;
    c->ssl = NULL;
    if (tls) {
        connect_tls(c, !nonblock);
    }
    if (!nonblock) {
        fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    }
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                            .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e) < 0) {
        die("epoll_ctl");
    }
    c->t0 = now();
}

/* >0 bytes moved, 0 would block, <0 closed */
static ssize_t
xfer(Conn *c, int wr, const char *p, size_t n)
{
    ssize_t r;
    if (c->ssl) {
        r = wr ? SSL_write(c->ssl, p, n) : SSL_read(c->ssl, (void *)p, n);
        if (r > 0) {
            return r;
        }
        int e = SSL_get_error(c->ssl, r);
        return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    r = wr ? send(c->fd, p, n, MSG_NOSIGNAL) : recv(c->fd, (void *)p, n, 0);
    if (r > 0) {
        return r;
    }
    return r < 0 && (errno == EAGAIN || errno == ENOTCONN) ? 0 : -1;
}

static void
reopen(Conn *c)
{
    if (c->ssl) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
    }
    close(c->fd);
    open_conn(c, 1);
}

/* 1 done, 0 not yet; a refused one is opened anew. */
static int
handshake(Conn *c)
{
    int r = SSL_do_handshake(c->ssl);
    if (r == 1) {
        resumed += SSL_session_reused(c->ssl);
        return c->hs = 1;
    }
    int e = SSL_get_error(c->ssl, r);
    if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
        errs++;
        reopen(c);
    }
    return 0;
}

/* Both move what they can: -1 when the connection is closed. */
static int
send_rest(Conn *c)
{
    ssize_t r = 1;
    while (r > 0 && c->sent < size) {
        r = xfer(c, 1, req + c->sent, size - c->sent);
        c->sent += r > 0 ? r : 0;
    }
    return r < 0 ? -1 : 0;
}

static int
receive_rest(Conn *c)
{
    ssize_t r = 1;
    while (r > 0 && c->got < resp) {
        size_t want = resp - c->got;
        r = xfer(c, 0, buf, want < bufsz ? want : bufsz);
        c->got += r > 0 ? r : 0;
    }
    return r < 0 ? -1 : 0;
}

/* A response is complete: counts it and sends the next request, whose event
 * is waited for. -1 closed, 0 wait, 1 go on. */
static int
next_request(Conn *c)
{
    uint64_t t = now();
    samp[nsamp++ & (NSAMP - 1)] = (t - c->t0) / 10;
    done++;
    if (mode == CHURN) {
        reopen(c);
        return 0;
    }
    c->t0 = t;
    c->got = 0;
    ssize_t r = xfer(c, 1, req, size);
    c->sent = r < 0 ? 0 : r;
    return r < 0 ? -1 : c->sent < size;
}

/* -1 closed, 0 wait, 1 go on */
static int
step(Conn *c)
{
    size_t before = c->got;
    if (send_rest(c) < 0) {
        return -1;
    }
    if (c->sent == 0) {
        return 0;
    }
    if (receive_rest(c) < 0) {
        return -1;
    }
    if (c->got < resp) { /* if the peer drained: try to send */
        return c->sent < size && c->got != before;
    }
    return next_request(c);
}

static void
drive(Conn *c)
{
    if (c->ssl && !c->hs && !handshake(c)) {
        return;
    }
    int r;
    while ((r = step(c)) > 0) {
    }
    if (r == 0) {
        return;
    }
    errs++;
    if (mode != CHURN) {
        fprintf(stderr, "server closed a connection\n");
        exit(1);
    }
    reopen(c);
}

static int
cmp(const void *a, const void *b)
{
    uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void
usage(const char *what)
{
    fprintf(stderr, "load: %s; see the top of load.c\n", what);
    exit(2);
}

static void
option(const char *name, const char *value)
{
    struct {
        const char *name;
        size_t *size;
        int *number;
        double *seconds;
    } all[] = {
        {"--size", &size, NULL, NULL},  {"--resp", &resp, NULL, NULL},
        {"--line", &line, NULL, NULL},  {"--conns", NULL, &nconns, NULL},
        {"--idle", NULL, &nidle, NULL}, {"--pid", NULL, &pid, NULL},
        {"--secs", NULL, NULL, &secs},  {"--warm", NULL, NULL, &warm},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(name, all[i].name)) {
            continue;
        }
        if (all[i].size) {
            *all[i].size = atol(value);
        }
        else if (all[i].number) {
            *all[i].number = atoi(value);
        }
        else {
            *all[i].seconds = atof(value);
        }
        return;
    }
    usage(name);
}

static void
options(int argc, char **argv)
{
    static const char *const modes[] = {"echo", "unix", "udp", "churn", "idle"};
    if (argc < 3) {
        usage("mode and address");
    }
    while (strcmp(argv[1], modes[mode])) {
        if (++mode == 5) {
            usage("unknown mode");
        }
    }
    addr = argv[2];
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "--tls")) {
            tls = 1;
        }
        else if (!strcmp(argv[i], "--resume")) {
            resume = 1;
        }
        else if (i + 1 == argc) {
            usage("a value is missing");
        }
        else {
            option(argv[i], argv[i + 1]);
            i++;
        }
    }
    resp = resp ? resp : size;
    line = line ? line : size;
}

static int
new_ticket(SSL *ssl, SSL_SESSION *from_it)
{
    (void)ssl;
    SSL_SESSION_free(session);
    session = from_it;
    return 1; /* kept */
}

static void
prepare_tls(void)
{
    ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    if (resume) {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT |
                                                SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, new_ticket);
    }
}

static void
prepare(void)
{
    req = malloc(size);
    buf = malloc(bufsz);
    samp = calloc(NSAMP, sizeof *samp);
    memset(req, 'x', size);
    for (size_t i = line; i <= size; i += line) {
        req[i - 1] = '\n';
    }
    ep = epoll_create1(0);
    if (tls) {
        prepare_tls();
    }
}

/* A message on a connection that still blocks. */
static void
exchange(Conn *c)
{
    size_t got = 0;
    while (c->sent < size) {
        ssize_t r = xfer(c, 1, req + c->sent, size - c->sent);
        if (r < 0) {
            die("write");
        }
        c->sent += r;
    }
    while (got < resp) {
        ssize_t r = xfer(c, 0, buf, resp - got);
        if (r < 0) {
            die("read");
        }
        got += r;
    }
}

static int
hold_idle(int n)
{
    for (int i = 0; i < n; i++) {
        Conn c = {.fd = dial(0)};
        if (tls) {
            connect_tls(&c, 1);
            exchange(&c);
        }
    }
    printf("READY\n");
    fflush(stdout);
    while (read(0, buf, 1) > 0) {
    }
    return 0;
}

/* Sends again what may have been lost. */
static void
resend(Conn *cs)
{
    for (int i = 0; i < nconns; i++) {
        cs[i].sent = cs[i].got = 0;
        drive(&cs[i]);
        errs++;
    }
}

static void
run(Conn *cs)
{
    struct epoll_event ev[1024];
    uint64_t start = now(), t, mark = 0,
             end = start + (uint64_t)((warm + secs) * 1e9);
    double c0 = 0, s0 = 0;
    while ((t = now()) < end) {
        if (!mark && t >= start + (uint64_t)(warm * 1e9)) {
            done = errs = nsamp = resumed = 0;
            c0 = cpu_self();
            s0 = cpu_pid();
            mark = now();
        }
        int n = epoll_wait(ep, ev, 1024, 50);
        if (n == 0 && mode == UDP) {
            resend(cs);
        }
        for (int i = 0; i < n; i++) {
            drive(ev[i].data.ptr);
        }
    }
    double dt = (now() - mark) / 1e9, cc = cpu_self() - c0, sc = cpu_pid() - s0;
    uint64_t k = nsamp < NSAMP ? nsamp : NSAMP;
    qsort(samp, k, sizeof *samp, cmp);
    printf("{\"n\": %lu, \"rate\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
           "\"errs\": %lu, \"resumed\": %lu, "
           "\"client_cpu\": %.3f, \"server_cpu\": %.3f, \"cpu_us\": %.4f}\n",
           done, done / dt, k ? samp[k / 2] / 100.0 : 0,
           k ? samp[(uint64_t)(k * .99)] / 100.0 : 0, errs, resumed, cc / dt,
           sc / dt, done ? sc / done * 1e6 : 0);
}

int
main(int argc, char **argv)
{
    options(argc, argv);
    prepare();
    if (mode == IDLE) {
        return hold_idle(nconns);
    }
    for (int i = 0; i < nidle; i++) {
        dial(0);
    }
    Conn *cs = calloc(nconns, sizeof *cs);
    for (int i = 0; i < nconns; i++) {
        open_conn(&cs[i], mode == CHURN);
    }
    run(cs);
    return 0;
}
