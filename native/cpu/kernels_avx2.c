/* Level avx2: the core of the products in 16-bit pair sums. The multiply of unsigned by signed bytes saturates, so
 * a class of formats says how many steps of four columns may be added before the sums must widen to 32 bits: two
 * products of a code and a q make at most 2 * code * 127, and 32767 must hold all the steps' sums. */
#include <stdbool.h>

#include "panel.h"

enum { SIZES = 3, FLOAT_ROWS = 2, FLOAT_TOKENS = 2 };

/* SPAN_WIDE: codes are signed and need eight bits: |code| times q with the code's sign, one step at a time. */
enum span { SPAN_WIDE = 1, SPAN_6_BITS = 2, SPAN_5_BITS = 4, SPAN_4_BITS = 8 };

/* Sums of the block's products for every row and token; `weight` holds what a half's pair sums are multiplied by. */
INLINE void dot_block(int tokens, enum span span, const uint8_t (*codes)[LANES][4], const struct tile *x, int b,
                      const vi weight[2], vi *isum) {
    vi pairs[TILE];
    UNROLL for (int j = 0; j < 8; j++) {
        vi code = vi_load(codes[j]), size = span == SPAN_WIDE ? _mm256_abs_epi8(code) : code;
        UNROLL for (int t = 0; t < tokens; t++) {
            vi q = vi_set32(load_i32((tokens == 1 ? x->one : x->q[t]) + 32 * b + 4 * j));
            vi product = _mm256_maddubs_epi16(size, span == SPAN_WIDE ? _mm256_sign_epi8(q, code) : q);
            pairs[t] = j % (int)span ? _mm256_add_epi16(pairs[t], product) : product;
            if ((j + 1) % (int)span == 0) isum[t] = vi_add32(isum[t], vi_madd16(pairs[t], weight[j / 4]));
        }
    }
}

/* `offset` is that of the codes of types with sub-scales; the others' is in the tile. */
INLINE void core(int tokens, enum form form, enum span span, int offset, const struct panel *p, const struct tile *x,
                 int count, float *acc, int64_t ld) {
    const bool subs = form == FORM_SUB || form == FORM_SUBMIN;
    const vi first = vi_repeat128(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13));
    const vi second = vi_repeat128(_mm_setr_epi8(2, 3, 2, 3, 6, 7, 6, 7, 10, 11, 10, 11, 14, 15, 14, 15));
    vf sum[TILE];
    UNROLL for (int t = 0; t < tokens; t++) sum[t] = vf_load(acc + t * ld);
    for (int b = 0; b < count; b++) {
        vi isum[TILE], weight[2] = {vi_set16(1), vi_set16(1)};
        if (subs) {
            vi sub = vi_load(p->sub[b]), start = _mm256_mullo_epi16(sub, vi_set16(-offset));
            weight[0] = vi_shuffle8(sub, first);
            weight[1] = vi_shuffle8(sub, second);
            UNROLL for (int t = 0; t < tokens; t++) isum[t] = vi_madd16(start, vi_set32(load_i32(x->sums[t] + 2 * b)));
        } else {
            UNROLL for (int t = 0; t < tokens; t++) isum[t] = vi_set32(x->block_start[t][b]);
        }
        dot_block(tokens, span, p->codes[b], x, b, weight, isum);
        vf d = vf_load(p->d[b]), m = vf_load(p->m[b]);
        UNROLL for (int t = 0; t < tokens; t++) {
            vf scale = vf_set(x->scale[t][b]);
            sum[t] = vf_fma(vf_mul(vf_of(isum[t]), d), scale, sum[t]);
            if (form == FORM_MIN) sum[t] = vf_fma(m, vf_set(x->min_scale[t][b]), sum[t]);
            if (form == FORM_SUBMIN) {
                vi mins = vi_madd16(vi_load(p->submin[b]), vi_set32(load_i32(x->sums[t] + 2 * b)));
                sum[t] = vf_fma(vf_mul(vf_of(mins), m), scale, sum[t]);
            }
        }
    }
    UNROLL for (int t = 0; t < tokens; t++) vf_store(acc + t * ld, sum[t]);
}

#define CORE(name, tokens, ...)                                                                                   \
    static void name##_##tokens(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld) { \
        core(tokens, __VA_ARGS__, p, x, count, acc, ld);                                                          \
    }
#define CORES(name, ...)       \
    CORE(name, 1, __VA_ARGS__) \
    CORE(name, 2, __VA_ARGS__) \
    CORE(name, 4, __VA_ARGS__) static core_fn *const name[SIZES] = {name##_1, name##_2, name##_4};
CORES(plain_cores_4, FORM_PLAIN, SPAN_4_BITS, 0)
CORES(plain_cores_5, FORM_PLAIN, SPAN_5_BITS, 0)
CORES(plain_cores_8, FORM_PLAIN, SPAN_WIDE, 0)
CORES(min_cores_4, FORM_MIN, SPAN_4_BITS, 0)
CORES(min_cores_5, FORM_MIN, SPAN_5_BITS, 0)
CORES(sub_cores_3, FORM_SUB, SPAN_5_BITS, 4) /* a span may not leave its half of the block */
CORES(sub_cores_6, FORM_SUB, SPAN_6_BITS, 32)
CORES(submin_cores_2, FORM_SUBMIN, SPAN_5_BITS, 0)

#include "products.h"

static const struct kernels table = {
    .name = "avx2",
    .scratch = scratch,
    .quantize = quantize,
    .row = &row_kernels_avx2,
    .matmul = PRODUCTS,
};

const struct kernels *kernels_avx2(void) { return &table; }
