/* The cores of the products with VNNI, which adds four columns of sixteen rows in one instruction. Level avx512 has
 * no others; level amx takes them where tokens are few. */
#ifndef VNNI_H
#define VNNI_H
#include <stdbool.h>

#include "kernels.h"
#include "panel.h"

INLINE vi dot_steps(vi sum, const vi *codes, const int8_t *q, int from, int to) {
    UNROLL for (int j = from; j < to; j++) sum = _mm512_dpbusd_epi32(sum, codes[j], vi_set32(load_i32(q + 4 * j)));
    return sum;
}

INLINE void load_codes(const struct panel *p, int b, vi codes[8]) {
    UNROLL for (int j = 0; j < 8; j++) codes[j] = vi_load(p->codes[b][j]);
}

/* Types with a scale per 32 columns. */
INLINE void block_core(int tokens, bool min, const struct panel *p, const struct tile *x, int count, float *acc,
                       int64_t ld) {
    struct stream next = *x->next;
    vf sum[TILE];
    UNROLL for (int t = 0; t < tokens; t++) sum[t] = vf_load(acc + t * ld);
    for (int b = 0; b < count; b++) {
        const float *scale = x->scale + b * x->rows;
        const union term *term = x->term + b * x->rows;
        vf d = vf_load(p->d[b]), m = vf_load(p->m[b]);
        vi codes[8];
        load_codes(p, b, codes);
        UNROLL for (int t = 0; t < tokens; t++) {
            fetch_on(&next, next.multiplying);
            vi isum = dot_steps(vi_set32(min ? 0 : term[t].start), codes, tile_q(x, t, b), 0, 8);
            sum[t] = vf_fma(vf_mul(vf_of(isum), d), vf_set(scale[t]), sum[t]);
            if (min) sum[t] = vf_fma(m, vf_set(term[t].min_scale), sum[t]);
        }
    }
    UNROLL for (int t = 0; t < tokens; t++) vf_store(acc + t * ld, sum[t]);
    *x->next = next;
}

/* Types with a scale per 256 columns; halves: sub-scales per 16 of them, not 32. */
INLINE void super_core(int tokens, bool halves, bool min, const struct panel *p, const struct tile *x, float *acc,
                       int64_t ld) {
    struct stream next = *x->next;
    vi isum[TILE], msum[TILE];
    UNROLL for (int t = 0; t < tokens; t++) isum[t] = msum[t] = vi_set32(0);
    UNROLL for (int b = 0; b < CHUNK; b++) {
        vi codes[8], first = vi_load(p->sub[b][0]), second = vi_load(p->sub[b][1]);
        load_codes(p, b, codes);
        UNROLL for (int t = 0; t < tokens; t++) {
            const int8_t *q = tile_q(x, t, b);
            fetch_on(&next, next.multiplying);
            vi sum = dot_steps(vi_set32(0), codes, q, 0, halves ? 4 : 8);
            isum[t] = vi_add32(isum[t], vi_mul32(sum, first));
            if (halves) isum[t] = vi_add32(isum[t], vi_mul32(dot_steps(vi_set32(0), codes, q, 4, 8), second));
        }
        if (!halves && b % 2) continue;
        vi pair = vi_load(p->pairs[halves ? b : b / 2]);
        UNROLL for (int t = 0; t < tokens; t++) {
            vi sums = vi_set32(load_i32(x->sums + t * SUPER_SUMS + (halves ? 2 * b : 16 + b)));
            if (min)
                msum[t] = _mm512_dpwssd_epi32(msum[t], pair, sums);
            else
                isum[t] = _mm512_dpwssd_epi32(isum[t], pair, sums);
        }
    }
    *x->next = next;
    add_super(tokens, min, p, x, isum, msum, acc, ld);
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
#define CORES(CORE, name, ...) \
    CORE(name, 1, __VA_ARGS__) \
    CORE(name, 2, __VA_ARGS__) \
    CORE(name, 4, __VA_ARGS__) \
    CORE(name, 8, __VA_ARGS__) \
    static core_fn *const name[SIZES] = {name##_1, name##_2, name##_4, name##_8};
enum { SIZES = 4 };
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
