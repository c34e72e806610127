/* Rows of weights as bf16, columns in their order: what a tile product takes. The values are decode_row()'s, rounded to
 * the nearest bf16, ties to even, denormals to zero and what is larger than any bf16 to infinity; half precision and
 * float tensors have a second part, what the first one leaves. Needs AVX-512 with VL, BW, VBMI and BF16. Reads only
 * bytes of the blocks asked for.
 *
 * This is what bounds products of few tokens, so it counts instructions: sixteen values of a block are worked out as a
 * table and chosen by the codes' bytes; products with scales are exact, so that one fma rounds like decode_row(). */
#ifndef BF16_ROWS_H
#define BF16_ROWS_H
#include "row_codes.h"

/* Blocks [first, first + count) of 32 columns of some rows; types of 256 columns: first and count are multiples of 8.
 * Rows come to lie BF16_PITCH apart. low: only types of two parts write it. */
typedef void bf16_rows_fn(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high,
                          uint16_t *low);
enum { BF16_COLUMNS = 256, BF16_PITCH = BF16_COLUMNS + 32 /* so that the rows of a tile do not share a cache set */ };

/* ---- 32 columns ---- */

INLINE vi pack_bf16(vf first, vf second) { return (vi)_mm512_cvtne2ps_pbh(second, first); }

INLINE vf float_codes(__m128i codes) { return vf_of(_mm512_cvtepi8_epi32(codes)); }

/* One half-precision number in all lanes. */
INLINE vf halves(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)load_u16(p))); }

/* 32 columns of codes, each sixteen with a scale of their own. */
INLINE vi scaled(__m128i first, __m128i second, vf d, vf e) {
    return pack_bf16(vf_mul(float_codes(first), d), vf_mul(float_codes(second), e));
}
/* ---- types whose own block is 32 columns ---- */

/* Each of 32 bytes twice. */
INLINE vi doubled(__m256i bytes) {
    const vi each = _mm512_setr_epi64(0x0303020201010000, 0x0707060605050404, 0x0b0b0a0a09090808, 0x0f0f0e0e0d0d0c0c,
                                      0x1313121211111010, 0x1717161615151414, 0x1b1b1a1a19191818, 0x1f1f1e1e1d1d1c1c);
    return _mm512_permutexvar_epi8(each, _mm512_castsi256_si512(bytes));
}

/* Bytes of two tables of sixteen bf16, 32 bytes each, that low and high nibbles choose; which: FIRST, SECOND. */
enum { FIRST = 0x0100, SECOND = 0x2120 };
INLINE vi chosen_bytes(vi shifted, vi which, vi tables) {
    const int choose_and_or = 0xea;
    return _mm512_permutexvar_epi8(_mm512_ternarylogic_epi32(shifted, vi_set16(0x1e1e), which, choose_and_or), tables);
}
INLINE vi chosen_low(vi twice, vi which, vi tables) { return chosen_bytes(_mm512_slli_epi16(twice, 1), which, tables); }
INLINE vi chosen_high(vi twice, vi which, vi tables) {
    return chosen_bytes(_mm512_srli_epi16(twice, 3), which, tables);
}

INLINE void store_half(uint16_t *to, vi x, int half) {
    _mm256_storeu_si256((__m256i *)to, half ? _mm512_extracti64x4_epi64(x, 1) : _mm512_castsi512_si256(x));
}

/* Two blocks of 32 columns: sixteen bytes of nibbles each, the first half of a block in the low ones. */
INLINE void choose_two(__m256i bytes, vf first, vf second, uint16_t *out) {
    const vi which = _mm512_inserti64x4(vi_set16(FIRST), _mm256_set1_epi16(SECOND), 1);
    vi twice = doubled(bytes), tables = pack_bf16(first, second);
    vi low = chosen_low(twice, which, tables), high = chosen_high(twice, which, tables);
    UNROLL for (int i = 0; i < 2; i++) {
        store_half(out + 32 * i, low, i);
        store_half(out + 32 * i + 16, high, i);
    }
}

/* Five bits choose among 32. */
INLINE vi chosen_5(__m256i index, vf first, vf second) {
    return _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(index), pack_bf16(first, second));
}

/* from, from + 1, ... as floats */
INLINE vf numbers(int from) {
    return vf_of(vi_add32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), vi_set32(from)));
}
INLINE vf table_of(const int8_t *codes) { return float_codes(load16(codes)); }

#define SMALL_ROWS(type, block, value)                                                                               \
    INLINE void bf16_##type(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high, \
                            uint16_t *low) {                                                                         \
        (void)low;                                                                                                   \
        for (int r = 0; r < rows; r++, w += row_bytes, high += BF16_PITCH) {                                         \
            const struct block *s = (const struct block *)w + first;                                                 \
            for (int b = 0; b < count; b++, s++) vi_store(high + 32 * b, value);                                     \
        }                                                                                                            \
    }
SMALL_ROWS(Q5_0, q5_0,
           chosen_5(five_bits(s->qs, s->qh), vf_mul(numbers(-16), halves(s->d)), vf_mul(numbers(0), halves(s->d))))
SMALL_ROWS(Q5_1, q5_1,
           chosen_5(five_bits(s->qs, s->qh), vf_fma(numbers(0), halves(s->d), halves(s->m)),
                    vf_fma(numbers(16), halves(s->d), halves(s->m))))
SMALL_ROWS(Q8_0, q8_0, scaled(load16(s->qs), load16(s->qs + 16), halves(s->d), halves(s->d)))

/* Two blocks at a time. The last of an odd number is its own neighbour, and its columns come twice. */
#define NIBBLE_ROWS(type, block, value)                                                                              \
    INLINE vf values_##type(const struct block *s) { return value; }                                                 \
    INLINE void bf16_##type(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high, \
                            uint16_t *low) {                                                                         \
        (void)low;                                                                                                   \
        for (int r = 0; r < rows; r++, w += row_bytes, high += BF16_PITCH) {                                         \
            const struct block *s = (const struct block *)w + first;                                                 \
            for (int b = 0; b < count; b += 2, s += 2) {                                                             \
                const struct block *next = b + 1 < count ? s + 1 : s;                                                \
                __m256i bytes = _mm256_set_m128i(load16(next->qs), load16(s->qs));                                   \
                choose_two(bytes, values_##type(s), values_##type(next), high + 32 * b);                             \
            }                                                                                                        \
        }                                                                                                            \
    }
NIBBLE_ROWS(Q4_0, q4_0, vf_mul(numbers(-8), halves(s->d)))
NIBBLE_ROWS(Q4_1, q4_1, vf_fma(numbers(0), halves(s->d), halves(s->m)))
NIBBLE_ROWS(IQ4_NL, iq4_nl, vf_mul(table_of(iq4_codes), halves(s->d)))
NIBBLE_ROWS(MXFP4, mxfp4, vf_mul(table_of(mxfp4_codes), vf_set(e8m0_half(s->e))))

/* ---- types whose own block is 256 columns ---- */

/* Scales, and minima where the type has them, of each sixteen columns. */
struct scales { float d[16], m[16]; };

/* Block j's codes, each sixteen with scales of their own. */
INLINE vi scaled_codes(__m256i codes, const struct scales *a, int j) {
    return scaled(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1), vf_set(a->d[2 * j]),
                  vf_set(a->d[2 * j + 1]));
}
INLINE vi scaled_from(__m256i codes, const struct scales *a, int j) {
    vf first = float_codes(_mm256_castsi256_si128(codes)), second = float_codes(_mm256_extracti128_si256(codes, 1));
    return pack_bf16(_mm512_fmsub_ps(first, vf_set(a->d[2 * j]), vf_set(a->m[2 * j])),
                     _mm512_fmsub_ps(second, vf_set(a->d[2 * j + 1]), vf_set(a->m[2 * j + 1])));
}

/* Values of block j where each stands for 32 columns: eight scales, and eight minima behind them. */
INLINE vf from_scales(vf codes, const struct scales *a, int j) {
    return _mm512_fmsub_ps(codes, vf_set(a->d[j]), vf_set(a->d[8 + j]));
}

INLINE void scales_of(__m128i integers, float d, float *out) {
    _mm512_storeu_ps(out, vf_mul(float_codes(integers), vf_set(d)));
}

/* `put` stores 64 columns, those from 64 i on. */
#define SUPER_ROWS(type, block, set_scales, put)                                                                     \
    INLINE void bf16_##type(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high, \
                            uint16_t *low) {                                                                         \
        (void)low;                                                                                                   \
        for (int r = 0; r < rows; r++, w += row_bytes, high += BF16_PITCH) {                                         \
            const struct block *s = (const struct block *)w + first / 8;                                             \
            for (int b = 0; b < count; b += 8, s++) {                                                                \
                struct scales a;                                                                                     \
                set_scales(s, &a);                                                                                   \
                __asm__("" : "+m"(a)); /* or GCC makes shuffles, which are scarce, of loads */                       \
                UNROLL for (int i = 0; i < 4; i++) put(s, &a, i, high + 32 * b + 64 * i);                            \
            }                                                                                                        \
        }                                                                                                            \
    }

INLINE void scales_q2_k(const struct q2_k *s, struct scales *a) {
    scales_of(subs_q2_k(s), half(s->d), a->d);
    scales_of(minima_q2_k(s), half(s->dmin), a->m);
}
INLINE void put_q2_k(const struct q2_k *s, const struct scales *a, int i, uint16_t *out) {
    vi_store(out, scaled_from(codes_q2_k(s, 2 * i), a, 2 * i));
    vi_store(out + 32, scaled_from(codes_q2_k(s, 2 * i + 1), a, 2 * i + 1));
}

INLINE void scales_q3_k(const struct q3_k *s, struct scales *a) { scales_of(subs_q3_k(s), half(s->d), a->d); }
INLINE void put_q3_k(const struct q3_k *s, const struct scales *a, int i, uint16_t *out) {
    vi_store(out, scaled_codes(codes_q3_k(s, 2 * i), a, 2 * i));
    vi_store(out + 32, scaled_codes(codes_q3_k(s, 2 * i + 1), a, 2 * i + 1));
}

/* Of 32 columns each: eight scales, and eight minima behind them. */
INLINE void scales_k(const uint8_t *d_and_dmin, const uint8_t *packed, struct scales *a) {
    const __m256i eight_each =
        _mm256_setr_epi64x(0x0100010001000100, 0x0100010001000100, 0x0302030203020302, 0x0302030203020302);
    int32_t both;
    memcpy(&both, d_and_dmin, 4);
    vf factors = _mm512_cvtph_ps(_mm256_shuffle_epi8(_mm256_set1_epi32(both), eight_each));
    _mm512_storeu_ps(a->d, vf_mul(float_codes(scales_and_minima(packed)), factors));
}
INLINE void scales_q4_k(const struct q4_k *s, struct scales *a) { scales_k(s->d, s->scales, a); }
INLINE void scales_q5_k(const struct q5_k *s, struct scales *a) { scales_k(s->d, s->scales, a); }

/* Nibbles of 32 bytes choose from the table of a block, and from that of the one after it. */
INLINE void put_q4_k(const struct q4_k *s, const struct scales *a, int i, uint16_t *out) {
    vi twice = doubled(load_32(s->qs + 32 * i));
    vi tables = pack_bf16(from_scales(numbers(0), a, 2 * i), from_scales(numbers(0), a, 2 * i + 1));
    vi_store(out, chosen_low(twice, vi_set16(FIRST), tables));
    vi_store(out + 32, chosen_high(twice, vi_set16(SECOND), tables));
}
INLINE void put_q5_k(const struct q5_k *s, const struct scales *a, int i, uint16_t *out) {
    UNROLL for (int j = 2 * i; j < 2 * i + 2; j++, out += 32)
        vi_store(out, chosen_5(codes_q5_k(s, j), from_scales(numbers(0), a, j), from_scales(numbers(16), a, j)));
}

/* m: 96 times the scale, see put_q6_k(). */
INLINE void scales_q6_k(const struct q6_k *s, struct scales *a) {
    vf d = vf_mul(float_codes(load16(s->scales)), vf_set(half(s->d)));
    _mm512_storeu_ps(a->d, d);
    _mm512_storeu_ps(a->m, vf_mul(d, vf_set(96)));
}

/* Six bits in the upper mantissa of 64 make the float 64 + code; 96 of them too many are taken back by the same fma. */
INLINE void put_q6_k(const struct q6_k *s, const struct scales *a, int i, uint16_t *out) {
    /* lane l: columns l, 16 + l, 32 + l and 48 + l, a byte each */
    const vi order = _mm512_setr_epi32(0x30201000, 0x31211101, 0x32221202, 0x33231303, 0x34241404, 0x35251505,
                                       0x36261606, 0x37271707, 0x38281808, 0x39291909, 0x3a2a1a0a, 0x3b2b1b0b,
                                       0x3c2c1c0c, 0x3d2d1d0d, 0x3e2e1e0e, 0x3f2f1f0f);
    const vi mantissa = vi_set32(0x7e0000), sixty_four = vi_set32(0x42800000);
    vi codes = _mm512_permutexvar_epi8(order, wide_q6_k(s, i));
    vf v[4];
    UNROLL for (int j = 0; j < 4; j++) {
        vi up = j < 3 ? vi_shl32(codes, 17 - 8 * j) : vi_shr32(codes, 7);
        vf number = vf_bits(_mm512_ternarylogic_epi32(up, mantissa, sixty_four, 0xea));
        v[j] = _mm512_fmsub_ps(number, vf_set(a->d[4 * i + j]), vf_set(a->m[4 * i + j]));
    }
    vi_store(out, pack_bf16(v[0], v[1]));
    vi_store(out + 32, pack_bf16(v[2], v[3]));
}
SUPER_ROWS(Q2_K, q2_k, scales_q2_k, put_q2_k)
SUPER_ROWS(Q3_K, q3_k, scales_q3_k, put_q3_k)
SUPER_ROWS(Q4_K, q4_k, scales_q4_k, put_q4_k)
SUPER_ROWS(Q5_K, q5_k, scales_q5_k, put_q5_k)
SUPER_ROWS(Q6_K, q6_k, scales_q6_k, put_q6_k)

INLINE void scales_iq4_xs(const struct iq4_xs *s, struct scales *a) { scales_of(subs_iq4_xs(s), half(s->d), a->d); }
INLINE void put_iq4_xs(const struct iq4_xs *s, const struct scales *a, int i, uint16_t *out) {
    vf codes = table_of(iq4_codes);
    choose_two(load_32(s->qs + 32 * i), vf_mul(codes, vf_set(a->d[2 * i])), vf_mul(codes, vf_set(a->d[2 * i + 1])),
               out);
}
SUPER_ROWS(IQ4_XS, iq4_xs, scales_iq4_xs, put_iq4_xs)

/* ---- floats ---- */

INLINE void bf16_BF16(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high,
                      uint16_t *low) {
    (void)low;
    for (int r = 0; r < rows; r++) memcpy(high + r * BF16_PITCH, w + r * row_bytes + 64 * first, 64 * (size_t)count);
}

/* Values as a bf16 and what it leaves, as another. */
INLINE void split_bf16(vf first, vf second, void *high, void *low) {
    vi top = pack_bf16(first, second);
    vf a = vf_bits(vi_shl32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(top)), 16));
    vf b = vf_bits(vi_shl32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(top, 1)), 16));
    vi_store(high, top);
    vi_store(low, pack_bf16(_mm512_sub_ps(first, a), _mm512_sub_ps(second, b)));
}

INLINE void bf16_F16(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high,
                     uint16_t *low) {
    for (int r = 0; r < rows; r++, high += BF16_PITCH, low += BF16_PITCH) {
        const uint8_t *p = w + r * row_bytes + 64 * first;
        for (int b = 0; b < count; b++, p += 64)
            split_bf16(_mm512_cvtph_ps(load_32(p)), _mm512_cvtph_ps(load_32(p + 32)), high + 32 * b, low + 32 * b);
    }
}

#endif
