/* Products of weights and activations, written once for the vector levels. kernels_avx2.c and kernels_avx512.c bring
 * the core that multiplies a panel by a tile of tokens, one for each class of formats, and include this.
 *
 * Rows of weights are lanes: a panel of LANES rows by 256 columns is unpacked into the first-level cache and then
 * serves every token, one or a thousand, and no sum ever crosses lanes. Each (row, token) has one accumulator, which
 * follows the blocks in order, so neither the panel's width nor the tile's height shows in the bits. */
#ifndef PRODUCTS_H
#define PRODUCTS_H
#include <math.h>
#include <stdbool.h>

#include "kernels.h"
#include "panel.h"
#include "row_kernels.h"
#include "v16.h"

enum { PANELS = 4 }; /* unpacked side by side when there are tokens enough to reuse a tile */

struct format {
    fill_fn *fill;
    core_fn *const *cores; /* for 1, 2, 4, ... TILE tokens */
    int32_t offset;        /* of the panel's codes */
    int32_t chunk_bytes;   /* of a row's 256 columns */
};

struct work {
    struct panel panels[PANELS];
    struct tile tile;
    uint8_t staged[LANES][CHUNK * sizeof(struct q8_0)]; /* the widest */
    _Alignas(64) float acc[]; /* (tokens, panels, LANES) */
};

static int64_t scratch(int32_t k, int32_t n) {
    (void)k;
    return (int64_t)sizeof(struct work) + (int64_t)n * PANELS * LANES * (int64_t)sizeof(float);
}

static void load_tile(const struct activations *a, int64_t token, int tokens, int64_t first, int count, int32_t offset,
                      struct tile *x) {
    __m256i minus = _mm256_set1_epi16((short)-offset), minus32 = _mm256_set1_epi32(-offset);
    x->one = a->q + token * a->k + 32 * first;
    for (int t = 0; t < tokens; t++) {
        int64_t block = (token + t) * (a->k / 32) + first;
        if (count == CHUNK) {
            if (tokens > 1) memcpy(x->q[t], a->q + 32 * block, sizeof x->q[t]);
            memcpy(x->scale[t], a->scale + block, sizeof x->scale[t]);
            memcpy(x->sums[t], a->sums + 2 * block, sizeof x->sums[t]);
        } else {
            memset(x->scale[t], 0, sizeof x->scale[t]);
            memset(x->sums[t], 0, sizeof x->sums[t]);
            if (tokens > 1) memcpy(x->q[t], a->q + 32 * block, 32 * (size_t)count);
            memcpy(x->scale[t], a->scale + block, sizeof(float) * (size_t)count);
            memcpy(x->sums[t], a->sums + 2 * block, 2 * sizeof(int16_t) * (size_t)count);
        }
        __m256i sums = _mm256_loadu_si256((const __m256i *)x->sums[t]);
        __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums));
        __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums, 1));
        __m256 blocks = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
        _mm256_storeu_si256((__m256i *)x->block_start[t], _mm256_madd_epi16(sums, minus));
        _mm256_storeu_si256((__m256i *)x->half_start[t], _mm256_mullo_epi32(low, minus32));
        _mm256_storeu_si256((__m256i *)(x->half_start[t] + 8), _mm256_mullo_epi32(high, minus32));
        _mm256_storeu_ps(x->min_scale[t], _mm256_mul_ps(_mm256_loadu_ps(x->scale[t]), blocks));
    }
}

/* The last rows, when they are fewer than the lanes, are copied to where reading LANES rows is allowed. */
static struct rows stage_rows(const uint8_t *w, int64_t row_bytes, int32_t rows, int64_t bytes, struct work *work) {
    for (int32_t i = 0; i < rows; i++) memcpy(work->staged[i], w + i * row_bytes, (size_t)bytes);
    return (struct rows){work->staged[0], (int64_t)sizeof work->staged[0], (uintptr_t)work->staged};
}

static void fill_panels(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows, int64_t first,
                        int count, struct work *work) {
    struct panel *panel = work->panels;
    for (int32_t r = 0; r < rows; r += LANES, panel++) {
        const uint8_t *from = w + r * row_bytes;
        if (rows - r >= LANES) {
            f->fill((struct rows){from, row_bytes, (uintptr_t)from + (uintptr_t)(rows * row_bytes)}, first, count,
                    panel);
            continue;
        }
        from += first * f->chunk_bytes / CHUNK;
        f->fill(stage_rows(from, row_bytes, rows - r, (int64_t)count * f->chunk_bytes / CHUNK, work), 0, count, panel);
    }
}

static void store_sums(const float *acc, int32_t rows, int32_t ld, int32_t n, float *out, int64_t ld_out) {
    for (int32_t t = 0; t < n; t++) memcpy(out + t * ld_out, acc + (int64_t)t * ld, sizeof(float) * (size_t)rows);
}

static void matmul_blocks(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows,
                          const struct activations *a, float *out, int64_t ld_out, struct work *work) {
    int32_t blocks = a->k / 32, most = (a->n > TILE ? PANELS : 1) * LANES;
    for (int32_t r = 0; r < rows; r += most) {
        int32_t here = rows - r < most ? rows - r : most, panels = (here + LANES - 1) / LANES, ld = panels * LANES;
        memset(work->acc, 0, sizeof(float) * (size_t)a->n * (size_t)ld);
        for (int32_t first = 0; first < blocks; first += CHUNK) {
            int count = blocks - first < CHUNK ? blocks - first : CHUNK;
            fill_panels(f, w + r * row_bytes, row_bytes, here, first, count, work);
            for (int32_t t = 0, size = SIZES - 1; t < a->n; t += 1 << size) {
                while (a->n - t < 1 << size) size--;
                load_tile(a, t, 1 << size, first, count, f->offset, &work->tile);
                float *acc = work->acc + (int64_t)t * ld;
                for (int32_t p = 0; p < panels; p++)
                    f->cores[size](&work->panels[p], &work->tile, count, acc + p * LANES, ld);
            }
        }
        store_sums(work->acc, here, ld, a->n, out + r, ld_out);
    }
}

/* ---- activations ---- */

static void quantize(int32_t k, const float *x, int8_t *q, float *scale, int16_t *sums) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7), magnitude = _mm256_set1_epi32(0x7fffffff);
    for (int32_t b = 0; b < k / 32; b++, x += 32, q += 32) {
        __m256 v[4];
        __m256i top = _mm256_setzero_si256(), c[4];
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            top = _mm256_max_epu32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
        }
        top = _mm256_max_epu32(top, _mm256_permute2x128_si256(top, top, 1));
        top = _mm256_max_epu32(top, _mm256_shuffle_epi32(top, 0x4e));
        top = _mm256_max_epu32(top, _mm256_shuffle_epi32(top, 0xb1));
        float amax = _mm256_cvtss_f32(_mm256_castsi256_ps(top)), inverse = 127.0f / amax;
        bool finite = amax <= 3.4028234663852886e38f, usable = finite && inverse <= 3.4028234663852886e38f;
        if (!usable) { /* as in kernels_scalar.c */
            scale[b] = finite ? 0.0f : NAN;
            memset(q, 0, 32);
            sums[2 * b] = sums[2 * b + 1] = 0;
            continue;
        }
        for (int i = 0; i < 4; i++) c[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)));
        __m256i codes = _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
        codes = _mm256_permutevar8x32_epi32(codes, order);
        __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), codes), _mm256_set1_epi16(1));
        sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4e));
        sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xb1));
        _mm256_storeu_si256((__m256i *)q, codes);
        scale[b] = amax / 127.0f;
        sums[2 * b] = (int16_t)_mm256_extract_epi16(sum, 0);
        sums[2 * b + 1] = (int16_t)_mm256_extract_epi16(sum, 8);
    }
}

/* ---- float weights ---- */

INLINE v16 load_weights(int32_t type, const uint8_t *p) {
    if (type == LL_F32) return v16_load((const float *)p);
    return type == LL_F16 ? v16_load_half((const uint16_t *)p) : v16_load_bf16((const uint16_t *)p);
}

/* `rows` rows by `tokens` tokens, held in registers over all columns. */
INLINE void float_tile(int32_t type, int rows, int tokens, const uint8_t *w, int64_t row_bytes, const float *x,
                       int64_t ld, int32_t k, float *out, int64_t ld_out) {
    const int size = type == LL_F32 ? 4 : 2;
    v16 acc[FLOAT_ROWS][FLOAT_TOKENS], weights[FLOAT_ROWS];
    int32_t c = 0;
    UNROLL for (int r = 0; r < rows; r++) { UNROLL for (int t = 0; t < tokens; t++) acc[r][t] = v16_set(0.0f); }
    for (; c + 16 <= k; c += 16) {
        UNROLL for (int r = 0; r < rows; r++) weights[r] = load_weights(type, w + r * row_bytes + (int64_t)c * size);
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
INLINE void float_tokens(int32_t type, int tokens, const uint8_t *w, int64_t row_bytes, int32_t rows, const float *x,
                         int64_t ld, int32_t k, float *out, int64_t ld_out) {
    int32_t r = 0;
    for (; r + FLOAT_ROWS <= rows; r += FLOAT_ROWS)
        float_tile(type, FLOAT_ROWS, tokens, w + r * row_bytes, row_bytes, x, ld, k, out + r, ld_out);
    for (; r < rows; r++) float_tile(type, 1, tokens, w + r * row_bytes, row_bytes, x, ld, k, out + r, ld_out);
}

/* A few tokens are kept in the nearest cache while the rows, of fewer bytes, pass by from the second. */
INLINE void matmul_floats(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,
                          float *out, int64_t ld_out) {
    enum { ROWS = 64 };
    for (int32_t r = 0; r < rows; r += ROWS) {
        const uint8_t *from = w + r * row_bytes;
        int32_t t = 0, here = rows - r < ROWS ? rows - r : ROWS;
        for (; t + FLOAT_TOKENS <= a->n; t += FLOAT_TOKENS)
            float_tokens(type, FLOAT_TOKENS, from, row_bytes, here, a->x + t * a->ld, a->ld, a->k, out + t * ld_out + r,
                         ld_out);
        for (; t < a->n; t++)
            float_tokens(type, 1, from, row_bytes, here, a->x + t * a->ld, a->ld, a->k, out + t * ld_out + r, ld_out);
    }
}

/* ---- the table ---- */

#define BLOCKS(type, class, code_offset, bytes)                                                               \
    static void matmul_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, \
                              float *out, int64_t ld_out, void *work) {                                       \
        static const struct format format = {fill_##type, class, code_offset, bytes};                         \
        matmul_blocks(&format, w, row_bytes, rows, a, out, ld_out, work);                                     \
    }
#define FLOATS(type)                                                                                          \
    static void matmul_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, \
                              float *out, int64_t ld_out, void *work) {                                       \
        (void)work;                                                                                           \
        matmul_floats(LL_##type, w, row_bytes, rows, a, out, ld_out);                                         \
    }
BLOCKS(Q4_0, plain_cores_4, 8, CHUNK * sizeof(struct q4_0))
BLOCKS(Q4_1, min_cores_4, 0, CHUNK * sizeof(struct q4_1))
BLOCKS(Q5_0, plain_cores_5, 16, CHUNK * sizeof(struct q5_0))
BLOCKS(Q5_1, min_cores_5, 0, CHUNK * sizeof(struct q5_1))
BLOCKS(Q8_0, plain_cores_8, WIDE_OFFSET, CHUNK * sizeof(struct q8_0))
BLOCKS(Q2_K, submin_cores_2, 0, sizeof(struct q2_k))
BLOCKS(Q3_K, sub_cores_3, 4, sizeof(struct q3_k))
BLOCKS(Q4_K, min_cores_4, 0, sizeof(struct q4_k))
BLOCKS(Q5_K, min_cores_5, 0, sizeof(struct q5_k))
BLOCKS(Q6_K, sub_cores_6, 32, sizeof(struct q6_k))
BLOCKS(IQ4_NL, plain_cores_8, WIDE_OFFSET, CHUNK * sizeof(struct iq4_nl))
BLOCKS(IQ4_XS, plain_cores_8, WIDE_OFFSET, sizeof(struct iq4_xs))
BLOCKS(MXFP4, plain_cores_5, MXFP4_OFFSET, CHUNK * sizeof(struct mxfp4))
FLOATS(F32)
FLOATS(F16)
FLOATS(BF16)

#define ENTRY(type) [LL_##type] = matmul_##type
#define PRODUCTS                                                                                                 \
    {ENTRY(F32),  ENTRY(F16),  ENTRY(BF16), ENTRY(Q4_0), ENTRY(Q4_1), ENTRY(Q5_0),   ENTRY(Q5_1),   ENTRY(Q8_0), \
     ENTRY(Q2_K), ENTRY(Q3_K), ENTRY(Q4_K), ENTRY(Q5_K), ENTRY(Q6_K), ENTRY(IQ4_NL), ENTRY(IQ4_XS), ENTRY(MXFP4)}

#endif
