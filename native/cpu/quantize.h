/* Activations to int8 for the vector levels, in kernels.h's arithmetic, with AVX2. */
#ifndef QUANTIZE_H
#define QUANTIZE_H
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels.h"
#include "lanes.h"

/* The largest magnitude of `width` floats, as bits: so that NaN counts as the largest of all. */
INLINE float largest(int width, const float *x) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < width; i += 8) {
        __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i));
        top = _mm256_max_epu32(top, _mm256_and_si256(bits, magnitude));
    }
    top = _mm256_max_epu32(top, _mm256_permute2x128_si256(top, top, 1));
    top = _mm256_max_epu32(top, _mm256_shuffle_epi32(top, 0x4e));
    top = _mm256_max_epu32(top, _mm256_shuffle_epi32(top, 0xb1));
    return _mm256_cvtss_f32(_mm256_castsi256_ps(top));
}

/* The scale of a block and what its values are multiplied by, as in kernels_scalar.c; 0 where all codes are 0. */
INLINE float block_scale(float amax, float *scale) {
    float inverse = 127.0f / amax;
    bool finite = amax <= 3.4028234663852886e38f, usable = finite && inverse <= 3.4028234663852886e38f;
    *scale = usable ? amax / 127.0f : finite ? 0.0f : NAN;
    return usable ? inverse : 0.0f;
}

/* Codes of 32 columns, and the sums of their halves. */
INLINE void quantize_32(const float *x, float inverse, int8_t *q, int16_t sums[2]) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    if (!(inverse > 0)) {
        memset(q, 0, 32);
        sums[0] = sums[1] = 0;
        return;
    }
    __m256i c[4];
    for (int i = 0; i < 4; i++)
        c[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inverse)));
    __m256i codes = _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
    codes = _mm256_permutevar8x32_epi32(codes, order);
    __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), codes), _mm256_set1_epi16(1));
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4e));
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xb1));
    _mm256_storeu_si256((__m256i *)q, codes);
    sums[0] = (int16_t)_mm256_extract_epi16(sum, 0);
    sums[1] = (int16_t)_mm256_extract_epi16(sum, 8);
}

static inline void quantize_blocks(const struct activations *a, int32_t token, int32_t first, int32_t count,
                                   const float *x) {
    x += 32 * first;
    for (int32_t b = first; b < first + count; b++, x += 32) {
        int64_t at = scale_at(a, 32, token, b);
        int16_t sums[2];
        float inverse = block_scale(largest(32, x), &a->blocks.scale[at]);
        quantize_32(x, inverse, a->blocks.q + q_at(a, token, b / 2) + 32 * (b % 2), sums);
        a->blocks.sums[at] = (int16_t)(sums[0] + sums[1]);
    }
}

static inline void quantize_supers(const struct activations *a, int32_t token, int32_t first, int32_t count,
                                   const float *x) {
    x += 256 * first;
    for (int32_t b = first; b < first + count; b++, x += 256) {
        int64_t at = scale_at(a, 256, token, b);
        int16_t *sums = a->supers.sums + at * SUPER_SUMS;
        float inverse = block_scale(largest(256, x), &a->supers.scale[at]);
        for (int i = 0; i < 8; i++) {
            quantize_32(x + 32 * i, inverse, a->supers.q + q_at(a, token, 4 * b + i / 2) + 32 * (i % 2), sums + 2 * i);
            sums[16 + i] = (int16_t)(sums[2 * i] + sums[2 * i + 1]);
        }
    }
}

#endif
