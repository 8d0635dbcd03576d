/* SPDX-License-Identifier: MIT */
/* libuv_echo.c - limit line: an echo server in plain libuv, one static read
 * buffer, uv_try_write first and uv_write for what the socket refused.
 *   libuv_echo tcp|unix|udp [PATH]
 * Prints "READY <port or path>", runs until killed. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

static uv_loop_t *loop;
static char buf[1 << 18];
static int is_unix;
typedef union {
    uv_stream_t s;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
} Conn;
typedef struct {
    uv_write_t w;
    char data[];
} Wreq;

static void
on_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
    *b = uv_buf_init(buf, sizeof buf);
}

static void
on_close(uv_handle_t *h)
{
    free(h);
}

static void
on_write(uv_write_t *w, int st)
{
    free(w);
}

static void
on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    if (n < 0) {
        uv_close((uv_handle_t *)s, on_close);
        return;
    }
    if (n == 0) {
        return;
    }
    uv_buf_t o = uv_buf_init(b->base, n);
    int r = uv_try_write(s, &o, 1);
    if (r == n) {
        return;
    }
    if (r < 0) {
        r = 0;
    }
    Wreq *w = malloc(sizeof *w + n - r);
    memcpy(w->data, b->base + r, n - r);
    o = uv_buf_init(w->data, n - r);
    uv_write(&w->w, s, &o, 1, on_write);
}

static void
on_conn(uv_stream_t *srv, int st)
{
    Conn *c = malloc(sizeof *c);
    if (is_unix) {
        uv_pipe_init(loop, &c->pipe, 0);
    }
    else {
        uv_tcp_init(loop, &c->tcp);
    }
    if (uv_accept(srv, &c->s)) {
        uv_close((uv_handle_t *)c, on_close);
        return;
    }
    if (!is_unix) {
        uv_tcp_nodelay(&c->tcp, 1);
    }
    uv_read_start(&c->s, on_alloc, on_read);
}

static void
on_udp(uv_udp_t *u, ssize_t n, const uv_buf_t *b, const struct sockaddr *a,
       unsigned fl)
{
    if (n <= 0 || !a) {
        return;
    }
    uv_buf_t o = uv_buf_init(b->base, n);
    uv_udp_try_send(u, &o, 1, a);
}

int
main(int argc, char **argv)
{
    struct sockaddr_in a;
    int l = sizeof a;
    static uv_tcp_t tcp;
    static uv_pipe_t pipe_;
    static uv_udp_t udp;
    signal(SIGPIPE, SIG_IGN);
    loop = uv_default_loop();
    uv_ip4_addr("127.0.0.1", 0, &a);
    if (argc > 2 && !strcmp(argv[1], "unix")) {
        is_unix = 1;
        unlink(argv[2]);
        uv_pipe_init(loop, &pipe_, 0);
        if (uv_pipe_bind(&pipe_, argv[2]) ||
            uv_listen((uv_stream_t *)&pipe_, 4096, on_conn)) {
            return 1;
        }
        printf("READY %s\n", argv[2]);
    }
    else if (argc > 1 && !strcmp(argv[1], "udp")) {
        uv_udp_init(loop, &udp);
        if (uv_udp_bind(&udp, (struct sockaddr *)&a, 0) ||
            uv_udp_recv_start(&udp, on_alloc, on_udp)) {
            return 1;
        }
        uv_udp_getsockname(&udp, (struct sockaddr *)&a, &l);
        printf("READY %d\n", ntohs(a.sin_port));
    }
    else {
        uv_tcp_init(loop, &tcp);
        if (uv_tcp_bind(&tcp, (struct sockaddr *)&a, 0) ||
            uv_listen((uv_stream_t *)&tcp, 4096, on_conn)) {
            return 1;
        }
        uv_tcp_getsockname(&tcp, (struct sockaddr *)&a, &l);
        printf("READY %d\n", ntohs(a.sin_port));
    }
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
