/* What one_token.h asks of AVX2. Columns stay in their order, 32 in a register. */
#ifndef ONE_TOKEN_AVX2_H
#define ONE_TOKEN_AVX2_H
#include "k_scales.h"

/* Lane b: the sum of register b's lanes. */
INLINE vi sum_registers(const vi in[BATCH]) {
    vi low = sum_quarters(in), high = sum_quarters(in + 4);
    return vi_add32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

INLINE const int8_t *columns(const int8_t *q, int block) { return q + 32 * block; }

/* ---- a scale per 256 columns ---- */

/* What a batch of a row's supers leaves. Where there are minima, heads_4_5() makes d and subs. */
struct batch {
    vi sums[BATCH];         /* by lanes */
    uint32_t scales[BATCH]; /* halves that scale them; or d: the same as floats */
    vf d;
    vi subs[4];             /* [i] sub-scales of supers 2 i and 2 i + 1, eight bytes each, twice */
};

/* The scaled sums of a batch. */
INLINE void scale_batch(bool min, const struct batch *in, float sums[BATCH], float mins[BATCH]) {
    (void)mins;
    vf d = min ? in->d : vf_of_half(eight_words(in->scales));
    _mm256_storeu_ps(sums, vf_mul(vf_of(sum_registers(in->sums)), d));
}

INLINE bool arrange_supers(int32_t type, const int8_t *q, int32_t k, int8_t *out) {
    (void)type, (void)q, (void)k, (void)out;
    return false;
}

/* isum with 32 codes times q added, whose halves have the scales that `spread` takes from words. */
INLINE vi add_scaled(vi isum, vi codes, const int8_t *q, vi words, vi spread) {
    vi pairs = _mm256_maddubs_epi16(codes, load_32(q));
    isum = vi_dot16(isum, pairs, _mm256_shuffle_epi8(words, spread));
    in_turn(&isum);
    return isum;
}
INLINE vi word_twice(int low, int high) {
    vi both = vi_set16(2 * low | (2 * low + 1) << 8);
    return low == high ? both
                       : _mm256_inserti128_si256(both, _mm_set1_epi16((short)(2 * high | (2 * high + 1) << 8)), 1);
}
/* A byte as words. */
INLINE vi byte_wide(int at) { return vi_set16((int16_t)(0x8000 | at)); }

/* The first sixteen bytes of `count` places, or zeros in the place of those that are not there. */
INLINE void load_heads(const void *p, int64_t stride, int count, vi head[4]) {
    uint8_t staged[BATCH][16] = {{0}};
    if (count < BATCH) {
        for (int i = 0; i < count; i++) memcpy(staged[i], (const uint8_t *)p + i * stride, 16);
        p = staged, stride = 16;
    }
    load_columns((struct rows){p, stride, NULL}, 0, head);
}

/* The heads of a batch of Q4_K or Q5_K, a super a lane: one by one they take as long as all else. */
INLINE void heads_4_5(const uint8_t *p, int bytes, int count, const int16_t *q_sums, struct batch *out,
                      float mins[BATCH]) {
    const vi two_words = vi_repeat128(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    vi head[4], sums[4], scale[2], min[2], msum = vi_set32(0);
    load_heads(p, bytes, count, head);
    load_heads(q_sums + 16, SUPER_SUMS * (int64_t)sizeof *q_sums, count, sums);
    k_scales(head, scale, min);
    UNROLL for (int i = 0; i < 4; i++) {
        vi two = vi_shr32(min[i / 2], 16 * (i % 2));
        msum = vi_dot16(msum, vi_shuffle8(two, two_words), sums[i]);
    }
    _mm256_storeu_ps(mins, vf_mul(vf_of(msum), vf_negate(vf_of_half(vi_shr32(head[0], 16)))));
    out->d = vf_of_half(head[0]);
    vi even = vi_low32(scale[0], scale[1]), odd = vi_high32(scale[0], scale[1]); /* supers 0 1 4 5, and 2 3 6 7 */
    out->subs[0] = _mm256_permute2x128_si256(even, even, 0x00);
    out->subs[1] = _mm256_permute2x128_si256(odd, odd, 0x00);
    out->subs[2] = _mm256_permute2x128_si256(even, even, 0x11);
    out->subs[3] = _mm256_permute2x128_si256(odd, odd, 0x11);
}

/* Q4_K, or Q5_K, which has a fifth bit of every code before its nibbles. */
INLINE void super_4_5(bool five, const uint8_t *p, const int8_t *q, const int16_t *sums, struct batch *out, int at) {
    (void)sums;
    vi isum = vi_set32(0), more = isum, fifth = isum, scales = out->subs[at / 2];
    if (five) fifth = load_32(p + 16);
    UNROLL for (int i = 0; i < 4; i++) {
        vi bytes = load_32(p + (five ? 48 : 16) + 32 * i);
        in_turn(&bytes); /* one load for both halves */
        vi low = low_nibbles(bytes), high = high_nibbles(bytes);
        if (five) {
            low = vi_or(low, move_bits(fifth, 2 * i, 4, 16));
            high = vi_or(high, move_bits(fifth, 2 * i + 1, 4, 16));
        }
        isum = add_scaled(isum, low, columns(q, 2 * i), scales, byte_wide(8 * (at % 2) + 2 * i));
        more = add_scaled(more, high, columns(q, 2 * i + 1), scales, byte_wide(8 * (at % 2) + 2 * i + 1));
    }
    out->sums[at] = vi_add32(isum, more);
}

/* Where each sixteen columns have a scale of their own: half h of the columns, 32 of them from 32 j on. */
INLINE vi halves_of(vi words, int h) {
    return h ? _mm256_permute4x64_epi64(words, 0xee) : _mm256_permute4x64_epi64(words, 0x44);
}

INLINE void super_Q6_K(const uint8_t *p, const int8_t *q, const int16_t *sums, struct batch *out, int at) {
    vi words = _mm256_cvtepi8_epi16(load16(p + 192)), offset = vi_madd16(words, load_32(sums)); /* 32 too large */
    vi isum = vi_sub32(vi_set32(0), vi_shl32(offset, 5)), more = vi_set32(0);
    UNROLL for (int h = 0; h < 2; h++) {
        vi scales = halves_of(words, h), top = load_32(p + 128 + 32 * h);
        UNROLL for (int i = 0; i < 2; i++) {
            vi bytes = load_32(p + 64 * h + 32 * i);
            vi low = vi_or(low_nibbles(bytes), move_bits(top, 2 * i, 4, 48));
            vi high = vi_or(high_nibbles(bytes), move_bits(top, 2 * i + 4, 4, 48));
            isum = add_scaled(isum, low, columns(q, 4 * h + i), scales, word_twice(2 * i, 2 * i + 1));
            more = add_scaled(more, high, columns(q, 4 * h + i + 2), scales, word_twice(2 * i + 4, 2 * i + 5));
        }
    }
    out->sums[at] = vi_add32(isum, more);
    out->scales[at] = load_u16(p + 208);
}

INLINE void super_Q3_K(const uint8_t *p, const int8_t *q, const int16_t *sums, struct batch *out, int at) {
    const struct q3_k *s = (const void *)p;
    vi words = _mm256_cvtepi8_epi16(subs_q3_k(s)), offset = vi_madd16(words, load_32(sums)); /* 4 too large */
    vi isum = vi_sub32(vi_set32(0), vi_shl32(offset, 2)), top = load_32(s->hmask);
    UNROLL for (int h = 0; h < 2; h++) {
        vi scales = halves_of(words, h), bytes = load_32(s->qs + 32 * h);
        UNROLL for (int j = 0; j < 4; j++) {
            vi codes = vi_or(move_bits(bytes, 2 * j, 0, 3), move_bits(top, 4 * h + j, 2, 4));
            isum = add_scaled(isum, codes, columns(q, 4 * h + j), scales, word_twice(2 * j, 2 * j + 1));
        }
    }
    out->sums[at] = isum;
    out->scales[at] = load_u16(s->d);
}

/* ---- a scale per 32 columns ---- */

INLINE bool arrange_blocks(int32_t type, const int8_t *q, int32_t k, int8_t *out) {
    (void)type, (void)q, (void)k, (void)out;
    return false;
}

INLINE vi nibbles(const uint8_t *p) {
    __m128i bytes = load16(p);
    return low_nibbles(_mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1));
}

/* 16 in the bytes whose bits are set. */
INLINE vi sixteen_where(uint32_t bits) {
    const vi spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3,
                                       3, 3, 3, 3, 3);
    const vi each = _mm256_set1_epi64x((long long)0x8040201008040201);
    return vi_where8(vi_shuffle8(vi_set32((int32_t)bits), spread), each, vi_set8(16));
}

/* The codes of a block, as large as the type's offset says. */
INLINE vi codes_32(int32_t type, const uint8_t *block) {
    switch (type) {
    case LL_Q4_0: return nibbles(block + 2);
    case LL_Q5_0: return vi_or(nibbles(block + 6), sixteen_where(load_u32(block + 2)));
    case LL_Q8_0: return _mm256_xor_si256(load_32(block + 2), vi_set8(WIDE_OFFSET));
    default: return vi_shuffle8(code_table(iq4_codes, WIDE_OFFSET), nibbles(block + 2));
    }
}

/* Sums of four columns of a block each. */
INLINE vi dot_32(int32_t type, const uint8_t *block, const int8_t *q) {
    vi codes = codes_32(type, block), x = load_32(q);
#if defined(HAS_DOT8)
    return vi_dot8(vi_set32(0), codes, x);
#else
    if (type == LL_Q8_0 || type == LL_IQ4_NL) { /* signed */
        x = _mm256_sign_epi8(x, codes);
        codes = _mm256_abs_epi8(codes);
    }
    return vi_madd16(_mm256_maddubs_epi16(codes, x), vi_set16(1));
#endif
}

/* The scaled sums of a row's blocks. Scales are gathered before, so that no load waits for the small stores. */
INLINE void row_of_blocks(int32_t type, int32_t bytes, const uint8_t *row, const int8_t *q, const struct activations *a,
                          const union term *terms, uint16_t *scales, float *out) {
    int32_t blocks = a->k / 32;
    vi sums[BATCH];
    for (int32_t b = 0; b < blocks; b++) memcpy(&scales[b], row + b * bytes, sizeof *scales);
    for (int32_t b = 0; b < blocks; b += 8, row += 8 * bytes) {
        prefetch(row, a->ahead, 8 * bytes);
        UNROLL for (int i = 0; i < BATCH; i++) sums[i] = dot_32(type, row + i * bytes, columns(q, b + i));
        vi isum = vi_add32(sum_registers(sums), load_32(terms + b));
        _mm256_storeu_ps(out + b, vf_mul(vf_of(isum), _mm256_cvtph_ps(load16(scales + b))));
    }
}

#endif
