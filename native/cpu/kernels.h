/* One table of kernels per instruction-set level, chosen once. The scalar table is the specification.
 *
 * The arithmetic of quantized products, the same at every level, so that all levels give the same bits:
 *   - activations are int8 under one float scale for as many columns as the weights' type shares a scale, 32 or 256:
 *     scale = amax / 127, q = rint(x * (127 / amax)), rounding half to even; where 127 / amax overflows, scale and q
 *     are 0; a block with a value that is not finite has scale NaN and q 0, so that every output of that token is NaN;
 *   - each block b of so many columns gives an exact int32: isum_b = sum of code * q, where types of 256 columns
 *     multiply the sum of each sixteen columns by its integer sub-scale first;
 *   - acc = fma((float)isum_b * d_b, scale_b, acc), b rising, from acc = 0, where d_b is the block's float weight
 *     scale; types with minima follow it by acc = fma(m_b, scale_b * (float)qsum_b, acc), qsum_b the sum of q, when
 *     the block is 32 columns, and by acc = fma((float)msum_b * m_b, scale_b, acc), msum_b the exact sum of
 *     integer minimum * sum of its q, when it is 256.
 * Float weights (F32, F16, BF16): sixteen lanes, lane j sums columns j, j + 16, ... by fma, rising (a last partial
 * sixteen is filled with zeros); then lanes fold 8 apart, 4 apart, 2 apart, 1 apart.
 * No level may reassociate either sum; every one may tile as it likes.
 *
 * All this is of generated tokens. A level may have an arithmetic of its own for the tokens of prompts, which come many
 * at a time and want other instructions: prompts_amx.c. Which one a token gets depends on whether it was generated,
 * never on the batch, and on the last layer's network and the head all tokens are treated alike. */
#ifndef KERNELS_H
#define KERNELS_H
#include <stdint.h>
#include "localllm.h"

enum {
    GROUP = 16,      /* tokens whose codes lie together, so that a tile of them is one piece of memory */
    SPLIT_SUMS = 24, /* of 256 columns: sixteen sums of 16, then eight of 32, */
    SUPER_SUMS = 40, /* and those eight again, each as a pair of bf16 that adds up to it */
};

/* int8 activations under one scale per `width` columns. Tokens lie in groups of `rows`, the last group padded; within
 * a group 64 columns of every token, then the next 64. What is in the padding does not matter. */
struct quants {
    int8_t *q;      /* (groups, k / 64 rounded up, rows, 64) */
    float *scale;   /* (groups, k / width, rows) */
    int16_t *sums;  /* width 32: (groups, k / 32, rows) sums of q; width 256: (groups, k / 256, rows, SUPER_SUMS) */
};

/* Activations of n tokens, k columns each; k is a multiple of 32 wherever blocks are used, of 256 wherever supers. */
struct activations {
    int32_t n, k;
    int32_t rows;         /* of a group: group_rows(n) */
    int32_t ahead;        /* cpu_read_ahead() */
    int64_t ld;           /* floats from one token of x to the next */
    const float *x;       /* (n, ld) */
    struct quants blocks; /* of 32 columns */
    struct quants supers; /* of 256 columns */
    struct quants fours;  /* those once more, as tiles take them, at level amx: kernels_amx.c; no scales */
};

/* Tokens of prompts as bf16, for a level that multiplies them in tiles: n of k columns, filled up with zeros to whole
 * groups of 16 tokens and whole steps of 32 columns. */
struct prompt {
    int32_t n, k;
    uint16_t *high; /* (groups, steps, 16 pairs of columns, 16 tokens, 2) */
    uint16_t *low;  /* what `high` leaves of the values, likewise; NULL where only quantized weights follow */
};

static inline int32_t prompt_steps(int32_t k) { return (k + 31) / 32; }

static inline int32_t group_rows(int32_t n) { return n < GROUP ? n : GROUP; }
static inline int32_t groups_of(int32_t n) { return (n + GROUP - 1) / GROUP; }
static inline int32_t padded_tokens(int32_t n) { return groups_of(n) * GROUP; }

/* Where 64 columns of a token lie, and its scale of a block of `width` columns: indexes into q and scale. */
static inline int64_t q_at(const struct activations *a, int32_t token, int32_t sixty_four) {
    return (((int64_t)(token / GROUP) * ((a->k + 63) / 64) + sixty_four) * a->rows + token % GROUP) * 64;
}
static inline int64_t scale_at(const struct activations *a, int32_t width, int32_t token, int32_t block) {
    return ((int64_t)(token / GROUP) * (a->k / width) + block) * a->rows + token % GROUP;
}

/* out[t * ld_out + r] = row r of w times token t, for r in [0, rows) and all tokens. Rows lie row_bytes apart.
 * scratch is the calling thread's, at least kernels.scratch(k, n) bytes, aligned to 64. */
typedef void matmul_fn(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, float *out,
                       int64_t ld_out, void *scratch);

/* Products of a level that multiplies the tokens of prompts in an arithmetic of their own: prompts_amx.c. */
struct prompt_kernels {
    int64_t (*scratch)(int32_t n);
    /* x: the group's tokens, ld floats apart */
    void (*pack)(const struct prompt *p, int32_t group, const float *x, int64_t ld);
    /* as matmul_fn, but scratch is of scratch(n) bytes; any type but F32 */
    void (*matmul)(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct prompt *p, float *out,
                   int64_t ld_out, void *scratch);
};
extern const struct prompt_kernels prompt_kernels_amx;

struct kernels {
    const char *name;
    int64_t (*scratch)(int32_t k, int32_t n); /* bytes a matmul may need for k columns and n tokens */
    /* Blocks [first, first + count) of x (k) to a->blocks. A group's tokens come one after the other. */
    void (*quantize_blocks)(const struct activations *a, int32_t token, int32_t first, int32_t count, const float *x);
    /* Likewise, of 256 columns, to a->supers. */
    void (*quantize_supers)(const struct activations *a, int32_t token, int32_t first, int32_t count, const float *x);
    matmul_fn *matmul[LL_TYPE_LIMIT]; /* NULL where a type is unknown */
    const struct prompt_kernels *prompts; /* or NULL: tokens of prompts are multiplied like all others */
    const struct row_kernels *row;    /* float operations on rows: row_kernels.h */
};

/* The levels, weakest first; which of them this machine runs is cpuinfo.h's answer. NULL when not built. */
extern const struct kernels kernels_scalar;
const struct kernels *kernels_avx2(void);
const struct kernels *kernels_avxvnni(void); /* level avx2, where the processor has AVX-VNNI */
const struct kernels *kernels_avx512(void);
const struct kernels *kernels_amx(void);

/* The table for a level by name; NULL name: the best this machine runs, capped by LOCALLLM_CPU. NULL result: no such
 * level here. */
const struct kernels *kernels_for(const char *level);

#endif
