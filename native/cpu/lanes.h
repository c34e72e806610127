/* One vector register of 32-bit lanes, LANES of them: 16 with AVX-512, 8 with AVX2. In the products a lane is a row
 * of weights. The file that includes this is compiled once per level; the compiler's macros say which level that is.
 * Integers of a lane may also be taken as four bytes or two 16-bit halves; the operations' names say which. */
#ifndef LANES_H
#define LANES_H
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "stream.h"

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE int32_t load_i32(const void *p) {
    int32_t i;
    memcpy(&i, p, sizeof i);
    return i;
}

#if defined(__AVX512F__)

enum { LANES = 16 };
typedef __m512i vi;
typedef __m512 vf;

INLINE vi vi_load(const void *p) { return _mm512_load_si512(p); }
INLINE void vi_store(void *p, vi a) { _mm512_store_si512(p, a); }
INLINE vi vi_set8(int x) { return _mm512_set1_epi8((char)x); }
INLINE vi vi_set16(int x) { return _mm512_set1_epi16((short)x); }
INLINE vi vi_set32(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi vi_add32(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi vi_sub32(vi a, vi b) { return _mm512_sub_epi32(a, b); }
INLINE vi vi_sub8(vi a, vi b) { return _mm512_sub_epi8(a, b); }
INLINE vi vi_mul32(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
INLINE vi vi_mul16(vi a, vi b) { return _mm512_mullo_epi16(a, b); }
INLINE vi vi_madd16(vi a, vi b) { return _mm512_madd_epi16(a, b); }
#define HAS_DOT8
/* sum + the four products of a lane's unsigned bytes a and signed bytes b */
INLINE vi vi_dot8(vi sum, vi a, vi b) { return _mm512_dpbusd_epi32(sum, a, b); }
/* sum + the two products of a lane's 16-bit halves */
INLINE vi vi_dot16(vi sum, vi a, vi b) { return _mm512_dpwssd_epi32(sum, a, b); }
INLINE vi vi_shl32(vi a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
INLINE vi vi_shr32(vi a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
INLINE vi vi_sar32(vi a, int n) { return _mm512_srai_epi32(a, (unsigned)n); }
INLINE vi vi_sar16(vi a, int n) { return _mm512_srai_epi16(a, n); }
/* bytes of `table` at the indexes in each byte; an index with its high bit set gives 0 */
INLINE vi vi_shuffle8(vi table, vi index) { return _mm512_shuffle_epi8(table, index); }
INLINE vi vi_repeat128(__m128i x) { return _mm512_broadcast_i32x4(x); }
INLINE vi vi_low32(vi a, vi b) { return _mm512_unpacklo_epi32(a, b); }
INLINE vi vi_high32(vi a, vi b) { return _mm512_unpackhi_epi32(a, b); }
INLINE vi vi_low64(vi a, vi b) { return _mm512_unpacklo_epi64(a, b); }
INLINE vi vi_high64(vi a, vi b) { return _mm512_unpackhi_epi64(a, b); }
/* `value` in the bytes where a and mask share a bit, else 0 */
INLINE vi vi_where8(vi a, vi mask, vi value) { return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(a, mask), value); }
/* a in the lanes where x < limit, else b */
INLINE vi vi_if_less32(vi x, vi limit, vi a, vi b) {
    return _mm512_mask_mov_epi32(b, _mm512_cmplt_epi32_mask(x, limit), a);
}
INLINE vi vi_shlv32(vi a, vi n) { return _mm512_sllv_epi32(a, n); }

INLINE vf vf_load(const float *p) { return _mm512_load_ps(p); }
INLINE void vf_store(float *p, vf a) { _mm512_store_ps(p, a); }
INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf vf_of(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vf vf_bits(vi a) { return _mm512_castsi512_ps(a); }
INLINE vf vf_negate(vf a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
/* the half-precision number in the low 16 bits of each lane */
INLINE vf vf_of_half(vi a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }

#else

enum { LANES = 8 };
typedef __m256i vi;
typedef __m256 vf;

INLINE vi vi_load(const void *p) { return _mm256_load_si256(p); }
INLINE void vi_store(void *p, vi a) { _mm256_store_si256(p, a); }
INLINE vi vi_set8(int x) { return _mm256_set1_epi8((char)x); }
INLINE vi vi_set16(int x) { return _mm256_set1_epi16((short)x); }
INLINE vi vi_set32(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
INLINE vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
INLINE vi vi_add32(vi a, vi b) { return _mm256_add_epi32(a, b); }
INLINE vi vi_sub32(vi a, vi b) { return _mm256_sub_epi32(a, b); }
INLINE vi vi_sub8(vi a, vi b) { return _mm256_sub_epi8(a, b); }
INLINE vi vi_mul16(vi a, vi b) { return _mm256_mullo_epi16(a, b); }
INLINE vi vi_mul32(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
INLINE vi vi_madd16(vi a, vi b) { return _mm256_madd_epi16(a, b); }
#if defined(__AVXVNNI__)
#define HAS_DOT8
INLINE vi vi_dot8(vi sum, vi a, vi b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
INLINE vi vi_dot16(vi sum, vi a, vi b) { return _mm256_dpwssd_avx_epi32(sum, a, b); }
#else
INLINE vi vi_dot16(vi sum, vi a, vi b) { return vi_add32(sum, vi_madd16(a, b)); }
#endif
INLINE vi vi_shl32(vi a, int n) { return _mm256_slli_epi32(a, n); }
INLINE vi vi_shr32(vi a, int n) { return _mm256_srli_epi32(a, n); }
INLINE vi vi_sar32(vi a, int n) { return _mm256_srai_epi32(a, n); }
INLINE vi vi_sar16(vi a, int n) { return _mm256_srai_epi16(a, n); }
INLINE vi vi_shuffle8(vi table, vi index) { return _mm256_shuffle_epi8(table, index); }
INLINE vi vi_repeat128(__m128i x) { return _mm256_broadcastsi128_si256(x); }
INLINE vi vi_low32(vi a, vi b) { return _mm256_unpacklo_epi32(a, b); }
INLINE vi vi_high32(vi a, vi b) { return _mm256_unpackhi_epi32(a, b); }
INLINE vi vi_low64(vi a, vi b) { return _mm256_unpacklo_epi64(a, b); }
INLINE vi vi_high64(vi a, vi b) { return _mm256_unpackhi_epi64(a, b); }
INLINE vi vi_where8(vi a, vi mask, vi value) { /* mask has one bit in each byte */
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(a, mask), mask), value);
}
INLINE vi vi_if_less32(vi x, vi limit, vi a, vi b) { return _mm256_blendv_epi8(b, a, _mm256_cmpgt_epi32(limit, x)); }
INLINE vi vi_shlv32(vi a, vi n) { return _mm256_sllv_epi32(a, n); }

INLINE vf vf_load(const float *p) { return _mm256_load_ps(p); }
INLINE void vf_store(float *p, vf a) { _mm256_store_ps(p, a); }
INLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf vf_of(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE vf vf_bits(vi a) { return _mm256_castsi256_ps(a); }
INLINE vf vf_negate(vf a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
INLINE vf vf_of_half(vi a) {
    a = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
}

#endif

/* A register that is made here and now. Left to itself the compiler adds sums pairwise in the end, and has no registers
 * for that; and it loads twice what is used twice. */
INLINE void in_turn(vi *sum) { __asm__("" : "+v"(*sum)); }

/* LANES rows of weights, `stride` bytes apart, and the weights to tell of meanwhile, or NULL. */
struct rows {
    const uint8_t *first;
    int64_t stride;
    struct stream *next;
};

/* Row i after p. Addresses are formed where they are used: left to itself the compiler keeps one register per row,
 * and has too few. */
INLINE const uint8_t *row_at(const uint8_t *p, int64_t stride, int i) {
    const uint8_t *fourth = p + (int64_t)(i & ~3) * stride;
    __asm__("" : "+r"(fourth));
    return fourth + (i & 3) * stride;
}

INLINE __m128i load16(const void *p) { return _mm_loadu_si128((const __m128i *)p); }

/* sixteen bytes of rows i, i + 4, ... */
INLINE vi load_fourths(const uint8_t *p, int64_t stride, int i) {
#if defined(__AVX512F__)
    __m512i a = _mm512_castsi128_si512(load16(row_at(p, stride, i)));
    a = _mm512_inserti32x4(a, load16(row_at(p, stride, i + 4)), 1);
    a = _mm512_inserti32x4(a, load16(row_at(p, stride, i + 8)), 2);
    return _mm512_inserti32x4(a, load16(row_at(p, stride, i + 12)), 3);
#else
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(row_at(p, stride, i))),
                                   load16(row_at(p, stride, i + 4)), 1);
#endif
}

/* The four bytes at offset from each row. Not by a gather, which patched processors take one by one, nor by inserts,
 * which share a port with the transposition (the compiler would choose them, hence volatile), but by stores, which
 * have ports of their own. Give them time before loading. */
INLINE void copy_words(struct rows w, int64_t offset, uint32_t to[LANES]) {
    const uint8_t *p = w.first + offset;
    UNROLL for (int i = 0; i < LANES; i++) * (volatile uint32_t *)(to + i) = (uint32_t)load_i32(row_at(p, w.stride, i));
}

INLINE vi load_words(struct rows w, int64_t offset) {
    _Alignas(64) uint32_t words[LANES];
    copy_words(w, offset, words);
    return vi_load(words);
}

/* Sixteen bytes at offset from each row, transposed: t[j] holds bytes 4 j to 4 j + 3 of every row, a row a lane. */
INLINE void load_columns(struct rows w, int64_t offset, vi t[4]) {
    const uint8_t *p = w.first + offset;
    if (w.next) {
        UNROLL for (int i = 0; i < LANES / 4; i++) fetch_on(w.next, w.next->unpacking);
    }
    vi r0 = load_fourths(p, w.stride, 0), r1 = load_fourths(p, w.stride, 1);
    vi r2 = load_fourths(p, w.stride, 2), r3 = load_fourths(p, w.stride, 3);
    vi a = vi_low32(r0, r1), b = vi_low32(r2, r3), c = vi_high32(r0, r1), d = vi_high32(r2, r3);
    t[0] = vi_low64(a, b);
    t[1] = vi_high64(a, b);
    t[2] = vi_low64(c, d);
    t[3] = vi_high64(c, d);
}

#endif
