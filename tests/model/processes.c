/* SPDX-License-Identifier: MIT */
#include "processes.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

_Alignas(4096) unsigned char model_shared[MODEL_SHARED];
_Alignas(64) unsigned char model_ghost[MODEL_GHOST];
model_world model_now;
int model_me = -1; /* -1: no process runs, but the explorer */
const char *model_defect;
bool model_verbose;

static _Alignas(4096) unsigned char stacks[MODEL_PROCESSES][MODEL_STACK];
static const model_scenario *scenario;
static jmp_buf explorer;

const model_scenario *
model_current(void)
{
    return scenario;
}

bool
model_alive(int process)
{
    return model_now.process[process].status != MODEL_DEAD;
}

bool
model_ended(int process)
{
    return model_now.process[process].status >= MODEL_DONE;
}

void
model_spare(bool spared)
{
    model_now.spared &= ~(1u << model_me);
    model_now.spared |= (unsigned)spared << model_me;
}

void
model_return(void)
{
    model_process *process = &model_now.process[model_me];
    for (uint32_t i = 0; i < process->stores; i++) {
        process->buffer[i].issued = true;
    }
}

int
model_killed(void)
{
    return model_now.kills;
}

/* ---- Going to and fro ---- */

static uint32_t
stack_in_use(int me)
{
    unsigned char *sp;
#if defined(__x86_64__)
    __asm__ volatile("mov %%rsp, %0" : "=r"(sp));
#elif defined(__aarch64__)
    __asm__ volatile("mov %0, sp" : "=r"(sp));
#else
#    error "how is the stack pointer called here?"
#endif
    return (uint32_t)(stacks[me] + MODEL_STACK - sp);
}

/* Stops this process until its step has been taken: the result. */
static __attribute__((noinline)) uint64_t
leave(const model_step *step)
{
    model_process *process = &model_now.process[model_me];
    process->step = *step;
    process->stack = stack_in_use(model_me);
    if (_setjmp(process->context) == 0) {
        _longjmp(explorer, 1);
    }
    process = &model_now.process[model_me];
    uint64_t result = process->result;
    process->result = 0; /* no part of the state any more */
    return result;
}

static void
body(void)
{
    scenario->run(model_me);
    model_now.process[model_me].status = MODEL_DONE;
    model_now.process[model_me].stack = 0;
    _longjmp(explorer, 1);
}

static const char *
file_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* A PyObject: that is why no header has it. */
__attribute__((weak)) void *
model_take_exception(void)
{
    return NULL;
}

void
model_fail(const char *file, int line, const char *what)
{
    static char text[512];
    if (model_defect == NULL) {
        snprintf(text, sizeof(text), "%s (%s:%d)", what, file_of(file), line);
        model_defect = text;
    }
    if (model_me >= 0) {
        _longjmp(explorer, 1);
    }
}

static void
fault(int number)
{
    if (model_me < 0) {
        abort();
    }
    model_fail(__FILE__, __LINE__, "a memory fault, or a function is missing");
}

void
model_catch_faults(void)
{
    static unsigned char stack[64 * 1024];
    stack_t own = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_handler = fault,
                               .sa_flags = SA_NODEFER | SA_ONSTACK};
    sigaltstack(&own, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

/* ---- Stores that wait ---- */

static bool
overlap(const model_store *store, uint32_t at, uint32_t size)
{
    return store->at < at + size && at < store->at + store->size;
}

/* What this process sees of the memory. */
static void
put_on(const model_process *process, uint32_t at, uint32_t size,
       unsigned char *seen)
{
    for (uint32_t i = 0; i < process->stores; i++) {
        const model_store *store = &process->buffer[i];
        for (uint32_t j = 0; j < store->size; j++) {
            uint32_t byte = store->at + j;
            if (byte >= at && byte < at + size) {
                seen[byte - at] = store->bytes[j];
            }
        }
    }
}

static void
buffer(model_process *process, uint32_t at, const void *bytes, size_t size,
       bool release)
{
    if (process->stores == MODEL_BUFFER) {
        fprintf(stderr, "model: too many stores wait\n");
        abort();
    }
    model_store *store = &process->buffer[process->stores++];
    *store =
        (model_store){.at = at, .size = (uint16_t)size, .release = release};
    if (size != 0) {
        __builtin_memcpy(store->bytes, bytes, size);
    }
}

static void
flush(model_process *process, uint32_t index)
{
    model_store *store = &process->buffer[index];
    __builtin_memcpy(model_shared + store->at, store->bytes, store->size);
    process->stores--;
    memmove(store, store + 1, (process->stores - index) * sizeof(*store));
    while (process->stores > 0 && process->buffer[0].size == 0) {
        process->stores--; /* a barrier that holds nothing back any more */
        memmove(process->buffer, process->buffer + 1,
                process->stores * sizeof(*store));
    }
}

static void
flush_all(model_process *process)
{
    while (process->stores > 0) {
        flush(process, 0);
    }
}

static bool
may_flush(const model_process *process, uint32_t index)
{
    const model_store *store = &process->buffer[index];
    if (store->size == 0 || (store->release && index > 0)) {
        return false;
    }
    for (uint32_t i = 0; i < index; i++) {
        if (process->buffer[i].size == 0 ||
            overlap(&process->buffer[i], store->at, store->size)) {
            return false;
        }
    }
    return true;
}

/* The stores up to the last one of this place. */
static void
flush_up_to(model_process *process, uint32_t at, uint32_t size)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < process->stores; i++) {
        if (overlap(&process->buffer[i], at, size)) {
            last = i + 1;
        }
    }
    uint32_t left = process->stores - last;
    while (process->stores > left) {
        flush(process, 0);
    }
}

/* The plain stores that the process did since `before`. */
static void
buffer_plain(model_process *process, const unsigned char *before)
{
    size_t used = scenario->shared;
    for (size_t i = 0; i < used; i += 4) {
        size_t end = i;
        while (end < used && end - i < MODEL_BUFFER_BYTES &&
               memcmp(model_shared + end, before + end, 4) != 0) {
            end += 4;
        }
        if (end > i) {
            buffer(process, (uint32_t)i, model_shared + i, end - i, false);
            i = end - 4;
        }
    }
}

static void
jump(int me, ucontext_t *first)
{
    model_me = me;
    if (_setjmp(explorer) == 0) {
        if (first != NULL) {
            setcontext(first);
        }
        _longjmp(model_now.process[me].context, 1);
    }
    model_me = -1;
}

/* Runs it until its next step. */
static void
go_on(int me, ucontext_t *first)
{
    model_process *process = &model_now.process[me];
    process->status = MODEL_READY;
    /* What lies beyond the stack's end must not depend on what ran before. */
    memset(stacks[me] + MODEL_STACK - process->stack - 3072, 0, 3072);
    if (!scenario->buffered) {
        jump(me, first);
        return;
    }
    unsigned char real[MODEL_SHARED], before[MODEL_SHARED];
    __builtin_memcpy(real, model_shared, scenario->shared);
    put_on(process, 0, (uint32_t)scenario->shared, model_shared);
    __builtin_memcpy(before, model_shared, scenario->shared);
    jump(me, first);
    buffer_plain(process, before);
    __builtin_memcpy(model_shared, real, scenario->shared);
}

void
model_begin(const model_scenario *which)
{
    scenario = which;
    memset(model_shared, 0, sizeof(model_shared));
    memset(model_ghost, 0, sizeof(model_ghost));
    memset(&model_now, 0, sizeof(model_now));
    memset(stacks, 0, sizeof(stacks));
    model_defect = NULL;
    if (scenario->setup != NULL) {
        scenario->setup();
    }
    for (int i = 0; i < MODEL_PROCESSES; i++) {
        model_now.process[i].status = MODEL_DONE;
    }
    for (int i = 0; i < scenario->processes; i++) {
        static ucontext_t first;
        getcontext(&first);
        first.uc_stack.ss_sp = stacks[i];
        first.uc_stack.ss_size = MODEL_STACK;
        first.uc_link = NULL;
        makecontext(&first, body, 0);
        go_on(i, &first);
    }
}

/* ---- The steps, as the processes ask for them ---- */

static bool
is_shared(volatile const void *at)
{
    const volatile unsigned char *byte = at;
    return byte >= model_shared && byte < model_shared + scenario->shared;
}

static int32_t
place(volatile const void *at)
{
    return (int32_t)((const volatile unsigned char *)at - model_shared);
}

static uint64_t
read_word(const void *at, size_t size)
{
    uint64_t value = 0;
    __builtin_memcpy(&value, at, size);
    return value;
}

static uint64_t
result_of(const model_step *step, uint64_t old)
{
    switch (step->kind) {
    case MODEL_STORE:
    case MODEL_EXCHANGE:
        return step->a;
    case MODEL_COMPARE_EXCHANGE:
        return old == read_word(&step->a, step->size) ? step->b : old;
    case MODEL_ADD:
        return old + step->a;
    case MODEL_SUB:
        return old - step->a;
    case MODEL_AND:
        return old & step->a;
    case MODEL_OR:
        return old | step->a;
    case MODEL_XOR:
        return old ^ step->a;
    default:
        return old;
    }
}

uint64_t
model_atomic(const model_site *site, model_kind kind, volatile const void *at,
             size_t size, int order, uint64_t a, uint64_t b)
{
    model_step step = {site, kind, order, -1, (uint32_t)size, a, b};
    if (model_me >= 0 &&
        (kind == MODEL_FENCE ? scenario->buffered : is_shared(at))) {
        step.at = kind == MODEL_FENCE ? -1 : place(at);
        return leave(&step);
    }
    if (kind == MODEL_FENCE) {
        return 0;
    }
    uint64_t old = read_word((const void *)at, size);
    uint64_t new = result_of(&step, old);
    __builtin_memcpy((void *)at, &new, size);
    return old;
}

void
model_copy(const model_site *site, void *to, const void *from, size_t size)
{
    if (model_me >= 0 && size > 0 && (is_shared(to) || is_shared(from))) {
        size_t half = size / 2;
        model_point(site);
        __builtin_memcpy(to, from, half);
        if (half != 0) {
            model_point(site);
        }
        __builtin_memcpy((char *)to + half, (const char *)from + half,
                         size - half);
        return;
    }
    __builtin_memcpy(to, from, size);
}

void
model_point(const model_site *site)
{
    leave(&(model_step){.site = site, .kind = MODEL_POINT, .at = -1});
}

int
model_choose(const model_site *site, int count)
{
    return (int)leave(&(model_step){
        .site = site, .kind = MODEL_CHOOSE, .at = -1, .a = (uint64_t)count});
}

int
model_sleep(const model_site *site, void *word, uint32_t expected,
            model_patience patience)
{
    return (int)(int64_t)leave(&(model_step){.site = site,
                                             .kind = MODEL_SLEEP,
                                             .at = place(word),
                                             .size = 4,
                                             .a = expected,
                                             .b = patience});
}

int
model_wake(const model_site *site, void *word, int count)
{
    return (int)leave(&(model_step){.site = site,
                                    .kind = MODEL_WAKE,
                                    .at = place(word),
                                    .size = 4,
                                    .a = (uint64_t)count});
}

int
model_requeue(const model_site *site, void *word, void *target,
              uint32_t expected)
{
    return (int)(int64_t)leave(&(model_step){.site = site,
                                             .kind = MODEL_REQUEUE,
                                             .at = place(word),
                                             .size = 4,
                                             .a = expected,
                                             .b = (uint64_t)place(target)});
}

bool
model_is_dead(const model_site *site, int process)
{
    if (process < 0 || process >= scenario->processes) {
        model_fail(__FILE__, __LINE__, "asks for an owner that never was");
    }
    return leave(&(model_step){.site = site,
                               .kind = MODEL_IS_DEAD,
                               .at = -1,
                               .a = (uint64_t)process}) != 0;
}

void
model_lock(const model_site *site, void *word)
{
    uint32_t taken = 1;
    if (model_me >= 0 && is_shared(word)) {
        leave(&(model_step){
            .site = site, .kind = MODEL_LOCK, .at = place(word), .size = 4});
    }
    else {
        __builtin_memcpy(word, &taken, sizeof(taken));
    }
}

void
model_unlock(void *word)
{
    uint32_t is_free = 0;
    if (scenario->buffered) {
        model_atomic(MODEL_SITE("a lock"), MODEL_STORE, word, sizeof(is_free),
                     memory_order_release, is_free, 0);
        return;
    }
    __builtin_memcpy(word, &is_free, sizeof(is_free));
}

unsigned
model_await(const model_site *site, unsigned processes, void *word)
{
    return (unsigned)leave(&(model_step){.site = site,
                                         .kind = MODEL_AWAIT,
                                         .at = place(word),
                                         .size = 4,
                                         .a = processes});
}

/* ---- ... and as they are taken ---- */

static void
tell(int me, const char *what, uint64_t value)
{
    static const char *const names[] = {
        "load",   "store", "exchange", "compare_exchange",
        "add",    "sub",   "and",      "or",
        "xor",    "fence", "point",    "sleep",
        "runs",   "wake",  "requeue",  "is_dead",
        "choose", "lock",  "await"};
    const model_step *step = &model_now.process[me].step;
    if (!model_verbose) {
        return;
    }
    if (step->site == NULL) {
        printf("    process %d: %s\n", me, what);
        return;
    }
    printf("    process %d: %s%s %s [%d] %#llx %#llx -> %#llx (%s:%d)\n", me,
           what, names[step->kind], step->site->what, step->at,
           (unsigned long long)step->a, (unsigned long long)step->b,
           (unsigned long long)value, file_of(step->site->file),
           step->site->line);
}

static bool
releases(int order)
{
    return order == memory_order_release || order == memory_order_acq_rel ||
           order == memory_order_seq_cst;
}

static uint64_t
take_store(model_process *process, const model_step *step)
{
    if (!scenario->buffered) {
        __builtin_memcpy(model_shared + step->at, &step->a, step->size);
        return 0;
    }
    buffer(process, (uint32_t)step->at, &step->a, step->size,
           releases(step->order));
    if (step->order == memory_order_seq_cst) {
        flush_all(process);
    }
    return 0;
}

static uint64_t
take_atomic(model_process *process, const model_step *step)
{
    if (step->kind == MODEL_LOAD) {
        unsigned char seen[8] = {0};
        __builtin_memcpy(seen, model_shared + step->at, step->size);
        put_on(process, (uint32_t)step->at, step->size, seen);
        return read_word(seen, step->size);
    }
    if (step->kind == MODEL_STORE) {
        return take_store(process, step);
    }
    if (releases(step->order)) {
        flush_all(process);
    }
    flush_up_to(process, (uint32_t)step->at, step->size);
    uint64_t old = read_word(model_shared + step->at, step->size);
    uint64_t new = result_of(step, old);
    __builtin_memcpy(model_shared + step->at, &new, step->size);
    return old;
}

static uint64_t
take_fence(model_process *process, const model_step *step)
{
    if (step->order == memory_order_seq_cst) {
        flush_all(process);
    }
    else if (releases(step->order) && process->stores > 0) {
        buffer(process, 0, NULL, 0, false);
    }
    return 0;
}

static uint64_t
take_requeue(const model_step *step, unsigned who)
{
    if (read_word(model_shared + step->at, 4) != step->a) {
        return (uint64_t)-1;
    }
    for (int i = 0; i < scenario->processes; i++) {
        if (who & 1u << i) {
            model_now.process[i].step.at = (int32_t)step->b;
        }
    }
    return (uint64_t)__builtin_popcount(who);
}

static uint64_t
take_wake(unsigned who)
{
    uint64_t woken = 0;
    for (int i = 0; i < scenario->processes; i++) {
        model_process *process = &model_now.process[i];
        if (who & 1u << i) {
            process->status = MODEL_READY;
            process->step.kind = MODEL_RESUME;
            process->step.a = process->step.b = 0;
            woken++;
        }
    }
    return woken;
}

static unsigned
ended_of(uint64_t processes)
{
    unsigned ended = 0;
    for (int i = 0; i < scenario->processes; i++) {
        ended |= (unsigned)model_ended(i) << i;
    }
    return ended & (unsigned)processes;
}

/* False: it sleeps now. */
static bool
take(model_process *process, const model_step *step, unsigned variant)
{
    switch (step->kind) {
    case MODEL_FENCE:
        process->result = take_fence(process, step);
        return true;
    case MODEL_POINT:
    case MODEL_RESUME:
        process->result = 0;
        return true;
    case MODEL_CHOOSE:
        process->result = variant;
        return true;
    case MODEL_SLEEP:
        flush_all(process);
        process->result = 0;
        return read_word(model_shared + step->at, 4) != (uint32_t)step->a;
    case MODEL_WAKE:
        flush_all(process);
        process->result = take_wake(variant);
        return true;
    case MODEL_REQUEUE:
        flush_all(process);
        process->result = take_requeue(step, variant);
        return true;
    case MODEL_IS_DEAD:
        flush_all(process);
        process->result = !model_alive((int)step->a);
        return true;
    case MODEL_LOCK:
        flush_all(process);
        __builtin_memcpy(model_shared + step->at, &(uint32_t){1}, 4);
        process->result = 0;
        return true;
    case MODEL_AWAIT:
        flush_all(process);
        process->result = ended_of(step->a);
        return true;
    default:
        process->result = take_atomic(process, step);
        return true;
    }
}

static void
kill_process(int me)
{
    model_process *process = &model_now.process[me];
    process->status = MODEL_DEAD;
    process->stack = 0;
    while (process->stores > 0 && process->buffer[0].issued) {
        flush(process, 0);
    }
    process->stores = 0;
    process->result = 0;
    memset(&process->step, 0, sizeof(process->step));
    memset(&process->context, 0, sizeof(process->context));
    model_now.kills++;
    for (int i = 0; i < scenario->processes; i++) {
        model_now.process[i].slices = 0;
    }
}

static void
end_sleep(int me, int result, const char *why)
{
    model_process *process = &model_now.process[me];
    tell(me, why, (uint64_t)result);
    process->result = (uint64_t)(int64_t)result;
    go_on(me, NULL);
}

static void
run_step(int me, unsigned variant, bool dies)
{
    model_process *process = &model_now.process[me];
    model_step step = process->step;
    bool runs = take(process, &step, variant);
    tell(me, runs ? "" : "begins to ", process->result);
    if (!runs) {
        process->status = MODEL_SLEEPING;
    }
    else if (dies) {
        tell(me, "KILLED after ", process->result);
        kill_process(me);
    }
    else {
        go_on(me, NULL);
    }
}

/* Whether it could go on. */
static bool
is_ready(const model_process *process)
{
    const model_step *step = &process->step;
    if (process->status != MODEL_READY) {
        return false;
    }
    switch (step->kind) {
    case MODEL_LOCK:
        return read_word(model_shared + step->at, 4) == 0;
    case MODEL_AWAIT:
        return ended_of(step->a) != 0 ||
               read_word(model_shared + step->at, 4) != 0;
    default:
        return true;
    }
}

/* Whether that stops another one, which could go on. */
static bool
preempts(model_event event, int me)
{
    return event != MODEL_FLUSH && event != MODEL_KILL &&
           scenario->preemptions != 0 && model_now.last != me &&
           is_ready(&model_now.process[model_now.last]);
}

static void
schedule(model_event event, int me)
{
    model_now.preemptions += preempts(event, me);
    if (scenario->preemptions != 0 && event != MODEL_FLUSH &&
        event != MODEL_KILL) {
        model_now.last = me;
    }
}

void
model_apply(model_choice choice)
{
    int me = choice.process;
    schedule((model_event)choice.event, me);
    switch ((model_event)choice.event) {
    case MODEL_RUN:
        run_step(me, choice.variant, false);
        break;
    case MODEL_KILL_AFTER:
        run_step(me, choice.variant, true);
        break;
    case MODEL_SLICE:
        model_now.process[me].slices += !scenario->restless;
        end_sleep(me, 1, "a slice ends: ");
        break;
    case MODEL_LATE:
        end_sleep(me, 2, "too late: ");
        break;
    case MODEL_SIGNAL:
        model_now.interrupts++;
        end_sleep(me, -1, "interrupted: ");
        break;
    case MODEL_KILL:
        tell(me, "KILLED before ", 0);
        kill_process(me);
        break;
    case MODEL_FLUSH:
        if (model_verbose) {
            printf("    process %d: its store to [%u] is seen now\n", me,
                   model_now.process[me].buffer[choice.variant].at);
        }
        flush(&model_now.process[me], choice.variant);
        break;
    }
    if (model_defect == NULL && scenario->check != NULL) {
        scenario->check();
    }
}

/* ---- What can happen ---- */

typedef struct {
    model_choice *choices;
    int count;
} list;

static void
add(list *to, model_event event, int me, unsigned variant)
{
    if (preempts(event, me) && model_now.preemptions == scenario->preemptions) {
        return;
    }
    if (to->count == MODEL_CHOICES) {
        fprintf(stderr, "model: too many choices\n");
        abort();
    }
    to->choices[to->count++] =
        (model_choice){(uint8_t)event, (uint8_t)me, (uint16_t)variant};
}

/* All sets of sleepers that a wake can reach. */
static void
add_wakes(list *to, model_event event, int me, const model_step *step)
{
    uint64_t most = step->kind == MODEL_WAKE ? step->a : 1;
    unsigned sleepers = 0;
    for (int i = 0; i < scenario->processes; i++) {
        const model_process *process = &model_now.process[i];
        if (process->status == MODEL_SLEEPING && process->step.at == step->at) {
            sleepers |= 1u << i;
        }
    }
    int count = __builtin_popcount(sleepers);
    if (most < (uint64_t)count) {
        count = (int)most;
    }
    for (unsigned set = 0; set < 1u << MODEL_PROCESSES; set++) {
        if ((set & ~sleepers) == 0 && __builtin_popcount(set) == count) {
            add(to, event, me, set);
        }
    }
}

static void
add_steps(list *to, model_event event, int me)
{
    const model_step *step = &model_now.process[me].step;
    if (step->kind == MODEL_WAKE || step->kind == MODEL_REQUEUE) {
        add_wakes(to, event, me, step);
        return;
    }
    int count = step->kind == MODEL_CHOOSE ? (int)step->a : 1;
    for (int i = 0; i < count; i++) {
        add(to, event, me, (unsigned)i);
    }
}

/* Whether a kill right after the step differs from one before it. */
static bool
changes(model_kind kind)
{
    return (kind >= MODEL_STORE && kind <= MODEL_XOR) || kind == MODEL_WAKE ||
           kind == MODEL_REQUEUE;
}

static void
add_process(list *to, int me)
{
    const model_process *process = &model_now.process[me];
    for (uint32_t i = 0; i < process->stores; i++) {
        if (may_flush(process, i)) {
            add(to, MODEL_FLUSH, me, i);
        }
    }
    if (process->status > MODEL_SLEEPING) {
        return;
    }
    const model_step *step = &process->step;
    if (is_ready(process)) {
        add_steps(to, MODEL_RUN, me);
    }
    else if (process->status == MODEL_SLEEPING) {
        if (scenario->restless && step->b != MODEL_ENDLESS) {
            add(to, MODEL_SLICE, me, 0);
        }
        if (model_now.interrupts < scenario->interrupts) {
            add(to, MODEL_SIGNAL, me, 0);
        }
    }
    if (step->kind == MODEL_SLEEP && step->b == MODEL_TIMED) {
        add(to, MODEL_LATE, me, 0);
    }
    if (model_now.kills < scenario->kills &&
        !((scenario->immortal | model_now.spared) & 1u << me)) {
        add(to, MODEL_KILL, me, 0);
        if (changes(step->kind) && is_ready(process)) {
            add_steps(to, MODEL_KILL_AFTER, me);
        }
    }
}

static bool
sleeps_for_a_slice(const model_process *process)
{
    return process->status == MODEL_SLEEPING &&
           process->step.b != MODEL_ENDLESS;
}

/* Everybody sleeps: the time of a slice goes by for all of them. */
static void
add_slices(list *to)
{
    int fewest = INT32_MAX;
    for (int i = 0; i < scenario->processes; i++) {
        const model_process *process = &model_now.process[i];
        if (sleeps_for_a_slice(process) && process->slices < fewest) {
            fewest = process->slices;
        }
    }
    if (model_now.kills == 0) {
        model_defect = "all sleep, though nobody was killed";
        return;
    }
    if (fewest >= scenario->slices) {
        model_defect = "all sleep after the slices that a kill may cost";
        return;
    }
    for (int i = 0; i < scenario->processes; i++) {
        const model_process *process = &model_now.process[i];
        if (sleeps_for_a_slice(process) && process->slices == fewest) {
            add(to, MODEL_SLICE, i, 0);
        }
    }
}

bool
model_finished(void)
{
    for (int i = 0; i < scenario->processes; i++) {
        const model_process *process = &model_now.process[i];
        if (process->status < MODEL_DONE || process->stores > 0) {
            return false;
        }
    }
    return true;
}

int
model_choices(model_choice *choices)
{
    list all = {choices, 0};
    bool quiet = true;
    for (int i = 0; i < scenario->processes; i++) {
        const model_process *process = &model_now.process[i];
        bool timed =
            process->status == MODEL_SLEEPING && process->step.b == MODEL_TIMED;
        if (is_ready(process) || process->stores > 0 || timed) {
            quiet = false;
        }
        add_process(&all, i);
    }
    if (quiet && !scenario->restless && !model_finished()) {
        add_slices(&all);
    }
    return all.count;
}

/* ---- The state as bytes ---- */

static unsigned char *
put(unsigned char *to, const void *from, size_t size)
{
    __builtin_memcpy(to, from, size);
    return to + size;
}

size_t
model_save(unsigned char *to)
{
    unsigned char *end = to;
    end = put(end, &model_now, offsetof(model_world, process));
    for (int i = 0; i < scenario->processes; i++) {
        const model_process *process = &model_now.process[i];
        end = put(end, process, offsetof(model_process, buffer));
        end = put(end, process->buffer, process->stores * sizeof(model_store));
        end =
            put(end, stacks[i] + MODEL_STACK - process->stack, process->stack);
    }
    end = put(end, model_shared, scenario->shared);
    end = put(end, model_ghost, scenario->ghost);
    return (size_t)(end - to);
}

static const unsigned char *
get(const unsigned char *from, void *to, size_t size)
{
    __builtin_memcpy(to, from, size);
    return from + size;
}

void
model_restore(const unsigned char *from)
{
    from = get(from, &model_now, offsetof(model_world, process));
    for (int i = 0; i < scenario->processes; i++) {
        model_process *process = &model_now.process[i];
        from = get(from, process, offsetof(model_process, buffer));
        from =
            get(from, process->buffer, process->stores * sizeof(model_store));
        from =
            get(from, stacks[i] + MODEL_STACK - process->stack, process->stack);
    }
    from = get(from, model_shared, scenario->shared);
    get(from, model_ghost, scenario->ghost);
}
