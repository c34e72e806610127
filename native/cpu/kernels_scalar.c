/* The specification of every product, in plain C and in the order that kernels.h binds: the faster levels give the
 * same bits. Also what runs where no faster level is built. Assumes a correctly rounded fmaf, which C11 promises. */
#include <math.h>
#include <stdbool.h>

#include "kernels.h"
#include "quant/formats.h"
#include "quant/half.h"
#include "row_kernels.h"

static int64_t scratch(int32_t k, int32_t n) {
    (void)n;
    return (int64_t)k * (int64_t)sizeof(float); /* one row of weights as floats */
}

/* A block whose largest magnitude is so small that 127 / amax overflows counts as zeros; one that holds a NaN or
 * an infinity gets the scale NaN, which reaches every output of its token. */
static void quantize(int32_t k, const float *x, int8_t *q, float *scale, int16_t *sums) {
    for (int32_t b = 0; b < k / 32; b++, x += 32, q += 32) {
        uint32_t top = 0;
        for (int c = 0; c < 32; c++) {
            uint32_t magnitude = bits_of_float(x[c]) & 0x7fffffffu;
            if (magnitude > top) top = magnitude;
        }
        float amax = float_of_bits(top), inverse = 127.0f / amax;
        bool finite = top < 0x7f800000u, usable = finite && inverse <= 3.4028234663852886e38f;
        scale[b] = usable ? amax / 127.0f : finite ? 0.0f : NAN;
        for (int half = 0; half < 2; half++) {
            int sum = 0;
            for (int c = 16 * half; c < 16 * half + 16; c++) {
                q[c] = usable ? (int8_t)rintf(x[c] * inverse) : 0;
                sum += q[c];
            }
            sums[2 * b + half] = (int16_t)sum;
        }
    }
}

static int32_t dot16(const int8_t *code, const int8_t *q) {
    int32_t sum = 0;
    for (int c = 0; c < 16; c++) sum += code[c] * q[c];
    return sum;
}

/* One block of one row times one token, added to acc. */
static float add_block(enum form form, const struct block32 *w, const int8_t *q, float scale, const int16_t *sums,
                       float acc) {
    int32_t isum = w->sub[0] * dot16(w->code, q) + w->sub[1] * dot16(w->code + 16, q + 16);
    acc = fmaf((float)isum * w->d, scale, acc);
    if (form == FORM_MIN) acc = fmaf(w->m, scale * (float)(sums[0] + sums[1]), acc);
    if (form == FORM_SUBMIN) acc = fmaf((float)(w->submin[0] * sums[0] + w->submin[1] * sums[1]) * w->m, scale, acc);
    return acc;
}

static void matmul_blocks(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,
                          float *out, int64_t ld_out) {
    enum form form = form_of(type);
    int32_t blocks = a->k / 32;
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t t = 0; t < a->n; t++) out[t * ld_out + r] = 0.0f;
        for (int32_t b = 0; b < blocks; b++) {
            struct block32 block;
            unpack_block(type, w + r * row_bytes, b, &block);
            for (int32_t t = 0; t < a->n; t++) {
                int64_t at = (int64_t)t * blocks + b;
                float *acc = out + t * ld_out + r;
                *acc = add_block(form, &block, a->q + 32 * at, a->scale[at], a->sums + 2 * at, *acc);
            }
        }
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
        (void)work;                                                                                           \
        matmul_blocks(LL_##type, w, row_bytes, rows, a, out, ld_out);                                         \
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
    .quantize = quantize,
    .row = &row_kernels_scalar,
    .matmul = {ENTRY(F32), ENTRY(F16), ENTRY(BF16), ENTRY(Q4_0), ENTRY(Q4_1), ENTRY(Q5_0), ENTRY(Q5_1), ENTRY(Q8_0),
               ENTRY(Q2_K), ENTRY(Q3_K), ENTRY(Q4_K), ENTRY(Q5_K), ENTRY(Q6_K), ENTRY(IQ4_NL), ENTRY(IQ4_XS),
               ENTRY(MXFP4)},
};
/* clang-format on */
