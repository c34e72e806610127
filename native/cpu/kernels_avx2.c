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

/* For every panel of some, and every token. */
#define EACH(i, t) UNROLL for (int i = 0; i < width; i++) UNROLL for (int t = 0; t < tokens; t++)

/* Panels that are multiplied side by side, so that a q that was loaded serves them all; not where sums leave their
 * registers with every step. */
INLINE int width_of(enum span span) { return span == SPAN_WIDE ? 1 : ABREAST; }

/* Adds steps [from, to) of block b, whose pair sums are multiplied by weight[i] for every panel i. A span may not
 * leave them. q: the first token's, others follow 64 bytes apart. */
INLINE void dot_steps(int tokens, enum span span, const struct panel *p, const int8_t *q, int b, int from, int to,
                      const vi *weight, vi (*isum)[TILE], struct stream *next) {
    const int width = width_of(span);
    vi pairs[ABREAST][TILE], code[ABREAST], size[ABREAST];
    UNROLL for (int j = from; j < to; j++) {
        UNROLL for (int i = 0; i < width; i++) {
            code[i] = vi_load(p[i].codes[b][j]);
            size[i] = span == SPAN_WIDE ? _mm256_abs_epi8(code[i]) : code[i];
            if (j < tokens) fetch_on(next, next->multiplying);
        }
        UNROLL for (int t = 0; t < tokens; t++) {
            vi four = vi_set32(load_i32(q + 64 * t + 4 * j));
            UNROLL for (int i = 0; i < width; i++) {
                vi product = _mm256_maddubs_epi16(size[i], span == SPAN_WIDE ? _mm256_sign_epi8(four, code[i]) : four);
                pairs[i][t] = j % (int)span ? _mm256_add_epi16(pairs[i][t], product) : product;
                in_turn(&pairs[i][t]);
                if ((j + 1) % (int)span) continue;
                isum[i][t] = vi_add32(isum[i][t], vi_madd16(pairs[i][t], weight[i]));
                if (span == SPAN_WIDE) in_turn(&isum[i][t]);
            }
        }
    }
}

/* Types with a scale per 32 columns. */
INLINE void block_core(int tokens, bool min, enum span span, const struct panel *p, const struct tile *x, int count,
                       float *acc, int64_t ld) {
    const int width = width_of(span);
    const vi weight[ABREAST] = {vi_set16(1), vi_set16(1)};
    struct stream next = *x->next;
    vf sum[ABREAST][TILE];
    EACH(i, t) sum[i][t] = vf_load(acc + t * ld + i * LANES);
    for (int b = 0; b < count; b++) {
        const float *scale = x->scale + b * x->rows;
        const union term *term = x->term + b * x->rows;
        vi isum[ABREAST][TILE];
        EACH(i, t) isum[i][t] = vi_set32(min ? 0 : term[t].start);
        dot_steps(tokens, span, p, tile_q(x, 0, b), b, 0, 8, weight, isum, &next);
        EACH(i, t) {
            sum[i][t] = vf_fma(vf_mul(vf_of(isum[i][t]), vf_load(p[i].d[b])), vf_set(scale[t]), sum[i][t]);
            if (min) sum[i][t] = vf_fma(vf_load(p[i].m[b]), vf_set(term[t].min_scale), sum[i][t]);
        }
    }
    EACH(i, t) vf_store(acc + t * ld + i * LANES, sum[i][t]);
    *x->next = next;
}

/* Types with a scale per 256 columns; halves: sub-scales per 16 of them, not 32; takes: pairs are not all zero. */
INLINE void super_core(int tokens, bool halves, bool min, bool takes, enum span span, const struct panel *p,
                       const struct tile *x, float *acc, int64_t ld) {
    const int width = width_of(span);
    struct stream next = *x->next;
    vi isum[ABREAST][TILE], msum[ABREAST][TILE];
    EACH(i, t) isum[i][t] = msum[i][t] = vi_set32(0);
    for (int b = 0; b < CHUNK; b++) {
        const int8_t *q = tile_q(x, 0, b);
        UNROLL for (int h = 0; h < 2; h++) {
            vi weight[ABREAST];
            if (h && !halves) continue;
            UNROLL for (int i = 0; i < width; i++) weight[i] = vi_load(p[i].sub[b][h]);
            dot_steps(tokens, span, p, q, b, 4 * h, halves ? 4 * h + 4 : 8, weight, isum, &next);
        }
        if (takes && halves) add_pairs(tokens, width, true, b, b + 1, p, x, min ? msum : isum);
    }
    /* Not beside the blocks, where registers are short: 4 % of Q4_K. Q6_K would lose as much. */
    if (takes && !halves) add_pairs(tokens, width, false, 0, CHUNK / 2, p, x, min ? msum : isum);
    *x->next = next;
    UNROLL for (int i = 0; i < width; i++) add_super(tokens, min, p + i, x, isum[i], msum[i], acc + i * LANES, ld);
}

#define BLOCK_CORE(name, tokens, min, span)                                                                       \
    static void name##_##tokens(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld) { \
        UNROLL for (int i = 0; i < ABREAST; i += width_of(span))                                                  \
            block_core(tokens, min, span, p + i, x, count, acc + i * LANES, ld);                                  \
    }
#define SUPER_CORE(name, tokens, halves, min, takes, span)                                                        \
    static void name##_##tokens(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld) { \
        (void)count;                                                                                              \
        UNROLL for (int i = 0; i < ABREAST; i += width_of(span))                                                  \
            super_core(tokens, halves, min, takes, span, p + i, x, acc + i * LANES, ld);                          \
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

#define KERNELS kernels_avx2
#define LEVEL "avx2"
#define ROWS row_kernels_avx2
#include "lanes_table.h"
