/* The cores of the products with VNNI, which adds four columns of a register's rows in one instruction: levels avx512
 * and amx (there where tokens are few), and avx2 where the processor has AVX-VNNI.
 *
 * With one panel loads would bound them: four q of a token for each instruction. */
#ifndef VNNI_H
#define VNNI_H
#include <stdbool.h>

#include "kernels.h"
#include "panel.h"

/* For every panel of those abreast, and every token. */
#define EACH(i, t, tokens) UNROLL for (int i = 0; i < ABREAST; i++) UNROLL for (int t = 0; t < tokens; t++)

/* Adds steps [from, to) of block b. q: the first token's, others follow 64 bytes apart. */
INLINE void dot_steps(int tokens, const struct panel *p, const int8_t *q, int b, int from, int to, vi (*isum)[TILE]) {
    UNROLL for (int j = from; j < to; j++) {
        vi code[ABREAST];
        UNROLL for (int i = 0; i < ABREAST; i++) code[i] = vi_load(p[i].codes[b][j]);
        UNROLL for (int t = 0; t < tokens; t++) {
            vi four = vi_set32(load_i32(q + 64 * t + 4 * j));
            UNROLL for (int i = 0; i < ABREAST; i++) isum[i][t] = vi_dot8(isum[i][t], code[i], four);
        }
    }
}

/* Types with a scale per 32 columns. */
INLINE void block_core(int tokens, bool min, const struct panel *p, const struct tile *x, int count, float *acc,
                       int64_t ld) {
    struct stream next = *x->next;
    vf sum[ABREAST][TILE];
    EACH(i, t, tokens) sum[i][t] = vf_load(acc + t * ld + i * LANES);
    for (int b = 0; b < count; b++) {
        const float *scale = x->scale + b * x->rows;
        const union term *term = x->term + b * x->rows;
        vi isum[ABREAST][TILE];
        EACH(i, t, tokens) isum[i][t] = vi_set32(min ? 0 : term[t].start);
        dot_steps(tokens, p, tile_q(x, 0, b), b, 0, 8, isum);
        UNROLL for (int t = 0; t < tokens; t++) {
            vf one = vf_set(scale[t]);
            UNROLL for (int i = 0; i < ABREAST; i++) {
                fetch_on(&next, next.multiplying);
                sum[i][t] = vf_fma(vf_mul(vf_of(isum[i][t]), vf_load(p[i].d[b])), one, sum[i][t]);
                if (min) sum[i][t] = vf_fma(vf_load(p[i].m[b]), vf_set(term[t].min_scale), sum[i][t]);
            }
        }
    }
    EACH(i, t, tokens) vf_store(acc + t * ld + i * LANES, sum[i][t]);
    *x->next = next;
}

/* Adds steps [from, to) of block b, which share a sub-scale. */
INLINE void add_scaled_steps(int tokens, const struct panel *p, const int8_t *q, int b, int from, int to,
                             vi (*isum)[TILE], struct stream *next) {
    vi sum[ABREAST][TILE];
    EACH(i, t, tokens) sum[i][t] = vi_set32(0);
    dot_steps(tokens, p, q, b, from, to, sum);
    UNROLL for (int i = 0; i < ABREAST; i++) {
        vi sub = vi_load(p[i].sub[b][from / 4]);
        UNROLL for (int t = 0; t < tokens; t++) {
            if (from == 0) fetch_on(next, next->multiplying);
            isum[i][t] = vi_add32(isum[i][t], vi_mul32(sum[i][t], sub));
        }
    }
}

/* Types with a scale per 256 columns; halves: sub-scales per 16 of them, not 32. */
INLINE void super_core(int tokens, bool halves, bool min, const struct panel *p, const struct tile *x, float *acc,
                       int64_t ld) {
    struct stream next = *x->next;
    vi isum[ABREAST][TILE], msum[ABREAST][TILE];
    EACH(i, t, tokens) isum[i][t] = msum[i][t] = vi_set32(0);
    for (int b = 0; b < CHUNK; b++) {
        const int8_t *q = tile_q(x, 0, b);
        add_scaled_steps(tokens, p, q, b, 0, halves ? 4 : 8, isum, &next);
        if (halves) add_scaled_steps(tokens, p, q, b, 4, 8, isum, &next);
    }
    *x->next = next;
    /* Not beside the steps: there are no registers for it. */
    add_pairs(tokens, ABREAST, halves, 0, halves ? CHUNK : CHUNK / 2, p, x, min ? msum : isum);
    UNROLL for (int i = 0; i < ABREAST; i++) add_super(tokens, min, p + i, x, isum[i], msum[i], acc + i * LANES, ld);
}

#define BLOCK_CORE(name, tokens, min)                                                                             \
    static void name##_##tokens(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld) { \
        block_core(tokens, min, p, x, count, acc, ld);                                                            \
    }
#define SUPER_CORE(name, tokens, halves, min)                                                                     \
    static void name##_##tokens(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld) { \
        (void)count;                                                                                              \
        super_core(tokens, halves, min, p, x, acc, ld);                                                           \
    }
#if defined(__AVX512F__)
enum { SIZES = 4 };
#define CORE_OF_SIX(CORE, name, ...) CORE(name, 6, __VA_ARGS__)
#define AND_SIX(name) , name##_6
#else
enum { SIZES = 3 };
#define CORE_OF_SIX(CORE, name, ...)
#define AND_SIX(name)
#endif
#define CORES(CORE, name, ...)           \
    CORE(name, 1, __VA_ARGS__)           \
    CORE(name, 2, __VA_ARGS__)           \
    CORE(name, 4, __VA_ARGS__)           \
    CORE_OF_SIX(CORE, name, __VA_ARGS__) \
    static core_fn *const name[SIZES] = {name##_1, name##_2, name##_4 AND_SIX(name)};
CORES(BLOCK_CORE, plain_cores, false)
CORES(BLOCK_CORE, min_cores, true)
CORES(SUPER_CORE, super_cores, false, false)
CORES(SUPER_CORE, super_min_cores, false, true)
CORES(SUPER_CORE, halves_cores, true, false)
CORES(SUPER_CORE, halves_min_cores, true, true)

/* The width of the codes does not matter here. */
#define plain_cores_4 plain_cores
#define plain_cores_5 plain_cores
#define plain_cores_8 plain_cores
#define min_cores_4 min_cores
#define min_cores_5 min_cores
#define super_cores_8 super_cores
#define super_min_cores_4 super_min_cores
#define super_min_cores_5 super_min_cores
#define halves_cores_3 halves_cores
#define halves_cores_6 halves_cores
#define halves_min_cores_2 halves_min_cores

#endif
