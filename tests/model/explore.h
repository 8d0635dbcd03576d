/* SPDX-License-Identifier: MIT */
/* Runs a few simulated processes in every order in which their steps can
 * interleave, and kills some of them at every point.
 *
 * The processes run the real C of csrc/ipc. Each is a coroutine; each atomic
 * operation on shared memory, each sleep and each wake of it is a step. A state
 * is the shared memory and the stacks of the coroutines; the search is breadth
 * first, over all states, and no state is visited twice: so it ends where the
 * processes can go in circles, and the first defect found has the shortest
 * way there.
 *
 * What counts as a defect: a check of the model that fails; processes that all
 * sleep though nobody was killed (a slice would help, but they must not need
 * one); more slices after a kill than the scenario allows; a state from which
 * there is no way to the end.
 *
 * Memory: every step takes effect at once (sequential consistency), or, with
 * `buffered`, each process's stores, plain ones too, wait in a buffer for as
 * long as they like: until a release store of the same process, a fence or a
 * system call needs them to be seen. Those of different words may leave it in
 * any order, only a release store does not overtake. This is all that x86 does
 * and what other processors do to stores. When a process is killed, its stores
 * that wait are lost: a compiler may have put them behind the others. Loads are
 * not reordered. */
#ifndef MODEL_EXPLORE_H
#define MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_PROCESSES 6
#define MODEL_SHARED 8192 /* bytes of shared memory, at most */
#define MODEL_GHOST 8192  /* bytes that only the checks know, at most */

/* What the processes share; all zero at the beginning of a scenario. */
extern unsigned char model_shared[MODEL_SHARED];
/* What the model notes for its checks: no step, no part of the memory. */
extern unsigned char model_ghost[MODEL_GHOST];

typedef struct {
    const char *name;
    int processes;
    int kills;  /* up to so many are killed */
    int slices; /* that one process may need after a kill */
    /* Slices end at any time, not only when nothing else happens: then they
     * are not counted, and a lost wake is not noticed. */
    bool restless;
    bool buffered;
    int interrupts; /* up to so many sleeps end by a signal */
    /* Up to so many times a process has to stop though it could go on, and
     * another runs; 0: as often as possible. */
    int preemptions;
    unsigned immortal; /* a bit for each process that is not killed */
    size_t shared;     /* bytes of each that are in use */
    size_t ghost;
    void (*setup)(void);
    void (*run)(int me);
    void (*check)(void); /* in every state; may be NULL */
    void (*end)(void);   /* when all that live have finished; may be NULL */
} model_scenario;

/* Explores each, or those whose name an argument gives; prints a line for each
 * and the way to a defect. main's result. */
int model_main(const char *name, const model_scenario *scenarios, size_t count,
               int argc, char **argv);

/* Who runs: 0 ... */
extern int model_me;
bool model_alive(int process);
bool model_ended(int process); /* killed, or it has finished */
/* No compiler moves what came before behind this: back in the interpreter. */
void model_return(void);
/* Whether who runs is killed from here on. */
void model_spare(bool spared);
int model_killed(void);
/* Of the scenario that runs, for bodies that several share. */
const model_scenario *model_current(void);

/* Where an operation stands, for the way to a defect. */
typedef struct {
    const char *file;
    int line;
    const char *what;
} model_site;
#define MODEL_SITE(what)                                                       \
    ({                                                                         \
        static const model_site site_ = {__FILE__, __LINE__, what};            \
        &site_;                                                                \
    })

/* The steps. Memory that is not shared is used at once. */
typedef enum {
    MODEL_LOAD,
    MODEL_STORE,
    MODEL_EXCHANGE,
    MODEL_COMPARE_EXCHANGE,
    MODEL_ADD,
    MODEL_SUB,
    MODEL_AND,
    MODEL_OR,
    MODEL_XOR,
    MODEL_FENCE,
    MODEL_POINT, /* nothing but a place to be interrupted, or killed */
    MODEL_SLEEP,
    MODEL_RESUME, /* woken, not running yet */
    MODEL_WAKE,
    MODEL_REQUEUE,
    MODEL_IS_DEAD,
    MODEL_CHOOSE,
    MODEL_LOCK,  /* once the word is 0 */
    MODEL_AWAIT, /* the end of a process, or that the word is not 0 */
} model_kind;

/* `a`: the operand or what is expected, `b`: the new value of an exchange. The
 * old value is the result. */
uint64_t model_atomic(const model_site *site, model_kind kind,
                      volatile const void *at, size_t size, int order,
                      uint64_t a, uint64_t b);
void model_copy(const model_site *site, void *to, const void *from,
                size_t size);
void model_point(const model_site *site);
/* 0 ... count - 1: all are tried. */
int model_choose(const model_site *site, int count);
/* How long a sleep may be: a slice; less, so that it may be too late at any
 * time; or for ever, so that it needs a wake even after a kill. */
typedef enum { MODEL_SLICED, MODEL_TIMED, MODEL_ENDLESS } model_patience;
/* Results as in ipc/sleep.h. */
int model_sleep(const model_site *site, void *word, uint32_t expected,
                model_patience patience);
int model_wake(const model_site *site, void *word, int count);
/* FUTEX_CMP_REQUEUE, of one sleeper. */
int model_requeue(const model_site *site, void *word, void *target,
                  uint32_t expected);
bool model_is_dead(const model_site *site, int process);
/* A lock of threads of one process, which are not killed: who wants it does not
 * run before it is free. */
void model_lock(const model_site *site, void *word);
void model_unlock(void *word);
/* Until one of these processes has ended, a bit for each: those that have; or
 * the word is not 0. As poll() with their sentinels. */
unsigned model_await(const model_site *site, unsigned processes, void *word);

void model_fail(const char *file, int line, const char *what);
#define MODEL_CHECK(condition, what)                                           \
    ((condition) ? (void)0 : model_fail(__FILE__, __LINE__, what))

#endif
