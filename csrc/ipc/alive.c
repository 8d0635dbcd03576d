/* SPDX-License-Identifier: MIT */
#include "ipc/alive.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The fields of /proc/PID/stat after the name, which may hold anything: the
 * state, and later the start. The number of bytes, 0 without such a file. */
static size_t
stat_of(int pid, char *text, size_t size)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

uint64_t
pyc_process_start(int pid)
{
    enum { START = 22 - 2 }; /* fields after the name, from 1 */
    char text[1024];
    if (stat_of(pid, text, sizeof(text)) == 0) {
        return 0;
    }
    char *at = strrchr(text, ')');
    for (int field = 0; at != NULL && field < START; field++) {
        at = strchr(at + 1, ' ');
    }
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

/* kill() finds a process that has ended too, until its parent asked for it. */
static bool
is_running(int pid)
{
#ifdef SYS_pidfd_open
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) {
        struct pollfd ended = {fd, POLLIN, 0};
        int n = poll(&ended, 1, 0);
        close(fd);
        return n == 0;
    }
    if (errno == ESRCH) {
        return false;
    }
#endif
    if (kill(pid, 0) < 0 && errno == ESRCH) {
        return false;
    }
    char text[1024];
    char *at =
        stat_of(pid, text, sizeof(text)) == 0 ? NULL : strrchr(text, ')');
    return at == NULL || (at[2] != 'Z' && at[2] != 'X');
}

bool
pyc_process_is_alive(int pid, uint64_t start)
{
    if (!is_running(pid)) {
        return false;
    }
    uint64_t now = start == 0 ? 0 : pyc_process_start(pid);
    return now == 0 || now == start;
}
