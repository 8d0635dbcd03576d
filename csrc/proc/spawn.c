/* SPDX-License-Identifier: MIT */
/* Starting a program. The child of vfork() runs in this process's memory until
 * it has become the program, so that it costs the same whatever the size of
 * that memory; it calls nothing but the system, and may change nothing that
 * the other threads look at: they go on meanwhile, without the GIL even those
 * that need it. */
#include "py/compat.h"
#include "proc/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#    define SYS_close_range 436
#endif
#define NO_FD (~0U)

/* How far the child has come. */
enum { SETTING_UP, CHANGING_FOLDER, EXECUTING };

typedef struct {
    PyObject *args; /* owns what argv points to */
    char **argv;
    char **programs; /* the paths to try, one after the other */
    char **env;
    const char *cwd; /* or NULL */
    int *keep;       /* ascending: what close_fds leaves open */
    Py_ssize_t keep_len;
    int fds[3]; /* what becomes 0, 1 and 2; -1: nothing new */
    int close_fds, restore_signals, new_session;
    int group; /* -1: the parent's */
    int umask; /* -1: the parent's */
    sigset_t mask;
    int handlers; /* whether the child has this process's */
    /* Written by the child, which the compiler does not know to exist. */
    volatile int step;
    volatile int error; /* 0 when it has become the program */
} spawn;

/* ---- in the child ------------------------------------------------------ */

static int
inherit(int fd)
{
    int flags = fcntl(fd, F_GETFD);
    return flags < 0 ? -1 : fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
}

static int
place_fds(spawn *self)
{
    for (Py_ssize_t i = 0; i < self->keep_len; i++) {
        if (inherit(self->keep[i]) < 0) {
            return -1;
        }
    }
    int *fds = self->fds;
    for (int to = 1; to < 3; to++) {
        /* Out of the way of what is put in place before it. */
        if (fds[to] != -1 && fds[to] < to &&
            (fds[to] = fcntl(fds[to], F_DUPFD_CLOEXEC, 3)) < 0) {
            return -1;
        }
    }
    for (int to = 0; to < 3; to++) {
        if (fds[to] != -1 &&
            (fds[to] == to ? inherit(to) : dup2(fds[to], to)) < 0) {
            return -1;
        }
    }
    return 0;
}

static long
close_range_(unsigned from, unsigned to)
{
    return from > to ? 0 : syscall(SYS_close_range, from, to, 0);
}

static int
close_others(const spawn *self)
{
    unsigned from = 3;
    for (Py_ssize_t i = 0; i < self->keep_len; i++) {
        if (self->keep[i] >= 3) {
            if (close_range_(from, (unsigned)self->keep[i] - 1) < 0) {
                return -1;
            }
            from = (unsigned)self->keep[i] + 1;
        }
    }
    return close_range_(from, NO_FD) < 0 ? -1 : 0;
}

/* A handler of this process's must not run in the child: it would think that
 * it is the parent. */
static void
reset_signals(const spawn *self)
{
    struct sigaction action, standard;
    memset(&standard, 0, sizeof(standard));
    standard.sa_handler = SIG_DFL;
    for (int number = 1; self->handlers && number < _NSIG; number++) {
        if (sigaction(number, NULL, &action) == 0 &&
            action.sa_handler != SIG_IGN && action.sa_handler != SIG_DFL) {
            sigaction(number, &standard, NULL);
        }
    }
    if (self->restore_signals) { /* what Python ignores */
        sigaction(SIGPIPE, &standard, NULL);
        sigaction(SIGXFSZ, &standard, NULL);
    }
    sigprocmask(SIG_SETMASK, &self->mask, NULL);
}

static int
set_up(spawn *self)
{
    if (place_fds(self) < 0) {
        return -1;
    }
    self->step = CHANGING_FOLDER;
    if (self->cwd != NULL && chdir(self->cwd) < 0) {
        return -1;
    }
    self->step = SETTING_UP;
    if (self->umask >= 0) {
        umask((mode_t)self->umask);
    }
    reset_signals(self);
    if ((self->new_session && setsid() < 0) ||
        (self->group >= 0 && setpgid(0, self->group) < 0)) {
        return -1;
    }
    return self->close_fds ? close_others(self) : 0;
}

/* Not in the frame of its caller, whom the parent returns to. */
static __attribute__((noinline)) _Noreturn void
become(spawn *self)
{
    int first = 0;
    if (set_up(self) == 0) {
        self->step = EXECUTING;
        errno = ENOENT;
        for (char **program = self->programs; *program != NULL; program++) {
            execve(*program, self->argv, self->env);
            if (errno != ENOENT && errno != ENOTDIR && first == 0) {
                first = errno;
            }
        }
    }
    self->error = first != 0 ? first : errno;
    _exit(255);
}

/* ---- in the parent ----------------------------------------------------- */

/* vfork() whose child has no handlers of this process's, which spares it two
 * system calls for each. Not by syscall(), from which both would return: the
 * child goes on here, above what it may spoil. Negative where there is none. */
static __attribute__((noinline)) pid_t
start_without_handlers(spawn *self)
{
    long pid = -1;
#if defined(__x86_64__) && defined(CLONE_CLEAR_SIGHAND)
    struct clone_args how = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_CLEAR_SIGHAND,
        .exit_signal = SIGCHLD,
    };
    __asm__ volatile("syscall"
                     : "=a"(pid)
                     : "a"(SYS_clone3), "D"(&how), "S"(sizeof(how))
                     : "rcx", "r11", "memory");
    if (pid == 0) {
        become(self);
    }
#endif
    return (pid_t)pid;
}

/* A function of its own: what it keeps on the stack is all that the child may
 * spoil. */
static __attribute__((noinline)) pid_t
start(spawn *self)
{
    pid_t pid = vfork();
    if (pid == 0) {
        become(self);
    }
    return pid;
}

/* The child's id, or -1 with errno. One that could not become the program is
 * gone already. */
static pid_t
run(spawn *self)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &self->mask);
    pid_t pid = start_without_handlers(self);
    if (pid < 0) {
        self->handlers = 1;
        pid = start(self);
    }
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &self->mask, NULL);
    if (pid > 0 && self->error != 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    errno = error;
    return pid;
}

/* The bytes objects of a list as C strings, NULL behind them. Free with
 * PyMem_Free(); NULL with ValueError for one that holds a zero byte. */
static char **
strings(PyObject *list)
{
    Py_ssize_t len = PyList_GET_SIZE(list);
    char **result = PyMem_New(char *, (size_t)len + 1);
    if (result == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < len; i++) {
        if (PyBytes_AsStringAndSize(PyList_GET_ITEM(list, i), &result[i],
                                    NULL) < 0) {
            PyMem_Free(result);
            return NULL;
        }
    }
    result[len] = NULL;
    return result;
}

/* A copy of the environment, which other threads may change while there is no
 * GIL held. */
static char **
environment(void)
{
    size_t count = 0, size = 0;
    for (; environ != NULL && environ[count] != NULL; count++) {
        size += strlen(environ[count]) + 1;
    }
    size_t table = (count + 1) * sizeof(char *);
    char **result = PyMem_Malloc(table + size);
    if (result == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    char *text = (char *)result + table;
    for (size_t i = 0; i < count; i++) {
        result[i] = text;
        text = stpcpy(text, environ[i]) + 1;
    }
    result[count] = NULL;
    return result;
}

/* `program` in each folder of `path`, as execvp() does it: an empty one is the
 * current folder, and what has a slash is not looked for. NULL behind them,
 * free with PyMem_Free(). */
static char **
find(const char *program, const char *path)
{
    size_t len = strlen(program), count = 1;
    if (strchr(program, '/') != NULL) {
        path = "";
    }
    for (const char *at = path; *at != '\0'; at++) {
        count += *at == ':';
    }
    size_t table = (count + 1) * sizeof(char *);
    char **result =
        PyMem_Malloc(table + strlen(path) + count * (len + sizeof("/")));
    if (result == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    char *text = (char *)result + table;
    for (size_t i = 0; i < count; i++) {
        size_t folder = strcspn(path, ":");
        result[i] = text;
        text = mempcpy(text, path, folder);
        if (folder > 0 && text[-1] != '/') {
            *text++ = '/';
        }
        text = mempcpy(text, program, len + 1);
        path += folder + 1;
    }
    result[count] = NULL;
    return result;
}

/* os.fsencode() of each, as a list. */
static PyObject *
encode(PyObject *tuple)
{
    PyObject *result = PyList_New(PyTuple_GET_SIZE(tuple)), *bytes;
    for (Py_ssize_t i = 0; result != NULL && i < PyList_GET_SIZE(result); i++) {
        if (PyUnicode_FSConverter(PyTuple_GET_ITEM(tuple, i), &bytes)) {
            PyList_SET_ITEM(result, i, bytes);
        }
        else {
            Py_CLEAR(result);
        }
    }
    return result;
}

static int
take_keep(spawn *self, PyObject *list)
{
    self->keep_len = PyList_GET_SIZE(list);
    self->keep = PyMem_New(int, (size_t)self->keep_len + 1);
    if (self->keep == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->keep_len; i++) {
        int fd = pyc_as_int(PyList_GET_ITEM(list, i));
        if (fd < 0) {
            PyErr_SetString(PyExc_ValueError, "bad value(s) in fds_to_keep");
            return -1;
        }
        self->keep[i] = fd;
    }
    return 0;
}

static int
take(spawn *self, PyObject *args)
{
    PyObject *argv, *env, *cwd, *keep;
    const char *program, *path;
    int *fds = self->fds;
    char *folder = NULL;
    if (!PyArg_ParseTuple(args, "O!yyOOiiipO!ppii", &PyTuple_Type, &argv,
                          &program, &path, &env, &cwd, &fds[0], &fds[1],
                          &fds[2], &self->close_fds, &PyList_Type, &keep,
                          &self->restore_signals, &self->new_session,
                          &self->group, &self->umask)) {
        return -1;
    }
    if (cwd != Py_None && PyBytes_AsStringAndSize(cwd, &folder, NULL) < 0) {
        return -1;
    }
    self->cwd = folder;
    self->args = encode(argv);
    self->argv = self->args == NULL ? NULL : strings(self->args);
    self->programs = self->argv == NULL ? NULL : find(program, path);
    if (self->programs == NULL || take_keep(self, keep) < 0) {
        return -1;
    }
    self->env = env == Py_None ? environment() : strings(env);
    return self->env == NULL ? -1 : 0;
}

PyDoc_STRVAR(spawn_doc, "spawn($module, argv, program, path, env, cwd, stdin, "
                        "stdout, stderr, close_fds, keep, restore_signals, "
                        "new_session, group, umask, /)\n--\n\n"
                        "Start a program, looked for in path if it has no "
                        "slash.\n\n"
                        "argv is a tuple of what os.fsencode() takes, program "
                        "and path are bytes, env is a\nlist of bytes, keep one "
                        "of descriptors in ascending order; env None is the\n"
                        "present one, -1 anywhere leaves things as they are.\n"
                        "Gives (pid, errno, step): errno 0, or why it could "
                        "not be started in step 0\n(setting up), 1 (changing "
                        "to cwd) or 2 (exec). None where the system has no\n"
                        "close_range(). Raises OSError when there can be no "
                        "process, ValueError for\nstrings with zero bytes.");

static PyObject *
spawn_(PyObject *module, PyObject *args)
{
    spawn self = {.error = 0};
    PyObject *result = NULL;
    pid_t pid;
    if (take(&self, args) < 0) {
        goto done;
    }
    if (self.close_fds && close_range_(NO_FD, NO_FD) < 0) {
        result = Py_NewRef(Py_None);
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    pid = run(&self);
    Py_END_ALLOW_THREADS
    if (pid < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        goto done;
    }
    result = Py_BuildValue("iii", (int)pid, self.error, self.step);
done:
    PyMem_Free(self.argv);
    Py_XDECREF(self.args);
    PyMem_Free(self.programs);
    PyMem_Free(self.env);
    PyMem_Free(self.keep);
    return result;
}

static PyMethodDef functions[] = {
    {"spawn", spawn_, METH_VARARGS, spawn_doc},
    {NULL, NULL, 0, NULL},
};

int
pyc_proc_register(PyObject *module, pyc_state *state)
{
    return PyModule_AddFunctions(module, functions);
}
