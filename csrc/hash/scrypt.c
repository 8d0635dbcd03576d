/* SPDX-License-Identifier: MIT */
#include "hash/scrypt.h"
#include <endian.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* Salsa20's 4 x 4 words as its four diagonals, so that a step changes all
 * columns (or all rows) with one instruction each and nothing is moved but by
 * rotating the vectors. */
typedef uint32_t diagonal __attribute__((vector_size(16)));
typedef struct {
    diagonal of[4];
} salsa_block;

/* The word of a block in each place of its diagonals. */
static const unsigned char words[4][4] = {
    {0, 5, 10, 15}, {4, 9, 14, 3}, {8, 13, 2, 7}, {12, 1, 6, 11}};

#ifdef __clang__
#    define ROTATED(v, a, b, c, d) __builtin_shufflevector(v, v, a, b, c, d)
#else
#    define ROTATED(v, a, b, c, d) __builtin_shuffle(v, (diagonal){a, b, c, d})
#endif

#define INLINE static inline __attribute__((always_inline))
/* Unrolled, since it is the lanes in turn that keep the core busy. */
#define EACH_LANE                                                              \
    _Pragma("GCC unroll 2") for (size_t lane = 0; lane < lanes; lane++)
#define EACH_DIAGONAL _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++)

/* changed ^= (a + b) <<< bits */
#define STEP(changed, a, b, bits)                                              \
    EACH_LANE                                                                  \
    {                                                                          \
        diagonal sum = x[lane].of[a] + x[lane].of[b];                          \
        x[lane].of[changed] ^= (sum << (bits)) | (sum >> (32 - (bits)));       \
    }

/* Half a double round, after which columns are rows and rows are columns. */
INLINE void
salsa_half(salsa_block *x, size_t lanes)
{
    STEP(1, 0, 3, 7)
    STEP(2, 1, 0, 9)
    STEP(3, 2, 1, 13)
    STEP(0, 3, 2, 18)
    EACH_LANE
    {
        diagonal *of = x[lane].of, first = of[1];
        of[1] = ROTATED(of[3], 1, 2, 3, 0);
        of[2] = ROTATED(of[2], 2, 3, 0, 1);
        of[3] = ROTATED(first, 3, 0, 1, 2);
    }
}

INLINE void
salsa20_8(salsa_block *state, size_t lanes)
{
    salsa_block x[PYC_SCRYPT_LANES];
    EACH_LANE x[lane] = state[lane];
    for (int i = 0; i < 8; i++) {
        salsa_half(x, lanes);
    }
    EACH_LANE EACH_DIAGONAL state[lane].of[k] += x[lane].of[k];
}

/* What a lane reads and writes: 2 * r blocks each. */
typedef struct {
    const salsa_block *in, *with; /* with: NULL, or xored with `in` */
    salsa_block *out;
} lane_blocks;

INLINE void
add_block(salsa_block *x, const lane_blocks *blocks, size_t i, bool mixed)
{
    EACH_DIAGONAL x->of[k] ^= blocks->in[i].of[k];
    if (mixed) {
        EACH_DIAGONAL x->of[k] ^= blocks->with[i].of[k];
    }
}

/* scryptBlockMix. */
INLINE void
mix_blocks(const lane_blocks *blocks, size_t lanes, size_t r, bool mixed)
{
    salsa_block x[PYC_SCRYPT_LANES] = {0};
    EACH_LANE add_block(&x[lane], &blocks[lane], 2 * r - 1, mixed);
    for (size_t i = 0; i < 2 * r; i++) {
        EACH_LANE add_block(&x[lane], &blocks[lane], i, mixed);
        salsa20_8(x, lanes);
        EACH_LANE blocks[lane].out[i / 2 + (i & 1) * r] = x[lane];
    }
}

static void
load(salsa_block *out, const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < 16 * count; i++) {
        uint32_t word;
        memcpy(&word, bytes + i / 16 * 64 + words[i / 4 % 4][i % 4] * 4, 4);
        out[i / 16].of[i / 4 % 4][i % 4] = le32toh(word);
    }
}

static void
store(unsigned char *bytes, const salsa_block *in, size_t count)
{
    for (size_t i = 0; i < 16 * count; i++) {
        uint32_t word = htole32(in[i / 16].of[i / 4 % 4][i % 4]);
        memcpy(bytes + i / 16 * 64 + words[i / 4 % 4][i % 4] * 4, &word, 4);
    }
}

/* Integerify: the first 64 bits of the last block. */
INLINE uint64_t
number(const salsa_block *blocks, size_t r)
{
    const salsa_block *last = &blocks[2 * r - 1];
    return last->of[0][0] | (uint64_t)last->of[3][1] << 32;
}

typedef struct {
    salsa_block *v; /* n entries of 2 * r blocks */
    salsa_block *x, *y;
    unsigned char *bytes;
} lane_memory;

static size_t
lane_size(const pyc_scrypt *cost)
{
    return 128 * cost->r * (cost->n + 2 + cost->p);
}

static lane_memory
lane_of(const pyc_scrypt *cost, void *memory, size_t lane)
{
    size_t entry = 2 * cost->r;
    lane_memory its;
    its.v = (salsa_block *)((char *)memory + lane * lane_size(cost));
    its.x = its.v + cost->n * entry;
    its.y = its.x + entry;
    its.bytes = (unsigned char *)(its.y + entry);
    return its;
}

/* scryptROMix of the block number `index` of each lane. */
INLINE void
mix_lanes(const pyc_scrypt *cost, lane_memory *its, size_t lanes, size_t index)
{
    size_t r = cost->r, entry = 2 * r, offset = index * 128 * r;
    lane_blocks now[PYC_SCRYPT_LANES];
    EACH_LANE load(its[lane].v, its[lane].bytes + offset, entry);
    for (uint64_t i = 0; i < cost->n; i++) {
        EACH_LANE
        {
            salsa_block *in = its[lane].v + i * entry;
            now[lane].in = in;
            now[lane].with = NULL;
            now[lane].out = i + 1 < cost->n ? in + entry : its[lane].x;
        }
        mix_blocks(now, lanes, r, false);
    }
    for (uint64_t i = 0; i < cost->n; i++) {
        EACH_LANE
        {
            const salsa_block *in = i & 1 ? its[lane].y : its[lane].x;
            uint64_t j = number(in, r) & (cost->n - 1);
            now[lane].in = in;
            now[lane].with = its[lane].v + j * entry;
            now[lane].out = i & 1 ? its[lane].x : its[lane].y;
        }
        mix_blocks(now, lanes, r, true);
    }
    EACH_LANE store(its[lane].bytes + offset, its[lane].x, entry);
}

size_t
pyc_scrypt_size(const pyc_scrypt *cost, size_t lanes)
{
    return lanes * lane_size(cost);
}

/* Large memory is mapped in huge pages: what is read at random finds its
 * addresses sooner, and there are 512 times fewer to be made. */
static size_t
mapped_size(size_t size)
{
    return size < HUGE_PAGE ? size : (size + HUGE_PAGE - 1) & -HUGE_PAGE;
}

void *
pyc_scrypt_memory(size_t size)
{
    const int access = PROT_READ | PROT_WRITE;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    size_t mapped = mapped_size(size), spare = size < HUGE_PAGE ? 0 : HUGE_PAGE;
    /* cppcheck-suppress invalidFunctionArg ; no file is -1 */
    char *begin = mmap(NULL, mapped + spare, access, flags, -1, 0);
    if (begin == MAP_FAILED) {
        return NULL;
    }
    size_t before = spare > 0 ? -(uintptr_t)begin % HUGE_PAGE : 0;
    char *memory = begin + before;
    if (before > 0) {
        munmap(begin, before);
    }
    if (spare > before) {
        munmap(memory + mapped, spare - before);
    }
    /* A child that is forked meanwhile has no use for the secrets. */
    madvise(memory, mapped, MADV_DONTFORK);
    madvise(memory, size & -HUGE_PAGE, MADV_HUGEPAGE);
    return memory;
}

void
pyc_scrypt_free(void *memory, size_t size)
{
    munmap(memory, mapped_size(size));
}

unsigned char *
pyc_scrypt_blocks(const pyc_scrypt *cost, void *memory, size_t lane)
{
    return lane_of(cost, memory, lane).bytes;
}

void
pyc_scrypt_mix(const pyc_scrypt *cost, void *memory, size_t lanes)
{
    lane_memory its[PYC_SCRYPT_LANES];
    for (size_t lane = 0; lane < lanes; lane++) {
        its[lane] = lane_of(cost, memory, lane);
    }
    for (size_t i = 0; i < cost->p; i++) {
        if (lanes == 1) {
            mix_lanes(cost, its, 1, i);
        }
        else {
            mix_lanes(cost, its, PYC_SCRYPT_LANES, i);
        }
    }
}
