/* Q4_K times generated tokens at level amx, more than a few of them. Codes go into the tiles as they are, and their
 * sub-scales meet the sums: unpacking a row costs a quarter of what it costs to multiply them together first.
 *
 * Tokens are a product's first operand, so its sums are tokens by rows: sixteen rows' sub-scales are one register, and
 * few tokens cost little. Sums of 32 products of codes from -8 to 7 fit in 16 bits, so one instruction multiplies them
 * by their sub-scales and adds them. What the codes lack, 8 times sub-scale times sum of q, and the sums of the minima
 * are two more products, of bf16: each sum of q is there as a pair that adds up to it (SPLIT_SUMS), so that these are
 * exact, too, and so is every number that they add up to. The bits are those of every other kernel. */
#ifndef Q4_K_AMX_H
#define Q4_K_AMX_H
#include <string.h>

#include "kernels.h"
#include "panel.h"
#include "quant/formats.h"
#include "tiles.h"

enum { CODE_OFFSET = 8, CODE_BLOCKS = 8, CODE_PRODUCTS = CODE_BLOCKS + 2 };
enum {
    CODES_UNPACKING = 12, /* tokens take as long */
    MANY_CODES = 32       /* more tokens leave time enough to fetch between their products */
};

/* Sixteen rows by 256 columns, rows as lanes. */
struct code_panel {
    int8_t codes[CODE_BLOCKS][8][SIDE][4]; /* [block][step] four columns of every row */
    uint32_t factors[2][8][SIDE]; /* sub-scales and minima of the blocks as bf16, each twice */
    int32_t subs[8][SIDE];
    float d[SIDE], m[SIDE]; /* m: less the factor of the minima */
};

struct code_work {
    _Alignas(64) struct code_panel panel;
    _Alignas(64) int32_t sums[CODE_PRODUCTS][SIDE][SIDE]; /* (tokens, rows) */
    uint8_t staged[SIDE][sizeof(struct q4_k)]; /* the last rows, when they are fewer than sixteen */
    _Alignas(64) float acc[][SIDE]; /* (padded tokens, rows) */
};

/* ---- rows ---- */

/* Half of the blocks: 64 bytes of every row. */
INLINE void put_half(struct rows w, int64_t offset, int8_t (*codes)[8][SIDE][4]) {
    vi r[SIDE];
    UNROLL for (int i = 0; i < SIDE; i++) r[i] = _mm512_loadu_si512(w.first + offset + i * w.stride);
    transpose(r);
    UNROLL for (int i = 0; i < SIDE; i++) {
        if (w.next) fetch_on(w.next, w.next->unpacking);
        vi low = vi_and(r[i], vi_set8(15)), high = vi_and(vi_shr32(r[i], 4), vi_set8(15));
        vi_store(codes[i / 8 * 2][i % 8], vi_sub8(low, vi_set8(CODE_OFFSET)));
        vi_store(codes[i / 8 * 2 + 1][i % 8], vi_sub8(high, vi_set8(CODE_OFFSET)));
    }
}

/* Byte j % 4 of each lane of two registers' eight. */
INLINE vi byte_of(const vi eight[2], int j) { return vi_and(vi_shr32(eight[j / 4], 8 * (j % 4)), vi_set32(255)); }

INLINE vi twice_bf16(vi integers) {
    vi bits = _mm512_castps_si512(vf_of(integers));
    return vi_or(bits, vi_shr32(bits, 16));
}

INLINE void fill_codes(struct rows w, struct code_panel *out) {
    vi t[4], scale[2], min[2];
    load_columns((struct rows){w.first, w.stride, NULL}, 0, t);
    scale[0] = vi_and(t[1], vi_set8(63));
    min[0] = vi_and(t[2], vi_set8(63));
    scale[1] = vi_or(vi_and(t[3], vi_set8(15)), vi_and(vi_shr32(t[1], 2), vi_set8(48)));
    min[1] = vi_or(vi_and(vi_shr32(t[3], 4), vi_set8(15)), vi_and(vi_shr32(t[2], 2), vi_set8(48)));
    vf_store(out->d, vf_of_half(t[0]));
    vf_store(out->m, vf_negate(vf_of_half(vi_shr32(t[0], 16))));
    UNROLL for (int j = 0; j < 8; j++) {
        vi sub = byte_of(scale, j);
        vi_store(out->subs[j], sub);
        vi_store(out->factors[0][j], twice_bf16(sub));
        vi_store(out->factors[1][j], twice_bf16(byte_of(min, j)));
    }
    put_half(w, 16, out->codes);
    put_half(w, 16 + 64, out->codes + 4);
}

/* ---- products ---- */

/* One group of tokens at 256 columns. */
struct code_tokens {
    const int8_t *q; /* (4, rows, 64) */
    const float *scale; /* (rows) */
    const int16_t *sums; /* (rows, SUPER_SUMS) */
    int32_t rows;
    float (*acc)[SIDE];
    struct stream *next; /* weights, fetched meanwhile */
};

/* The tile product of block i, or of the scales' factors, or of the minima's. */
INLINE void multiply_codes(const struct code_panel *p, const struct code_tokens *x, int i) {
    const int8_t *q = x->q + i / 2 * x->rows * 64 + i % 2 * 32;
#define PRODUCT(sum, weights, tokens)                                            \
    _tile_zero(sum);                                                             \
    if (i < CODE_BLOCKS) {                                                       \
        _tile_loadd(weights, p->codes[i], 64);                                   \
        _tile_loadd(tokens, q, 64);                                              \
        _tile_dpbssd(sum, tokens, weights);                                      \
    } else {                                                                     \
        _tile_loadd(weights, p->factors[i - CODE_BLOCKS], 64);                   \
        _tile_loadd(tokens, x->sums + SPLIT_SUMS, SUPER_SUMS * sizeof(int16_t)); \
        _tile_dpbf16ps(sum, tokens, weights);                                    \
    }
    IN_TURN(i, PRODUCT)
#undef PRODUCT
}

/* Up to `tokens` of a group: what is behind the last one is 0 (denormals would take their time). Sums are stored two
 * products after their own and added three later. */
INLINE void code_core(int tokens, const struct code_panel *p, const struct code_tokens *x,
                      int32_t (*sums)[SIDE][SIDE]) {
    vi isum[SIDE];
    UNROLL for (int t = 0; t < tokens; t++) isum[t] = vi_set32(0);
    UNROLL for (int i = 0; i < CODE_PRODUCTS + 3; i++) {
        if (i < CODE_PRODUCTS) {
            fetch_line(x->next);
            multiply_codes(p, x, i);
        }
        if (i >= 2 && i - 2 < CODE_PRODUCTS) store_tile(i - 2, sums[i - 2]);
        if (i >= 5) {
            vi subs = vi_load(p->subs[i - 5]);
            UNROLL for (int t = 0; t < tokens; t++) isum[t] =
                _mm512_dpwssd_epi32(isum[t], vi_load(sums[i - 5][t]), subs);
        }
    }
    vf d = vf_load(p->d), m = vf_load(p->m);
    UNROLL for (int t = 0; t < tokens; t++) {
        vf scale = vf_set(x->scale[t]), offset = vf_load((const float *)sums[CODE_BLOCKS][t]);
        vf whole = vf_fma(offset, vf_set(CODE_OFFSET), vf_of(isum[t])), acc = vf_load(x->acc[t]);
        acc = vf_fma(vf_mul(whole, d), scale, acc);
        vf_store(x->acc[t], vf_fma(vf_mul(vf_load((const float *)sums[CODE_BLOCKS + 1][t]), m), scale, acc));
    }
}

static int64_t code_scratch(int32_t n) {
    return (int64_t)sizeof(struct code_work) + (int64_t)padded_tokens(n) * SIDE * (int64_t)sizeof(float);
}

/* A panel times all tokens. */
static void code_tokens(const struct activations *a, int32_t super, struct stream *next, struct code_work *work) {
    settle();
    for (int32_t t = 0; t < a->n; t += GROUP) {
        int64_t at = scale_at(a, 256, t, super);
        struct code_tokens x = {.q = a->supers.q + q_at(a, t, 4 * super),
                                .scale = a->supers.scale + at,
                                .sums = a->supers.sums + at * SUPER_SUMS,
                                .rows = a->rows,
                                .acc = work->acc + t,
                                .next = next};
        if (a->n - t > 8)
            code_core(16, &work->panel, &x, work->sums);
        else
            code_core(8, &work->panel, &x, work->sums);
    }
}

/* Sixteen rows' super; the last ones are copied to where reading sixteen is allowed. */
static void unpack_codes(const uint8_t *w, int64_t row_bytes, int32_t rows, struct stream *next,
                         struct code_work *work) {
    const int64_t bytes = sizeof(struct q4_k);
    if (rows >= SIDE) {
        fill_codes((struct rows){w, row_bytes, next}, &work->panel);
        return;
    }
    for (int32_t i = 0; i < rows; i++) memcpy(work->staged[i], w + i * row_bytes, (size_t)bytes);
    fill_codes((struct rows){work->staged[0], bytes, next}, &work->panel);
}

static void matmul_codes(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, float *out,
                         int64_t ld_out, void *scratch) {
    const int64_t bytes = SIDE * sizeof(struct q4_k); /* of a panel */
    struct code_work *work = scratch;
    struct stream next = paced(bytes, a->n, CODES_UNPACKING, 2 * SIDE, CODE_PRODUCTS * groups_of(a->n));
    memset(work->sums, 0, sizeof work->sums);
    enter_shapes((struct tile_shape){a->rows, 64}, (struct tile_shape){8, 64}, (struct tile_shape){a->rows, 32});
    for (int32_t r = 0; r < rows; r += SIDE) {
        int32_t here = rows - r < SIDE ? rows - r : SIDE;
        uintptr_t after = (uintptr_t)w + (uintptr_t)((r + here) * row_bytes);
        memset(work->acc, 0, sizeof *work->acc * (size_t)padded_tokens(a->n));
        for (int32_t b = 0; b < a->k / 256; b++, after += (uintptr_t)bytes) {
            start_stream(&next, after, bytes);
            unpack_codes(w + r * row_bytes + b * (int64_t)sizeof(struct q4_k), row_bytes, here,
                         a->n > MANY_CODES ? NULL : &next, work);
            code_tokens(a, b, &next, work);
        }
        __mmask16 mask = (__mmask16)((1u << here) - 1);
        for (int32_t t = 0; t < a->n; t++) _mm512_mask_storeu_ps(out + t * ld_out + r, mask, vf_load(work->acc[t]));
    }
    _tile_release();
}

#endif
