/* Products of float weights for the vector levels, in kernels.h's arithmetic: tiles of rows and tokens in registers,
 * sixteen lanes of columns each. */
#ifndef FLOAT_PRODUCTS_H
#define FLOAT_PRODUCTS_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"
#include "lanes.h"
#include "v16.h"

/* What the registers hold. */
#if defined(__AVX512F__)
enum { FLOAT_ROWS = 4, FLOAT_TOKENS = 4 };
#else
enum { FLOAT_ROWS = 2, FLOAT_TOKENS = 2 };
#endif

INLINE v16 load_weights(int32_t type, const uint8_t *p) {
    if (type == LL_F32) return v16_load((const float *)p);
    return type == LL_F16 ? v16_load_half((const uint16_t *)p) : v16_load_bf16((const uint16_t *)p);
}

/* `rows` rows by `tokens` tokens, held in registers over all columns. tells: of the rows after these. */
INLINE void float_tile(int32_t type, int rows, int tokens, bool tells, const uint8_t *w, int64_t row_bytes,
                       const float *x, int64_t ld, int32_t k, float *out, int64_t ld_out) {
    const int size = type == LL_F32 ? 4 : 2;
    v16 acc[FLOAT_ROWS][4], weights[FLOAT_ROWS];
    int32_t c = 0;
    UNROLL for (int r = 0; r < rows; r++) { UNROLL for (int t = 0; t < tokens; t++) acc[r][t] = v16_set(0.0f); }
    for (; c + 16 <= k; c += 16) {
        UNROLL for (int r = 0; r < rows; r++) {
            const uint8_t *at = w + r * row_bytes + (int64_t)c * size;
            weights[r] = load_weights(type, at);
            if (tells) _mm_prefetch((const char *)at + FLOAT_ROWS * row_bytes, FETCH_INTO);
        }
        UNROLL for (int t = 0; t < tokens; t++) {
            v16 v = v16_load(x + t * ld + c);
            UNROLL for (int r = 0; r < rows; r++) acc[r][t] = v16_fma(weights[r], v, acc[r][t]);
        }
    }
    if (c < k) {
        uint8_t part[FLOAT_ROWS][64] = {{0}};
        for (int r = 0; r < rows; r++) memcpy(part[r], w + r * row_bytes + (int64_t)c * size, (size_t)((k - c) * size));
        for (int t = 0; t < tokens; t++) {
            v16 v = v16_load_part(x + t * ld + c, k - c);
            for (int r = 0; r < rows; r++) acc[r][t] = v16_fma(load_weights(type, part[r]), v, acc[r][t]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int t = 0; t < tokens; t++) out[t * ld_out + r] = v16_sum(acc[r][t]);
    }
}

/* `tokens` tokens for all rows. */
INLINE void float_tokens(int32_t type, int tokens, bool tells, const uint8_t *w, int64_t row_bytes, int32_t rows,
                         const float *x, int64_t ld, int32_t k, float *out, int64_t ld_out) {
    int32_t r = 0;
    for (; r + FLOAT_ROWS <= rows; r += FLOAT_ROWS)
        float_tile(type, FLOAT_ROWS, tokens, tells, w + r * row_bytes, row_bytes, x, ld, k, out + r, ld_out);
    for (; r < rows; r++) float_tile(type, 1, tokens, false, w + r * row_bytes, row_bytes, x, ld, k, out + r, ld_out);
}

/* A few tokens are kept in the nearest cache while the rows, of fewer bytes, pass by from the second. The first of them
 * meet the rows as memory gives them, and tell it of the next. */
INLINE void matmul_floats(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,
                          float *out, int64_t ld_out) {
    enum { ROWS = 64 };
#define TOKENS(count, tells) \
    float_tokens(type, count, tells, from, row_bytes, here, a->x + t * a->ld, a->ld, a->k, out + t * ld_out + r, ld_out)
    for (int32_t r = 0; r < rows; r += ROWS) {
        const uint8_t *from = w + r * row_bytes;
        int32_t t = 0, here = rows - r < ROWS ? rows - r : ROWS;
        if (a->n >= FLOAT_TOKENS) TOKENS(FLOAT_TOKENS, true);
        for (t = FLOAT_TOKENS; t + FLOAT_TOKENS <= a->n; t += FLOAT_TOKENS) TOKENS(FLOAT_TOKENS, false);
        t = a->n / FLOAT_TOKENS * FLOAT_TOKENS;
        if (FLOAT_TOKENS > 2 && a->n - t == 3)
            TOKENS(3, true);
        else if (FLOAT_TOKENS > 2 && a->n - t == 2)
            TOKENS(2, true);
        else if (a->n > t)
            TOKENS(1, true);
    }
#undef TOKENS
}

#endif
