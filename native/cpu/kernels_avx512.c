/* Level avx512: the core of the products with VNNI, which adds four columns of sixteen rows in one instruction. */
#include <stdbool.h>

#include "panel.h"

enum { SIZES = 4, FLOAT_ROWS = 4, FLOAT_TOKENS = 4 };

INLINE vi dot_steps(vi sum, const vi *codes, const int8_t *q, int from, int to) {
    UNROLL for (int j = from; j < to; j++) sum = _mm512_dpbusd_epi32(sum, codes[j], vi_set32(load_i32(q + 4 * j)));
    return sum;
}

INLINE void core(int tokens, enum form form, const struct panel *p, const struct tile *x, int count, float *acc,
                 int64_t ld) {
    const bool subs = form == FORM_SUB || form == FORM_SUBMIN;
    vf sum[TILE];
    UNROLL for (int t = 0; t < tokens; t++) sum[t] = vf_load(acc + t * ld);
    for (int b = 0; b < count; b++) {
        vi codes[8], isum, sub = vi_load(p->sub[b]), first = vi_sar32(vi_shl32(sub, 16), 16),
                           second = vi_sar32(sub, 16);
        vf d = vf_load(p->d[b]), m = vf_load(p->m[b]);
        UNROLL for (int j = 0; j < 8; j++) codes[j] = vi_load(p->codes[b][j]);
        UNROLL for (int t = 0; t < tokens; t++) {
            const int8_t *q = (tokens == 1 ? x->one : x->q[t]) + 32 * b;
            vf scale = vf_set(x->scale[t][b]);
            if (subs) {
                vi low = dot_steps(vi_set32(x->half_start[t][2 * b]), codes, q, 0, 4);
                vi high = dot_steps(vi_set32(x->half_start[t][2 * b + 1]), codes, q, 4, 8);
                isum = vi_add32(vi_mul32(low, first), vi_mul32(high, second));
            } else {
                isum = dot_steps(vi_set32(x->block_start[t][b]), codes, q, 0, 8);
            }
            sum[t] = vf_fma(vf_mul(vf_of(isum), d), scale, sum[t]);
            if (form == FORM_MIN) sum[t] = vf_fma(m, vf_set(x->min_scale[t][b]), sum[t]);
            if (form == FORM_SUBMIN) {
                vi mins = vi_madd16(vi_load(p->submin[b]), vi_set32(load_i32(x->sums[t] + 2 * b)));
                sum[t] = vf_fma(vf_mul(vf_of(mins), m), scale, sum[t]);
            }
        }
    }
    UNROLL for (int t = 0; t < tokens; t++) vf_store(acc + t * ld, sum[t]);
}

#define CORE(form, tokens)                                                                                        \
    static void form##_##tokens(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld) { \
        core(tokens, form, p, x, count, acc, ld);                                                                 \
    }
#define CORES(name, form) \
    CORE(form, 1)         \
    CORE(form, 2)         \
    CORE(form, 4) CORE(form, 8) static core_fn *const name[SIZES] = {form##_1, form##_2, form##_4, form##_8};
CORES(plain_cores, FORM_PLAIN)
CORES(min_cores, FORM_MIN)
CORES(sub_cores, FORM_SUB)
CORES(submin_cores, FORM_SUBMIN)

/* The width of the codes does not matter here. */
#define plain_cores_4 plain_cores
#define plain_cores_5 plain_cores
#define plain_cores_8 plain_cores
#define min_cores_4 min_cores
#define min_cores_5 min_cores
#define sub_cores_3 sub_cores
#define sub_cores_6 sub_cores
#define submin_cores_2 submin_cores
#include "products.h"

static const struct kernels table = {
    .name = "avx512",
    .scratch = scratch,
    .quantize = quantize,
    .row = &row_kernels_avx512,
    .matmul = PRODUCTS,
};

const struct kernels *kernels_avx512(void) { return &table; }
