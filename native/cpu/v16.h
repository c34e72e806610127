/* Sixteen floats as one value: the width at which all row arithmetic is defined, whatever the registers' width. The
 * file that includes this is compiled once per level, and the compiler's own macros say which level that is. Every
 * operation is one IEEE operation per lane, so all levels give the same bits. */
#ifndef V16_H
#define V16_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "quant/half.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define V16_INLINE static inline __attribute__((always_inline))

typedef __m512 v16;

V16_INLINE v16 v16_set(float x) { return _mm512_set1_ps(x); }
V16_INLINE v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
V16_INLINE void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
/* In a register from here on: GCC would rather load once more for every use. */
V16_INLINE void v16_hold(v16 *a) { __asm__("" : "+v"(*a)); }
V16_INLINE v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
V16_INLINE v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
V16_INLINE v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
V16_INLINE v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
V16_INLINE v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); } /* b where either is NaN */
V16_INLINE v16 v16_round(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* 2 to the whole number n, for n in [-126, 127]; 0 for -127 */
V16_INLINE v16 v16_exp2_int(v16 n) {
    __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}
V16_INLINE v16 v16_load_half(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
V16_INLINE void v16_store_half(uint16_t *p, v16 a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V16_INLINE v16 v16_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
V16_INLINE v16 v16_set_half(uint16_t h) { return _mm512_set1_ps(_cvtsh_ss(h)); }
V16_INLINE v16 v16_load_int8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* Folds lanes 8 apart, then 4, 2, 1. */
V16_INLINE float v16_sum(v16 a) {
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* Eight of sixteen v16_sum() under way: a quarter of a register each, four lanes left. */
typedef struct { __m512 of[4]; } v16_eight;

V16_INLINE v16_eight v16_sum_eight(const v16 in[8]) {
    v16_eight r;
    for (int i = 0; i < 4; i++)
        r.of[i] =
            _mm512_add_ps(_mm512_shuffle_f32x4(in[i], in[4 + i], 0x44), _mm512_shuffle_f32x4(in[i], in[4 + i], 0xee));
    return r;
}
/* Lane i is v16_sum() of the i-th. */
V16_INLINE v16 v16_sums(v16_eight low, v16_eight high) {
    __m512 lane[4];
    for (int i = 0; i < 4; i++)
        lane[i] = _mm512_add_ps(_mm512_shuffle_f32x4(low.of[i], high.of[i], 0x88),
                                _mm512_shuffle_f32x4(low.of[i], high.of[i], 0xdd));
    __m512 a = _mm512_add_ps(_mm512_shuffle_ps(lane[0], lane[1], 0x44), _mm512_shuffle_ps(lane[0], lane[1], 0xee));
    __m512 b = _mm512_add_ps(_mm512_shuffle_ps(lane[2], lane[3], 0x44), _mm512_shuffle_ps(lane[2], lane[3], 0xee));
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}
/* The largest of lanes that are numbers. */
V16_INLINE float v16_largest(v16 a) { return _mm512_reduce_max_ps(a); }

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define V16_INLINE static inline __attribute__((always_inline))

typedef struct { __m256 lo, hi; } v16;

V16_INLINE v16 v16_set(float x) { return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
V16_INLINE v16 v16_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
V16_INLINE void v16_store(float *p, v16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
V16_INLINE void v16_hold(v16 *a) { __asm__("" : "+x"(a->lo), "+x"(a->hi)); }
V16_INLINE v16 v16_add(v16 a, v16 b) { return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
V16_INLINE v16 v16_sub(v16 a, v16 b) { return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
V16_INLINE v16 v16_mul(v16 a, v16 b) { return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
V16_INLINE v16 v16_div(v16 a, v16 b) { return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c) {
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
V16_INLINE v16 v16_max(v16 a, v16 b) { return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
V16_INLINE v16 v16_round(v16 a) {
    return (v16){_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                 _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
V16_INLINE __m256 v8_exp2_int(__m256 n) {
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
V16_INLINE v16 v16_exp2_int(v16 n) { return (v16){v8_exp2_int(n.lo), v8_exp2_int(n.hi)}; }
V16_INLINE v16 v16_load_half(const uint16_t *p) {
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
V16_INLINE void v16_store_half(uint16_t *p, v16 a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V16_INLINE __m256 v8_load_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
V16_INLINE v16 v16_load_bf16(const uint16_t *p) { return (v16){v8_load_bf16(p), v8_load_bf16(p + 8)}; }
V16_INLINE v16 v16_set_half(uint16_t h) { return (v16){_mm256_set1_ps(_cvtsh_ss(h)), _mm256_set1_ps(_cvtsh_ss(h))}; }
V16_INLINE __m256 v8_load_int8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
V16_INLINE v16 v16_load_int8(const uint8_t *p) { return (v16){v8_load_int8(p), v8_load_int8(p + 8)}; }
V16_INLINE float v16_sum(v16 a) {
    __m256 h = _mm256_add_ps(a.lo, a.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
typedef __m256 v16_eight;
V16_INLINE v16_eight v16_sum_eight(const v16 in[8]) { /* of in[0 .. 3] and in[4 .. 7], a half each */
    __m256 lane[4];
    for (int i = 0; i < 4; i++) {
        __m256 a = _mm256_add_ps(in[i].lo, in[i].hi), b = _mm256_add_ps(in[4 + i].lo, in[4 + i].hi);
        lane[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    __m256 a = _mm256_add_ps(_mm256_shuffle_ps(lane[0], lane[1], 0x44), _mm256_shuffle_ps(lane[0], lane[1], 0xee));
    __m256 b = _mm256_add_ps(_mm256_shuffle_ps(lane[2], lane[3], 0x44), _mm256_shuffle_ps(lane[2], lane[3], 0xee));
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
}
V16_INLINE v16 v16_sums(v16_eight low, v16_eight high) { return (v16){low, high}; }
V16_INLINE float v16_largest(v16 a) {
    __m256 h = _mm256_max_ps(a.lo, a.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

#else /* the specification */
#define V16_INLINE static inline

typedef struct { float lane[16]; } v16;

#define V16_LANES(value)                                  \
    do {                                                  \
        v16 r;                                            \
        for (int i = 0; i < 16; i++) r.lane[i] = (value); \
        return r;                                         \
    } while (0)

V16_INLINE v16 v16_set(float x) { V16_LANES(x); }
V16_INLINE v16 v16_load(const float *p) { V16_LANES(p[i]); }
V16_INLINE void v16_store(float *p, v16 a) { memcpy(p, a.lane, sizeof a.lane); }
V16_INLINE void v16_hold(v16 *a) { (void)a; }
V16_INLINE v16 v16_add(v16 a, v16 b) { V16_LANES(a.lane[i] + b.lane[i]); }
V16_INLINE v16 v16_sub(v16 a, v16 b) { V16_LANES(a.lane[i] - b.lane[i]); }
V16_INLINE v16 v16_mul(v16 a, v16 b) { V16_LANES(a.lane[i] * b.lane[i]); }
V16_INLINE v16 v16_div(v16 a, v16 b) { V16_LANES(a.lane[i] / b.lane[i]); }
V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c) { V16_LANES(fmaf(a.lane[i], b.lane[i], c.lane[i])); }
V16_INLINE v16 v16_max(v16 a, v16 b) { V16_LANES(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
V16_INLINE v16 v16_round(v16 a) { V16_LANES(rintf(a.lane[i])); }
V16_INLINE float v1_exp2_int(float n) {
    int32_t bits = n >= -126 && n <= 127 ? ((int32_t)n + 127) * (1 << 23) : 0;
    float r;
    memcpy(&r, &bits, sizeof r);
    return r;
}
V16_INLINE v16 v16_exp2_int(v16 n) { V16_LANES(v1_exp2_int(n.lane[i])); }
V16_INLINE v16 v16_load_half(const uint16_t *p) { V16_LANES(f16_to_f32(p[i])); }
V16_INLINE void v16_store_half(uint16_t *p, v16 a) {
    for (int i = 0; i < 16; i++) p[i] = f32_to_f16(a.lane[i]);
}
V16_INLINE v16 v16_load_bf16(const uint16_t *p) { V16_LANES(bf16_to_f32(p[i])); }
V16_INLINE v16 v16_set_half(uint16_t h) { return v16_set(f16_to_f32(h)); }
V16_INLINE v16 v16_load_int8(const uint8_t *p) { V16_LANES((float)(int8_t)p[i]); }
V16_INLINE float v16_sum(v16 a) {
    for (int step = 8; step; step /= 2) {
        for (int i = 0; i < step; i++) a.lane[i] += a.lane[i + step];
    }
    return a.lane[0];
}
typedef struct { float of[8]; } v16_eight;
V16_INLINE v16_eight v16_sum_eight(const v16 in[8]) {
    v16_eight r;
    for (int i = 0; i < 8; i++) r.of[i] = v16_sum(in[i]);
    return r;
}
V16_INLINE v16 v16_sums(v16_eight low, v16_eight high) { V16_LANES(i < 8 ? low.of[i] : high.of[i - 8]); }
V16_INLINE float v16_largest(v16 a) {
    float largest = a.lane[0];
    for (int i = 1; i < 16; i++) largest = a.lane[i] > largest ? a.lane[i] : largest;
    return largest;
}
#undef V16_LANES

#endif

/* The first n < 16 floats; the other lanes are 0. */
V16_INLINE v16 v16_load_part(const float *p, int n) {
    float full[16] = {0};
    memcpy(full, p, (size_t)n * sizeof *p);
    return v16_load(full);
}
V16_INLINE void v16_store_part(float *p, v16 a, int n) {
    float full[16];
    v16_store(full, a);
    memcpy(p, full, (size_t)n * sizeof *p);
}

/* e to the x within 1.5 units in the last place; 0 from -88 down, NaN stays; x must not exceed 88. A polynomial of
 * degree 7 on [-ln2/2, ln2/2] (Cephes' expf) after Cody and Waite's two-part reduction. */
V16_INLINE v16 v16_exp(v16 x) {
    x = v16_max(v16_set(-88.0f), x);
    v16 n = v16_round(v16_mul(x, v16_set(1.44269504089f)));
    v16 r = v16_fma(n, v16_set(-0.693145751953125f), x);
    r = v16_fma(n, v16_set(-1.42860682030941723e-6f), r);
    v16 p = v16_set(1.9875691500e-4f);
    p = v16_fma(p, r, v16_set(1.3981999507e-3f));
    p = v16_fma(p, r, v16_set(8.3334519073e-3f));
    p = v16_fma(p, r, v16_set(4.1665795894e-2f));
    p = v16_fma(p, r, v16_set(1.6666665459e-1f));
    p = v16_fma(p, r, v16_set(5.0000001201e-1f));
    p = v16_fma(v16_mul(r, r), p, v16_add(r, v16_set(1.0f)));
    return v16_mul(p, v16_exp2_int(n));
}

#endif
