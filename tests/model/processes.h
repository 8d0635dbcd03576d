/* SPDX-License-Identifier: MIT */
/* The simulated processes: coroutines whose whole state can be saved and
 * restored, and the effect of their steps on the memory. */
#ifndef MODEL_PROCESSES_H
#define MODEL_PROCESSES_H

#include "explore.h"

#include <setjmp.h>

#define MODEL_STACK (64 * 1024)
#define MODEL_BUFFER 24       /* stores that wait, of one process */
#define MODEL_BUFFER_BYTES 32 /* of one of these */

typedef enum {
    MODEL_READY,
    MODEL_SLEEPING,
    MODEL_DONE,
    MODEL_DEAD
} model_status;

/* The next step of a process. */
typedef struct {
    const model_site *site;
    model_kind kind;
    int order;
    int32_t at; /* in the shared memory; -1: nothing */
    uint32_t size;
    uint64_t a;
    uint64_t b;
} model_step;

/* A store that only its process sees yet. Of size 0: a barrier, which later
 * stores do not overtake. */
typedef struct {
    uint32_t at;
    uint16_t size;
    bool release;
    bool issued; /* not lost when its process is killed */
    unsigned char bytes[MODEL_BUFFER_BYTES];
} model_store;

typedef struct {
    model_status status;
    int slices;     /* that ended since the last kill */
    uint32_t stack; /* bytes of it in use */
    uint32_t stores;
    uint64_t result; /* of the step, for the process */
    model_step step;
    jmp_buf context;
    model_store buffer[MODEL_BUFFER];
} model_process;

typedef struct {
    int kills;
    int interrupts;
    int preemptions;
    int last; /* who ran, for these */
    unsigned spared;
    model_process process[MODEL_PROCESSES];
} model_world;

extern model_world model_now;
extern const char *model_defect; /* NULL: none */
extern bool model_verbose;       /* say what each step does */

/* What can happen next. */
typedef enum {
    MODEL_RUN,        /* the step, and on to the next one */
    MODEL_SLICE,      /* of a sleep ends */
    MODEL_LATE,       /* the time of a sleep is over */
    MODEL_SIGNAL,     /* interrupts a sleep */
    MODEL_KILL,       /* before the step */
    MODEL_KILL_AFTER, /* after it, before the plain stores that follow */
    MODEL_FLUSH,      /* a store leaves the buffer */
} model_event;

typedef struct {
    uint8_t event;
    uint8_t process;
    uint16_t variant; /* who is woken, what is chosen, which store */
} model_choice;

#define MODEL_CHOICES 128

/* Faults of the processes are defects. */
void model_catch_faults(void);
void model_begin(const model_scenario *scenario);
void model_apply(model_choice choice);
/* How many; none: the end, or nobody can go on. */
int model_choices(model_choice *choices);
bool model_finished(void);

/* The state, as bytes. */
size_t model_save(unsigned char *to);
void model_restore(const unsigned char *from);
#define MODEL_SAVED                                                            \
    (sizeof(model_world) + MODEL_SHARED + MODEL_GHOST +                        \
     MODEL_PROCESSES * MODEL_STACK)

#endif
