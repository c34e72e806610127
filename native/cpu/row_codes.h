/* Codes and integer scales of a row's blocks, columns in their order: quant/formats.h's unpack_block() with AVX-512.
 * Codes are signed bytes of 32 columns, scales and minima bytes of sixteen columns each, or of 32 where a type has
 * eight. Reads only the block's own bytes. */
#ifndef ROW_CODES_H
#define ROW_CODES_H
#include <string.h>

#include "k_scales.h"
#include "lanes.h"
#include "quant/formats.h"
#include "quant/half.h"

INLINE float half(const uint8_t *p) { return _cvtsh_ss(load_u16(p)); }
INLINE __m256i bits_of(__m256i x, int from, int mask) {
    return _mm256_and_si256(_mm256_srli_epi16(x, from), _mm256_set1_epi8((char)mask));
}
INLINE __m256i minus(__m256i codes, int offset) { return _mm256_sub_epi8(codes, _mm256_set1_epi8((char)offset)); }
INLINE __m256i looked_up(const int8_t *table, __m256i index) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load16(table)), index);
}

/* Sixteen bytes hold 32 codes: the first half of the columns in the low nibbles, the second in the high ones. */
INLINE __m256i nibbles(const void *p) {
    __m128i b = load16(p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(b, 4), b), _mm256_set1_epi8(15));
}
/* 16 where a bit is set: of 32 bits, or bit j of each of 32 bytes. */
INLINE __m256i sixteen_where(__mmask32 bits) { return _mm256_maskz_mov_epi8(bits, _mm256_set1_epi8(16)); }
INLINE __mmask32 bit_of_bytes(const void *p, int j) {
    return _mm256_test_epi8_mask(load_32(p), _mm256_set1_epi8((char)(1 << j)));
}
INLINE __m256i five_bits(const void *qs, const uint8_t *high) {
    return _mm256_or_si256(nibbles(qs), sixteen_where(load_u32(high)));
}

/* ---- types whose own block is 32 columns ---- */

INLINE __m256i codes_q4_0(const struct q4_0 *s) { return minus(nibbles(s->qs), 8); }
INLINE __m256i codes_q4_1(const struct q4_1 *s) { return nibbles(s->qs); }
INLINE __m256i codes_q5_0(const struct q5_0 *s) { return minus(five_bits(s->qs, s->qh), 16); }
INLINE __m256i codes_q5_1(const struct q5_1 *s) { return five_bits(s->qs, s->qh); }
INLINE __m256i codes_q8_0(const struct q8_0 *s) { return load_32(s->qs); }
INLINE __m256i codes_iq4_nl(const struct iq4_nl *s) { return looked_up(iq4_codes, nibbles(s->qs)); }
INLINE __m256i codes_mxfp4(const struct mxfp4 *s) { return looked_up(mxfp4_codes, nibbles(s->qs)); }

/* ---- types whose own block is 256 columns: codes of block j of 32, j known when this is compiled ---- */

INLINE __m256i codes_q2_k(const struct q2_k *s, int j) {
    return bits_of(load_32(s->qs + 32 * (j / 4)), 2 * (j % 4), 3);
}
INLINE __m128i subs_q2_k(const struct q2_k *s) { return _mm_and_si128(load16(s->scales), _mm_set1_epi8(15)); }
INLINE __m128i minima_q2_k(const struct q2_k *s) {
    return _mm_and_si128(_mm_srli_epi16(load16(s->scales), 4), _mm_set1_epi8(15));
}

INLINE __m256i codes_q3_k(const struct q3_k *s, int j) {
    __m256i low = bits_of(load_32(s->qs + 32 * (j / 4)), 2 * (j % 4), 3);
    return _mm256_mask_sub_epi8(low, ~bit_of_bytes(s->hmask, j), low, _mm256_set1_epi8(4));
}
INLINE __m256i codes_q4_k(const uint8_t *qs, int j) { return bits_of(load_32(qs + 32 * (j / 2)), 4 * (j % 2), 15); }
INLINE __m256i codes_q5_k(const struct q5_k *s, int j) {
    return _mm256_or_si256(codes_q4_k(s->qs, j), sixteen_where(bit_of_bytes(s->qh, j)));
}

INLINE __m256i codes_q6_k(const struct q6_k *s, int j) {
    __m256i low = bits_of(load_32(s->ql + 64 * (j / 4) + 32 * (j % 2)), 4 * (j % 4 / 2), 15);
    __m256i high = bits_of(load_32(s->qh + 32 * (j / 4)), 2 * (j % 4), 3);
    return minus(_mm256_or_si256(low, _mm256_slli_epi16(high, 4)), 32);
}

INLINE __m128i subs_iq4_xs(const struct iq4_xs *s) {
    const __m128i four = _mm_set1_epi8(15), shift = _mm_setr_epi16(0, 2, 4, 6, 8, 10, 12, 14);
    __m128i packed = _mm_cvtsi32_si128((int)load_u32(s->scales_l));
    __m128i low = _mm_unpacklo_epi8(_mm_and_si128(packed, four), _mm_and_si128(_mm_srli_epi16(packed, 4), four));
    __m128i top = _mm_srlv_epi16(_mm_set1_epi16((short)load_u16(s->scales_h)), shift);
    top = _mm_slli_epi16(_mm_cvtepi16_epi8(_mm_and_si128(top, _mm_set1_epi16(3))), 4);
    return _mm_move_epi64(_mm_sub_epi8(_mm_or_si128(low, top), _mm_set1_epi8(32)));
}

/* ---- the same types: 64 columns' codes from 64 i on, unsigned: larger by 4 (Q3_K), 32 (Q6_K) or 128 (IQ4_XS) ---- */

INLINE vi twice_32(const void *p) { return _mm512_broadcast_i64x4(load_32(p)); }
INLINE vi shifted(vi x, int first, int second) {
    return _mm512_srlv_epi16(x, _mm512_inserti64x4(vi_set16(first), _mm256_set1_epi16((short)second), 1));
}
INLINE vi where_bits(vi bytes, int first, int second, int value) {
    vi bits = _mm512_inserti64x4(vi_set8(1 << first), _mm256_set1_epi8((char)(1 << second)), 1);
    return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(bytes, bits), vi_set8(value));
}
INLINE vi wide_q2_k(const struct q2_k *s, int i) {
    return vi_and(shifted(twice_32(s->qs + 32 * (i / 2)), 4 * (i % 2), 4 * (i % 2) + 2), vi_set8(3));
}
INLINE vi wide_q3_k(const struct q3_k *s, int i) {
    vi low = vi_and(shifted(twice_32(s->qs + 32 * (i / 2)), 4 * (i % 2), 4 * (i % 2) + 2), vi_set8(3));
    return vi_or(low, where_bits(twice_32(s->hmask), 2 * i, 2 * i + 1, 4));
}
INLINE vi wide_q5_k(const struct q5_k *s, int i) {
    vi low = vi_and(shifted(twice_32(s->qs + 32 * i), 0, 4), vi_set8(15));
    return vi_or(low, where_bits(twice_32(s->qh), 2 * i, 2 * i + 1, 16));
}
INLINE vi wide_q6_k(const struct q6_k *s, int i) {
    vi low = _mm512_loadu_si512(s->ql + 64 * (i / 2)), high = twice_32(s->qh + 32 * (i / 2));
    const vi up = _mm512_inserti64x4(vi_set16(4), _mm256_set1_epi16(2), 1);
    low = vi_and(i % 2 ? _mm512_srli_epi16(low, 4) : low, vi_set8(15));
    high = i % 2 ? shifted(high, 0, 2) : _mm512_sllv_epi16(high, up);
    return vi_or(low, vi_and(high, vi_set8(0x30)));
}
INLINE vi wide_iq4_xs(const struct iq4_xs *s, int i) {
    const vi order = _mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3);
    const vi four =
        _mm512_setr_epi64(0, 0, 0x0004000400040004, 0x0004000400040004, 0, 0, 0x0004000400040004, 0x0004000400040004);
    vi bytes = _mm512_permutexvar_epi64(order, _mm512_castsi256_si512(load_32(s->qs + 32 * i)));
    vi table = vi_sub8(vi_repeat128(load16(iq4_codes)), vi_set8(-128));
    return vi_shuffle8(table, vi_and(_mm512_srlv_epi16(bytes, four), vi_set8(15)));
}

#endif
