/* The specification of every product, in plain C and in the order that kernels.h binds: the faster levels give the
 * same bits. Also what runs where no faster level is built. Assumes a correctly rounded fmaf, which C11 promises. */
#include <math.h>
#include <stdbool.h>

#include "kernels.h"
#include "quant/formats.h"
#include "quant/half.h"
#include "row_kernels.h"

_Static_assert(sizeof(struct block32) <= 32 * sizeof(float), "a row of blocks fits where one of floats does");

static int64_t scratch(int32_t k, int32_t n) {
    (void)n;
    return (int64_t)k * (int64_t)sizeof(float) + 64; /* one row of weights, as floats or as blocks */
}

/* What 127 is divided by, and the scale that stands for it: a block whose largest magnitude is so small that
 * 127 / amax overflows counts as zeros; one that holds a NaN or an infinity gets the scale NaN, which reaches every
 * output of its token. Returns what to multiply by; 0 where all codes are 0. */
static float block_scale(int32_t width, const float *x, float *scale) {
    uint32_t top = 0;
    for (int c = 0; c < width; c++) {
        uint32_t magnitude = bits_of_float(x[c]) & 0x7fffffffu;
        if (magnitude > top) top = magnitude;
    }
    float amax = float_of_bits(top), inverse = 127.0f / amax;
    bool finite = top < 0x7f800000u, usable = finite && inverse <= 3.4028234663852886e38f;
    *scale = usable ? amax / 127.0f : finite ? 0.0f : NAN;
    return usable ? inverse : 0.0f;
}

/* The codes of sixteen columns; returns their sum. */
static int quantize_16(const float *x, float inverse, int8_t *q) {
    int sum = 0;
    for (int c = 0; c < 16; c++) {
        q[c] = inverse > 0 ? (int8_t)rintf(x[c] * inverse) : 0;
        sum += q[c];
    }
    return sum;
}

static void quantize_blocks(const struct activations *a, int32_t token, int32_t first, int32_t count, const float *x) {
    x += 32 * first;
    for (int32_t b = first; b < first + count; b++, x += 32) {
        int8_t *q = a->blocks.q + q_at(a, token, b / 2) + 32 * (b % 2);
        int64_t at = scale_at(a, 32, token, b);
        float inverse = block_scale(32, x, &a->blocks.scale[at]);
        int low = quantize_16(x, inverse, q), high = quantize_16(x + 16, inverse, q + 16);
        a->blocks.sums[at] = (int16_t)(low + high);
    }
}

static void quantize_supers(const struct activations *a, int32_t token, int32_t first, int32_t count, const float *x) {
    x += 256 * first;
    for (int32_t b = first; b < first + count; b++, x += 256) {
        int64_t at = scale_at(a, 256, token, b);
        int16_t *sums = a->supers.sums + at * SUPER_SUMS;
        float inverse = block_scale(256, x, &a->supers.scale[at]);
        for (int i = 0; i < 16; i++)
            sums[i] =
                (int16_t)quantize_16(x + 16 * i, inverse, a->supers.q + q_at(a, token, 4 * b + i / 4) + 16 * (i % 4));
        for (int i = 0; i < 8; i++) sums[16 + i] = (int16_t)(sums[2 * i] + sums[2 * i + 1]);
    }
}

static int32_t dot16(const int8_t *code, const int8_t *q) {
    int32_t sum = 0;
    for (int c = 0; c < 16; c++) sum += code[c] * q[c];
    return sum;
}

/* A row, unpacked to blocks of 32 columns, times a token: types with a scale per 32 columns. */
static float dot_blocks(enum form form, const struct block32 *w, const struct activations *a, int32_t token) {
    float acc = 0;
    for (int32_t b = 0; b < a->k / 32; b++, w++) {
        const int8_t *q = a->blocks.q + q_at(a, token, b / 2) + 32 * (b % 2);
        int64_t at = scale_at(a, 32, token, b);
        int32_t isum = dot16(w->code, q) + dot16(w->code + 16, q + 16);
        acc = fmaf((float)isum * w->d, a->blocks.scale[at], acc);
        if (form == FORM_MIN) acc = fmaf(w->m, a->blocks.scale[at] * (float)a->blocks.sums[at], acc);
    }
    return acc;
}

/* The same of types with a scale per 256 columns. */
static float dot_supers(enum form form, const struct block32 *w, const struct activations *a, int32_t token) {
    float acc = 0;
    for (int32_t b = 0; b < a->k / 256; b++) {
        float d = w->d, m = w->m, scale = a->supers.scale[scale_at(a, 256, token, b)];
        const int16_t *sums = a->supers.sums + scale_at(a, 256, token, b) * SUPER_SUMS;
        int32_t isum = 0, msum = 0;
        for (int i = 0; i < 8; i++, w++) {
            const int8_t *q = a->supers.q + q_at(a, token, 4 * b + i / 2) + 32 * (i % 2);
            isum += w->sub[0] * dot16(w->code, q) + w->sub[1] * dot16(w->code + 16, q + 16);
            msum += w->submin[0] * sums[2 * i] + w->submin[1] * sums[2 * i + 1];
        }
        acc = fmaf((float)isum * d, scale, acc);
        if (form == FORM_SUPER_MIN) acc = fmaf((float)msum * m, scale, acc);
    }
    return acc;
}

static void matmul_blocks(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,
                          float *out, int64_t ld_out, struct block32 *row) {
    enum form form = form_of(type);
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t b = 0; b < a->k / 32; b++) unpack_block(type, w + r * row_bytes, b, &row[b]);
        for (int32_t t = 0; t < a->n; t++)
            out[t * ld_out + r] = is_super(form) ? dot_supers(form, row, a, t) : dot_blocks(form, row, a, t);
    }
}

/* Sixteen lanes, folded 8, 4, 2 and 1 apart; a last partial sixteen is filled with zeros. */
static float dot_lanes(const float *w, const float *x, int32_t k) {
    float lane[16] = {0};
    for (int32_t c = 0; c < k; c++) lane[c % 16] = fmaf(w[c], x[c], lane[c % 16]);
    for (int32_t c = k % 16; c && c < 16; c++) lane[c] += 0.0f;
    for (int apart = 8; apart; apart /= 2)
        for (int j = 0; j < apart; j++) lane[j] += lane[j + apart];
    return lane[0];
}

static void matmul_floats(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,
                          float *out, int64_t ld_out, float *row) {
    for (int32_t r = 0; r < rows; r++) {
        decode_row(type, w + r * row_bytes, a->k, row);
        for (int32_t t = 0; t < a->n; t++) out[t * ld_out + r] = dot_lanes(row, a->x + t * a->ld, a->k);
    }
}

#define BLOCKS(type)                                                                                          \
    static void matmul_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, \
                              float *out, int64_t ld_out, void *work) {                                       \
        matmul_blocks(LL_##type, w, row_bytes, rows, a, out, ld_out, work);                                   \
    }
#define FLOATS(type)                                                                                          \
    static void matmul_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, \
                              float *out, int64_t ld_out, void *work) {                                       \
        matmul_floats(LL_##type, w, row_bytes, rows, a, out, ld_out, work);                                   \
    }
/* clang-format off */
BLOCKS(Q4_0) BLOCKS(Q4_1) BLOCKS(Q5_0) BLOCKS(Q5_1) BLOCKS(Q8_0) BLOCKS(Q2_K) BLOCKS(Q3_K)
BLOCKS(Q4_K) BLOCKS(Q5_K) BLOCKS(Q6_K) BLOCKS(IQ4_NL) BLOCKS(IQ4_XS) BLOCKS(MXFP4)
FLOATS(F32) FLOATS(F16) FLOATS(BF16)

#define ENTRY(type) [LL_##type] = matmul_##type
const struct kernels kernels_scalar = {
    .name = "scalar",
    .scratch = scratch,
    .quantize_blocks = quantize_blocks,
    .quantize_supers = quantize_supers,
    .row = &row_kernels_scalar,
    .matmul = {ENTRY(F32), ENTRY(F16), ENTRY(BF16), ENTRY(Q4_0), ENTRY(Q4_1), ENTRY(Q5_0), ENTRY(Q5_1), ENTRY(Q8_0),
               ENTRY(Q2_K), ENTRY(Q3_K), ENTRY(Q4_K), ENTRY(Q5_K), ENTRY(Q6_K), ENTRY(IQ4_NL), ENTRY(IQ4_XS),
               ENTRY(MXFP4)},
};
/* clang-format on */
