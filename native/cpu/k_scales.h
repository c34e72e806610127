/* The packed integer scales of Q3_K, Q4_K and Q5_K: six bits each in twelve bytes, with SSE. */
#ifndef K_SCALES_H
#define K_SCALES_H
#include <string.h>

#include "lanes.h"
#include "quant/formats.h"
#include "quant/half.h"

INLINE __m256i load_32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

INLINE __m128i subs_q3_k(const struct q3_k *s) {
    uint32_t a = load_u32(s->scales), b = load_u32(s->scales + 4), top = load_u32(s->scales + 8);
    const uint32_t four = 0x0f0f0f0f, two = 0x30303030;
    __m128i six = _mm_setr_epi32((int)((a & four) | (top << 4 & two)), (int)((b & four) | (top << 2 & two)),
                                 (int)((a >> 4 & four) | (top & two)), (int)((b >> 4 & four) | (top >> 2 & two)));
    return _mm_sub_epi8(six, _mm_set1_epi8(32));
}

/* Eight scales and then eight minima of six bits, from twelve bytes: four of each kind, then the low nibbles of the
 * other four, whose upper two bits lie above the first ones. */
INLINE __m128i scales_and_minima(const uint8_t *packed) {
#ifdef __AVX512VBMI__
    const __m128i first = _mm_setr_epi8(0, 8, 16, 24, 2, 10, 18, 26, 32, 40, 48, 56, 34, 42, 50, 58);
    const __m128i rest = _mm_setr_epi8(0, 0, 0, 0, 0, 8, 16, 24, 0, 0, 0, 0, 4, 12, 20, 28);
    const __m128i whole_or_top = _mm_setr_epi32(0x3f3f3f3f, 0x30303030, 0x3f3f3f3f, 0x30303030);
    const __m128i nibbles = _mm_setr_epi32(0, 0x0f0f0f0f, 0, 0x0f0f0f0f);
    int64_t eight;
    memcpy(&eight, packed, sizeof eight);
    __m128i a = _mm_multishift_epi64_epi8(first, _mm_set1_epi64x(eight));
    __m128i b = _mm_multishift_epi64_epi8(rest, _mm_set1_epi64x(load_u32(packed + 8)));
    return _mm_or_si128(_mm_and_si128(a, whole_or_top), _mm_and_si128(b, nibbles));
#else
    const __m128i amounts = _mm_setr_epi32(0, 2, 0, 2), nibble = _mm_setr_epi32(0, 0, 0, 4);
    const __m128i whole_or_top = _mm_setr_epi32(0x3f3f3f3f, 0x30303030, 0x3f3f3f3f, 0x30303030);
    const __m128i nibbles = _mm_setr_epi32(0, 0x0f0f0f0f, 0, 0x0f0f0f0f);
    int64_t eight;
    memcpy(&eight, packed, sizeof eight);
    __m128i first = _mm_cvtsi64_si128(eight), rest = _mm_set1_epi32((int)load_u32(packed + 8));
    first = _mm_and_si128(_mm_srlv_epi32(_mm_unpacklo_epi32(first, first), amounts), whole_or_top);
    return _mm_or_si128(first, _mm_and_si128(_mm_srlv_epi32(rest, nibble), nibbles));
#endif
}

#endif
