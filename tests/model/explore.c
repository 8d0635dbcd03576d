/* SPDX-License-Identifier: MIT */
#include "processes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NONE UINT32_MAX
#define STATES_MOST 40000000u

/* How a state was reached first. */
typedef struct {
    uint32_t from;
    model_choice choice;
} arrival;

/* A state that is to be gone on from. */
typedef struct pending {
    struct pending *next;
    uint32_t state;
    unsigned char bytes[];
} pending;

typedef struct {
    uint32_t states;
    uint32_t room; /* for states */
    arrival *arrivals;
    size_t *first; /* of each state's edges; one more at the end */
    uint32_t *edges;
    size_t edge_count, edge_room;
    bool *ends; /* whether all is over there */
    uint64_t *hashes;
    uint32_t *where;
    size_t mask; /* slots of the two, less one */
    pending *head, *tail;
    unsigned char *saved; /* room for one state */
} graph;

static void *
need(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "model: no memory\n");
        exit(2);
    }
    return memory;
}

static uint64_t
mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Two different states with the same one would be taken for one: less than one
 * chance in 10**5 with as many states as there may be. */
static uint64_t
hash(const unsigned char *bytes, size_t size)
{
    static const uint64_t secret[8] = {
        0x2d358dccaa6c78a5u, 0x8bb84b93962eacc9u, 0x4b33a62ed433d4a3u,
        0x4d5a2da51de1aa47u, 0xa0761d6478bd642fu, 0xe7037ed1a0b428dbu,
        0x90ed1765281c388cu, 0xaf2b1d8f0d9f3b1du};
    uint64_t sums[4] = {size, 1, 2, 3}; /* side by side, for speed */
    size_t i = 0;
    do {
        unsigned char block[64] = {0};
        uint64_t words[8];
        size_t left = size - i;
        const unsigned char *from = bytes + i;
        if (left < sizeof(block)) {
            memcpy(block, from, left);
            from = block;
        }
        memcpy(words, from, sizeof(words));
        for (int lane = 0; lane < 4; lane++) {
            sums[lane] = mix(words[2 * lane] ^ secret[2 * lane] ^ sums[lane],
                             words[2 * lane + 1] ^ secret[2 * lane + 1]) +
                         (sums[lane] << 1 | sums[lane] >> 63);
        }
        i += sizeof(block);
    } while (i < size);
    uint64_t sum = mix(sums[0] ^ secret[0], sums[1] ^ secret[5]) ^
                   mix(sums[2] ^ secret[6], sums[3] ^ secret[7]);
    return mix(sum ^ secret[3], secret[4]) | 1;
}

/* ---- The states seen ---- */

static void
grow_table(graph *all)
{
    size_t mask = all->mask == 0 ? (1 << 16) - 1 : all->mask * 2 + 1;
    uint64_t *hashes = need(calloc(mask + 1, sizeof(*hashes)));
    uint32_t *where = need(calloc(mask + 1, sizeof(*where)));
    for (size_t i = 0; all->hashes != NULL && i <= all->mask; i++) {
        if (all->hashes[i] != 0) {
            size_t slot = all->hashes[i] & mask;
            while (hashes[slot] != 0) {
                slot = (slot + 1) & mask;
            }
            hashes[slot] = all->hashes[i];
            where[slot] = all->where[i];
        }
    }
    free(all->hashes);
    free(all->where);
    all->hashes = hashes;
    all->where = where;
    all->mask = mask;
}

static uint32_t
new_state(graph *all, uint32_t from, model_choice choice)
{
    if (all->states == STATES_MOST) {
        fprintf(stderr, "model: too many states\n");
        exit(2);
    }
    if (all->states == all->room) {
        all->room = all->room == 0 ? 1 << 14 : all->room * 2;
        all->arrivals =
            need(realloc(all->arrivals, all->room * sizeof(*all->arrivals)));
        all->first =
            need(realloc(all->first, (all->room + 1) * sizeof(*all->first)));
        all->ends = need(realloc(all->ends, all->room * sizeof(*all->ends)));
    }
    all->arrivals[all->states] = (arrival){from, choice};
    all->ends[all->states] = false;
    return all->states++;
}

/* The state that is now. */
static uint32_t
arrive(graph *all, uint32_t from, model_choice choice)
{
    size_t size = model_save(all->saved);
    uint64_t sum = hash(all->saved, size);
    size_t slot = (sum >> 1) & all->mask;
    if ((size_t)all->states * 2 > all->mask) {
        grow_table(all);
    }
    slot = sum & all->mask;
    while (all->hashes[slot] != 0) {
        if (all->hashes[slot] == sum) {
            return all->where[slot];
        }
        slot = (slot + 1) & all->mask;
    }
    uint32_t state = new_state(all, from, choice);
    all->hashes[slot] = sum;
    all->where[slot] = state;
    pending *later = need(malloc(sizeof(*later) + size));
    later->next = NULL;
    later->state = state;
    memcpy(later->bytes, all->saved, size);
    if (all->tail != NULL) {
        all->tail->next = later;
    }
    else {
        all->head = later;
    }
    all->tail = later;
    return state;
}

static void
add_edge(graph *all, uint32_t to)
{
    if (all->edge_count == all->edge_room) {
        all->edge_room = all->edge_room == 0 ? 1 << 16 : all->edge_room * 2;
        all->edges =
            need(realloc(all->edges, all->edge_room * sizeof(*all->edges)));
    }
    all->edges[all->edge_count++] = to;
}

static void
free_graph(graph *all)
{
    while (all->head != NULL) {
        pending *next = all->head->next;
        free(all->head);
        all->head = next;
    }
    free(all->arrivals);
    free(all->first);
    free(all->edges);
    free(all->ends);
    free(all->hashes);
    free(all->where);
    free(all->saved);
}

/* ---- A defect ---- */

static void
print_way(const model_scenario *scenario, const graph *all, uint32_t state,
          const model_choice *last)
{
    uint32_t count = 0;
    for (uint32_t i = state; all->arrivals[i].from != NONE;
         i = all->arrivals[i].from) {
        count++;
    }
    model_choice *way = need(malloc((count + 1) * sizeof(*way)));
    uint32_t at = count;
    for (uint32_t i = state; at > 0; i = all->arrivals[i].from) {
        way[--at] = all->arrivals[i].choice;
    }
    if (last != NULL) {
        way[count++] = *last;
    }
    model_begin(scenario);
    model_verbose = true;
    for (uint32_t i = 0; i < count; i++) {
        model_apply(way[i]);
    }
    model_verbose = false;
    free(way);
}

/* ---- What the whole graph says ---- */

/* A state from which no way leads to the end; NONE: there is none. */
static uint32_t
find_stuck(const graph *all)
{
    size_t *start = need(calloc((size_t)all->states + 2, sizeof(*start)));
    uint32_t *back = need(malloc((all->edge_count + 1) * sizeof(*back)));
    uint32_t *stack = need(malloc((size_t)all->states * sizeof(*stack)));
    bool *leads = need(calloc(all->states, sizeof(*leads)));
    for (size_t i = 0; i < all->edge_count; i++) {
        start[all->edges[i] + 2]++;
    }
    for (uint32_t i = 0; i < all->states; i++) {
        start[i + 2] += start[i + 1];
    }
    size_t depth = 0;
    for (uint32_t i = 0; i < all->states; i++) {
        for (size_t j = all->first[i]; j < all->first[i + 1]; j++) {
            back[start[all->edges[j] + 1]++] = i;
        }
        if (all->ends[i]) {
            leads[i] = true;
            stack[depth++] = i;
        }
    }
    while (depth > 0) {
        uint32_t state = stack[--depth];
        for (size_t j = start[state]; j < start[state + 1]; j++) {
            if (!leads[back[j]]) {
                leads[back[j]] = true;
                stack[depth++] = back[j];
            }
        }
    }
    uint32_t stuck = 0;
    while (stuck < all->states && leads[stuck]) {
        stuck++;
    }
    free(start);
    free(back);
    free(stack);
    free(leads);
    return stuck < all->states ? stuck : NONE;
}

/* How many ways there are from the first state to an end, each without going in
 * a circle: a step back to where it came from is not counted. */
static double
count_ways(const graph *all)
{
    double *ways = need(calloc(all->states, sizeof(*ways)));
    char *colour = need(calloc(all->states, 1)); /* 1: on the way, 2: done */
    size_t *next = need(malloc((size_t)all->states * sizeof(*next)));
    uint32_t *path = need(malloc((size_t)all->states * sizeof(*path)));
    uint32_t depth = 1;
    path[0] = 0;
    colour[0] = 1;
    next[0] = all->first[0];
    while (depth > 0) {
        uint32_t state = path[depth - 1];
        if (next[state] == all->first[state + 1]) {
            ways[state] += all->ends[state];
            colour[state] = 2;
            if (--depth > 0) {
                ways[path[depth - 1]] += ways[state];
            }
            continue;
        }
        uint32_t to = all->edges[next[state]++];
        if (colour[to] == 2) {
            ways[state] += ways[to];
        }
        else if (colour[to] == 0) {
            colour[to] = 1;
            next[to] = all->first[to];
            path[depth++] = to;
        }
    }
    double result = ways[0];
    free(ways);
    free(colour);
    free(next);
    free(path);
    return result;
}

/* ---- The search ---- */

/* Everything that can happen in a state. A defect, or NULL. */
static const char *
go_on_from(const model_scenario *scenario, graph *all, const pending *now)
{
    model_choice choices[MODEL_CHOICES];
    model_restore(now->bytes);
    all->first[now->state] = all->edge_count;
    int count = model_choices(choices);
    if (model_finished()) {
        all->ends[now->state] = true;
        if (scenario->end != NULL) {
            scenario->end();
        }
    }
    const char *defect = model_defect;
    if (defect != NULL) {
        print_way(scenario, all, now->state, NULL);
        return defect;
    }
    for (int i = 0; i < count; i++) {
        if (i > 0) {
            model_restore(now->bytes);
        }
        model_apply(choices[i]);
        defect = model_defect;
        if (defect != NULL) {
            print_way(scenario, all, now->state, &choices[i]);
            return defect;
        }
        add_edge(all, arrive(all, now->state, choices[i]));
    }
    return NULL;
}

static bool
search(const model_scenario *scenario, graph *all)
{
    model_begin(scenario);
    arrive(all, NONE, (model_choice){0});
    const char *defect = NULL;
    while (all->head != NULL && defect == NULL) {
        pending *now = all->head;
        all->head = now->next;
        if (all->head == NULL) {
            all->tail = NULL;
        }
        defect = go_on_from(scenario, all, now);
        free(now);
    }
    if (defect == NULL) {
        all->first[all->states] = all->edge_count;
        uint32_t stuck = find_stuck(all);
        if (stuck != NONE) {
            print_way(scenario, all, stuck, NULL);
            defect = "from here nothing leads to the end";
        }
    }
    if (defect != NULL) {
        printf("  DEFECT: %s\n", defect);
    }
    return defect != NULL;
}

static bool
explore(const char *name, const model_scenario *scenario)
{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    graph all = {0};
    all.saved = need(malloc(MODEL_SAVED));
    grow_table(&all);
    bool defect = search(scenario, &all);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%s.%s: %s, %u states, %zu steps", name, scenario->name,
           defect ? "DEFECT" : "ok", all.states, all.edge_count);
    if (!defect) {
        printf(", %.3g interleavings", count_ways(&all));
    }
    printf(", %.1f s\n", (double)(end.tv_sec - begin.tv_sec) +
                             (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    fflush(stdout);
    free_graph(&all);
    return defect;
}

int
model_main(const char *name, const model_scenario *scenarios, size_t count,
           int argc, char **argv)
{
    int result = 0;
    bool any = false;
    model_catch_faults();
    for (size_t i = 0; i < count; i++) {
        bool wanted = argc < 2;
        for (int j = 1; j < argc; j++) {
            wanted |= strcmp(argv[j], scenarios[i].name) == 0;
        }
        if (wanted) {
            result |= explore(name, &scenarios[i]);
            any = true;
        }
    }
    if (!any) {
        fprintf(stderr, "%s: no such scenario\n", name);
    }
    return any ? result : 2;
}
