/* Level avx2: the core of the products in 16-bit pair sums. The multiply of unsigned by signed bytes saturates, so
 * a class of formats says how many steps of four columns may be added before the sums must widen to 32 bits: two
 * products of a code and a q make at most 2 * code * 127, and 32767 must hold all the steps' sums. */
#include <stdbool.h>

#include "kernels.h"
#include "one_token.h"
#include "panel.h"

enum { SIZES = 3 };

/* SPAN_WIDE: codes are signed and need eight bits: |code| times q with the code's sign, one step at a time. */
enum span { SPAN_WIDE = 1, SPAN_6_BITS = 2, SPAN_5_BITS = 4, SPAN_4_BITS = 8 };

/* A sum that is added to now: left to itself the compiler adds pairwise in the end, and has no registers for that. */
INLINE void in_turn(vi *sum) { __asm__("" : "+x"(*sum)); }

/* Adds the block's products to isum for every row and token; `weight` holds what a half's pair sums are multiplied
 * by. A span may not leave its half where the halves' weights differ. */
INLINE void dot_block(int tokens, enum span span, const struct panel *p, const struct tile *x, int b,
                      const vi weight[2], vi *isum, struct stream *next) {
    vi pairs[TILE];
    UNROLL for (int j = 0; j < 8; j++) {
        if (j < tokens) fetch_on(next, next->multiplying);
        vi code = vi_load(p->codes[b][j]), size = span == SPAN_WIDE ? _mm256_abs_epi8(code) : code;
        UNROLL for (int t = 0; t < tokens; t++) {
            vi q = vi_set32(load_i32(tile_q(x, t, b) + 4 * j));
            vi product = _mm256_maddubs_epi16(size, span == SPAN_WIDE ? _mm256_sign_epi8(q, code) : q);
            pairs[t] = j % (int)span ? _mm256_add_epi16(pairs[t], product) : product;
            in_turn(&pairs[t]);
            if ((j + 1) % (int)span == 0) {
                isum[t] = vi_add32(isum[t], vi_madd16(pairs[t], weight[j / 4]));
                in_turn(&isum[t]);
            }
        }
    }
}

/* Types with a scale per 32 columns. */
INLINE void block_core(int tokens, bool min, enum span span, const struct panel *p, const struct tile *x, int count,
                       float *acc, int64_t ld) {
    const vi weight[2] = {vi_set16(1), vi_set16(1)};
    struct stream next = *x->next;
    vf sum[TILE];
    UNROLL for (int t = 0; t < tokens; t++) sum[t] = vf_load(acc + t * ld);
    for (int b = 0; b < count; b++) {
        const float *scale = x->scale + b * x->rows;
        const union term *term = x->term + b * x->rows;
        vi isum[TILE];
        UNROLL for (int t = 0; t < tokens; t++) isum[t] = vi_set32(min ? 0 : term[t].start);
        dot_block(tokens, span, p, x, b, weight, isum, &next);
        vf d = vf_load(p->d[b]), m = vf_load(p->m[b]);
        UNROLL for (int t = 0; t < tokens; t++) {
            sum[t] = vf_fma(vf_mul(vf_of(isum[t]), d), vf_set(scale[t]), sum[t]);
            if (min) sum[t] = vf_fma(m, vf_set(term[t].min_scale), sum[t]);
        }
    }
    UNROLL for (int t = 0; t < tokens; t++) vf_store(acc + t * ld, sum[t]);
    *x->next = next;
}

/* Types with a scale per 256 columns; halves: sub-scales per 16 of them, not 32; takes: pairs are not all zero. */
INLINE void super_core(int tokens, bool halves, bool min, bool takes, enum span span, const struct panel *p,
                       const struct tile *x, float *acc, int64_t ld) {
    struct stream next = *x->next;
    vi isum[TILE], msum[TILE];
    UNROLL for (int t = 0; t < tokens; t++) isum[t] = msum[t] = vi_set32(0);
    for (int b = 0; b < CHUNK; b++) {
        vi first = vi_load(p->sub[b][0]);
        const vi weight[2] = {first, halves ? vi_load(p->sub[b][1]) : first};
        dot_block(tokens, span, p, x, b, weight, isum, &next);
        if (!takes || (!halves && b % 2)) continue;
        vi pair = vi_load(p->pairs[halves ? b : b / 2]);
        UNROLL for (int t = 0; t < tokens; t++) {
            vi sums = vi_set32(load_i32(x->sums + t * SUPER_SUMS + (halves ? 2 * b : 16 + b)));
            vi *to = min ? &msum[t] : &isum[t];
            *to = vi_add32(*to, vi_madd16(pair, sums));
        }
    }
    *x->next = next;
    add_super(tokens, min, p, x, isum, msum, acc, ld);
}

#define BLOCK_CORE(name, tokens, ...)                                                                             \
    static void name##_##tokens(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld) { \
        block_core(tokens, __VA_ARGS__, p, x, count, acc, ld);                                                    \
    }
#define SUPER_CORE(name, tokens, ...)                                                                             \
    static void name##_##tokens(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld) { \
        (void)count;                                                                                              \
        super_core(tokens, __VA_ARGS__, p, x, acc, ld);                                                           \
    }
#define CORES(CORE, name, ...) \
    CORE(name, 1, __VA_ARGS__) \
    CORE(name, 2, __VA_ARGS__) \
    CORE(name, 4, __VA_ARGS__) \
    static core_fn *const name[SIZES] = {name##_1, name##_2, name##_4};
CORES(BLOCK_CORE, plain_cores_4, false, SPAN_4_BITS)
CORES(BLOCK_CORE, plain_cores_5, false, SPAN_5_BITS)
CORES(BLOCK_CORE, plain_cores_8, false, SPAN_WIDE)
CORES(BLOCK_CORE, min_cores_4, true, SPAN_4_BITS)
CORES(BLOCK_CORE, min_cores_5, true, SPAN_5_BITS)
CORES(SUPER_CORE, super_cores_8, false, false, false, SPAN_WIDE)
CORES(SUPER_CORE, super_min_cores_4, false, true, true, SPAN_4_BITS)
CORES(SUPER_CORE, super_min_cores_5, false, true, true, SPAN_5_BITS)
CORES(SUPER_CORE, halves_cores_3, true, false, true, SPAN_5_BITS)
CORES(SUPER_CORE, halves_cores_6, true, false, true, SPAN_6_BITS)
CORES(SUPER_CORE, halves_min_cores_2, true, true, true, SPAN_5_BITS)

#define MATMUL matmul_lanes
#define ONE(type) one_##type
#define UNPACK(type) NULL
#include "product_table.h"

static const struct kernels table = {
    .name = "avx2",
    .scratch = scratch,
    .quantize_blocks = quantize_blocks,
    .quantize_supers = quantize_supers,
    .row = &row_kernels_avx2,
    .matmul = PRODUCTS,
};

const struct kernels *kernels_avx2(void) { return &table; }
