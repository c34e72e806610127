/* Rows of weights as bf16, columns in their order: what a tile product takes. The values are decode_row()'s, rounded to
 * the nearest bf16, ties to even, denormals to zero and what is larger than any bf16 to infinity; half precision and
 * float tensors have a second part, what the first one leaves. Needs AVX-512 with VL, BW and BF16. Reads only bytes of
 * the blocks asked for. */
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

/* Four bits choose among sixteen values, given twice, so that the fifth bit of an index does not matter. */
INLINE vi chosen(const void *qs, vf values) {
    const vi shift = _mm512_inserti64x4(vi_set32(0), _mm256_set1_epi16(4), 1);
    __m256i twice = _mm256_broadcastsi128_si256(load16(qs));
    vi index = _mm512_srlv_epi16(_mm512_cvtepu8_epi16(twice), shift);
    return _mm512_permutexvar_epi16(index, pack_bf16(values, values));
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
INLINE vf times_plus(vf codes, vf d, vf m) { return _mm512_add_ps(vf_mul(codes, d), m); }

#define SMALL_ROWS(type, block, value)                                                                               \
    static void bf16_##type(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high, \
                            uint16_t *low) {                                                                         \
        (void)low;                                                                                                   \
        for (int r = 0; r < rows; r++, w += row_bytes, high += BF16_PITCH) {                                         \
            const struct block *s = (const struct block *)w + first;                                                 \
            for (int b = 0; b < count; b++, s++) vi_store(high + 32 * b, value);                                     \
        }                                                                                                            \
    }
SMALL_ROWS(Q4_0, q4_0, chosen(s->qs, vf_mul(numbers(-8), halves(s->d))))
SMALL_ROWS(Q4_1, q4_1, chosen(s->qs, times_plus(numbers(0), halves(s->d), halves(s->m))))
SMALL_ROWS(IQ4_NL, iq4_nl, chosen(s->qs, vf_mul(table_of(iq4_codes), halves(s->d))))
SMALL_ROWS(MXFP4, mxfp4, chosen(s->qs, vf_mul(table_of(mxfp4_codes), vf_set(e8m0_half(s->e)))))
SMALL_ROWS(Q5_0, q5_0,
           chosen_5(five_bits(s->qs, s->qh), vf_mul(numbers(-16), halves(s->d)), vf_mul(numbers(0), halves(s->d))))
SMALL_ROWS(Q5_1, q5_1,
           chosen_5(five_bits(s->qs, s->qh), times_plus(numbers(0), halves(s->d), halves(s->m)),
                    times_plus(numbers(16), halves(s->d), halves(s->m))))
SMALL_ROWS(Q8_0, q8_0, scaled(load16(s->qs), load16(s->qs + 16), halves(s->d), halves(s->d)))

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
    return pack_bf16(times_plus(first, vf_set(a->d[2 * j]), vf_set(a->m[2 * j])),
                     times_plus(second, vf_set(a->d[2 * j + 1]), vf_set(a->m[2 * j + 1])));
}

/* Values of block j where each stands for 32 columns: eight scales, and eight minima behind them. */
INLINE vf from_scales(vf codes, const struct scales *a, int j) {
    return times_plus(codes, vf_set(a->d[j]), vf_set(a->d[8 + j]));
}

INLINE void scales_of(__m128i integers, float d, float *out) {
    _mm512_storeu_ps(out, vf_mul(float_codes(integers), vf_set(d)));
}

#define SUPER_ROWS(type, block, set_scales, value)                                                                   \
    static void bf16_##type(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high, \
                            uint16_t *low) {                                                                         \
        (void)low;                                                                                                   \
        for (int r = 0; r < rows; r++, w += row_bytes, high += BF16_PITCH) {                                         \
            const struct block *s = (const struct block *)w + first / 8;                                             \
            for (int b = 0; b < count; b += 8, s++) {                                                                \
                struct scales a;                                                                                     \
                set_scales(s, &a);                                                                                   \
                __asm__("" : "+m"(a)); /* or GCC makes shuffles, which are scarce, of loads */                       \
                UNROLL for (int j = 0; j < 8; j++) vi_store(high + 32 * (b + j), value);                             \
            }                                                                                                        \
        }                                                                                                            \
    }

INLINE void scales_q2_k(const struct q2_k *s, struct scales *a) {
    scales_of(subs_q2_k(s), half(s->d), a->d);
    scales_of(minima_q2_k(s), -half(s->dmin), a->m);
}
INLINE void scales_q3_k(const struct q3_k *s, struct scales *a) { scales_of(subs_q3_k(s), half(s->d), a->d); }
INLINE void scales_q6_k(const struct q6_k *s, struct scales *a) { scales_of(load16(s->scales), half(s->d), a->d); }
INLINE void scales_iq4_xs(const struct iq4_xs *s, struct scales *a) { scales_of(subs_iq4_xs(s), half(s->d), a->d); }

/* Of 32 columns each: eight scales, and eight minima behind them. */
INLINE void scales_k(const uint8_t *packed, float d, float dmin, struct scales *a) {
    vf factors = _mm512_mask_blend_ps(0xff00, vf_set(d), vf_set(-dmin));
    _mm512_storeu_ps(a->d, vf_mul(float_codes(scales_and_minima(packed)), factors));
}
INLINE void scales_q4_k(const struct q4_k *s, struct scales *a) { scales_k(s->scales, half(s->d), half(s->dmin), a); }
INLINE void scales_q5_k(const struct q5_k *s, struct scales *a) { scales_k(s->scales, half(s->d), half(s->dmin), a); }

/* Nibbles of 32 bytes choose for block j, or for the one after it. */
INLINE vi chosen_k(const struct q4_k *s, const struct scales *a, int j) {
    int i = j & ~1;
    vi bytes = _mm512_cvtepu8_epi16(load_32(s->qs + 16 * i));
    vi values = pack_bf16(from_scales(numbers(0), a, i), from_scales(numbers(0), a, i + 1));
    vi index = j % 2 ? vi_or(_mm512_srli_epi16(bytes, 4), vi_set16(16)) : vi_and(bytes, vi_set16(15));
    return _mm512_permutexvar_epi16(index, values);
}

SUPER_ROWS(Q2_K, q2_k, scales_q2_k, scaled_from(codes_q2_k(s, j), &a, j))
SUPER_ROWS(Q3_K, q3_k, scales_q3_k, scaled_codes(codes_q3_k(s, j), &a, j))
SUPER_ROWS(Q4_K, q4_k, scales_q4_k, chosen_k(s, &a, j))
SUPER_ROWS(Q5_K, q5_k, scales_q5_k,
           chosen_5(codes_q5_k(s, j), from_scales(numbers(0), &a, j), from_scales(numbers(16), &a, j)))
SUPER_ROWS(Q6_K, q6_k, scales_q6_k, scaled_codes(codes_q6_k(s, j), &a, j))
SUPER_ROWS(IQ4_XS, iq4_xs, scales_iq4_xs, chosen(s->qs + 16 * j, vf_mul(table_of(iq4_codes), vf_set(a.d[j]))))

/* ---- floats ---- */

static void bf16_BF16(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high,
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

static void bf16_F16(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, uint16_t *high,
                     uint16_t *low) {
    for (int r = 0; r < rows; r++, high += BF16_PITCH, low += BF16_PITCH) {
        const uint8_t *p = w + r * row_bytes + 64 * first;
        for (int b = 0; b < count; b++, p += 64)
            split_bf16(_mm512_cvtph_ps(load_32(p)), _mm512_cvtph_ps(load_32(p + 32)), high + 32 * b, low + 32 * b);
    }
}

#endif
