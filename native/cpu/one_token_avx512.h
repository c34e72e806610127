/* What one_token.h asks of AVX-512. */
#ifndef ONE_TOKEN_AVX512_H
#define ONE_TOKEN_AVX512_H
#include "row_codes.h"

/* ---- a scale per 256 columns ---- */

/* What a batch of a row's supers leaves: sums by lanes, and the halves that scale them. */
struct batch {
    vi sums[BATCH];
    __m128i mins[BATCH];
    uint32_t scales[BATCH]; /* d in the low half, that of the minima in the high one */
};

/* Lane b: the sum of register b's lanes. */
INLINE __m256i sum_registers(const vi in[BATCH]) {
    vi low = sum_quarters(in), high = sum_quarters(in + 4);
    vi both = vi_add32(_mm512_shuffle_i64x2(low, high, 0x44), _mm512_shuffle_i64x2(low, high, 0xee));
    vi folded = vi_add32(both, _mm512_shuffle_i64x2(both, both, 0xb1));
    return _mm256_inserti128_si256(_mm512_castsi512_si256(folded), _mm512_extracti32x4_epi32(folded, 2), 1);
}

/* Lane b: the sum of the four lanes of b. */
INLINE __m256i sum_fours(const __m128i in[BATCH]) {
    __m256i r[4];
    UNROLL for (int i = 0; i < 4; i++) r[i] = _mm256_set_m128i(in[i + 4], in[i]);
    __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1])),
            b = _mm256_add_epi32(_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* The scaled sums of a batch, and of its minima. */
INLINE void scale_batch(bool min, const struct batch *in, float sums[BATCH], float mins[BATCH]) {
    __m256i halves = eight_words(in->scales);
    __m512 d = _mm512_cvtph_ps(_mm256_permutex2var_epi16(
        halves, _mm256_set_epi16(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0), halves));
    _mm256_storeu_ps(sums, _mm256_mul_ps(_mm256_cvtepi32_ps(sum_registers(in->sums)), _mm512_castps512_ps256(d)));
    if (min) {
        __m256 m = _mm256_xor_ps(_mm512_extractf32x8_ps(d, 1), _mm256_set1_ps(-0.0f));
        _mm256_storeu_ps(mins, _mm256_mul_ps(_mm256_cvtepi32_ps(sum_fours(in->mins)), m));
    }
}

/* Word `first` of sixteen over the lower half of a register, `first` + 2 over the upper. */
static const int16_t two_words[4][32] __attribute__((aligned(64))) = {
#define SIXTEEN(x) x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x
    {SIXTEEN(0), SIXTEEN(2)}, {SIXTEEN(1), SIXTEEN(3)}, {SIXTEEN(4), SIXTEEN(6)}, {SIXTEEN(5), SIXTEEN(7)}};
/* Words 4 i to 4 i + 3 of sixteen, over a quarter each. */
static const int16_t four_words[4][32] __attribute__((aligned(64))) = {
#define EIGHT(x) x, x, x, x, x, x, x, x
    {EIGHT(0), EIGHT(1), EIGHT(2), EIGHT(3)},
    {EIGHT(4), EIGHT(5), EIGHT(6), EIGHT(7)},
    {EIGHT(8), EIGHT(9), EIGHT(10), EIGHT(11)},
    {EIGHT(12), EIGHT(13), EIGHT(14), EIGHT(15)}};

INLINE vi spread(const int16_t index[32], __m256i words) {
    return _mm512_permutexvar_epi16(vi_load(index), _mm512_castsi256_si512(words));
}

/* Heads are unpacked with their supers. */
INLINE void heads_4_5(const uint8_t *p, int bytes, int count, const int16_t *q_sums, struct batch *out, float *mins) {
    (void)p, (void)bytes, (void)count, (void)q_sums, (void)out, (void)mins;
}

/* Q4_K, or Q5_K, which has a fifth bit of every code before its nibbles. q is arranged by arrange_q4_k. */
INLINE void super_4_5(bool five, const uint8_t *p, const int8_t *q, const int16_t *sums, struct batch *out, int at) {
    const vi low = vi_set8(15);
    const uint8_t *nibbles = p + (five ? 48 : 16);
    __m256i scales = _mm256_cvtepu8_epi16(scales_and_minima(p + 4));
    vi isum = vi_set32(0), more = isum;
    UNROLL for (int i = 0; i < 2; i++) {
        vi codes = _mm512_loadu_si512(nibbles + 64 * i);
        vi first = vi_and(codes, low), second = vi_and(_mm512_srli_epi16(codes, 4), low);
        if (five) {
            first = vi_or(first, where_bits(twice_32(p + 16), 4 * i, 4 * i + 2, 16));
            second = vi_or(second, where_bits(twice_32(p + 16), 4 * i + 1, 4 * i + 3, 16));
        }
        first = _mm512_maddubs_epi16(first, vi_load(q + 128 * i));
        second = _mm512_maddubs_epi16(second, vi_load(q + 128 * i + 64));
        isum = _mm512_dpwssd_epi32(isum, first, spread(two_words[2 * i], scales));
        more = _mm512_dpwssd_epi32(more, second, spread(two_words[2 * i + 1], scales));
    }
    out->sums[at] = vi_add32(isum, more);
    __m128i pairs = _mm_loadu_si128((const __m128i *)(sums + 16));
    out->mins[at] = _mm_madd_epi16(_mm256_extracti128_si256(scales, 1), pairs);
    out->scales[at] = (uint32_t)load_i32(p);
}

/* Blocks in the order in which Q4_K's nibbles unpack: 0 2 1 3 of every four. */
static void arrange_q4_k(const int8_t *q, int32_t k, int8_t *out) {
    for (int32_t i = 0; i < k; i += 128) {
        vi a = vi_load(q + i), b = vi_load(q + i + 64);
        vi_store(out + i, _mm512_shuffle_i64x2(a, b, 0x44));
        vi_store(out + i + 64, _mm512_shuffle_i64x2(a, b, 0xee));
    }
}

/* Whether this type takes q in another order, which is then in `out`. */
INLINE bool arrange_supers(int32_t type, const int8_t *q, int32_t k, int8_t *out) {
    if (type != LL_Q4_K && type != LL_Q5_K) return false;
    arrange_q4_k(q, k, out);
    return true;
}

INLINE void super_Q6_K(const uint8_t *p, const int8_t *q, const int16_t *sums, struct batch *out, int at) {
    const vi low = vi_set8(15), two = vi_set8(0x30);
    const vi up = _mm512_inserti64x4(vi_set16(4), _mm256_set1_epi16(2), 1);
    const vi down = _mm512_inserti64x4(vi_set16(0), _mm256_set1_epi16(2), 1);
    __m256i scales = _mm256_cvtepi8_epi16(load16(p + 192));
    __m256i offset = _mm256_madd_epi16(scales, _mm256_loadu_si256((const __m256i *)sums));
    vi isum = vi_sub32(vi_set32(0), _mm512_zextsi256_si512(_mm256_slli_epi32(offset, 5))); /* codes are 32 too large */
    vi more = vi_set32(0);
    UNROLL for (int i = 0; i < 2; i++) {
        vi nibbles = _mm512_loadu_si512(p + 64 * i);
        vi high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(p + 128 + 32 * i)));
        vi first = vi_or(vi_and(nibbles, low), vi_and(_mm512_sllv_epi16(high, up), two));
        vi second = vi_or(vi_and(_mm512_srli_epi16(nibbles, 4), low), vi_and(_mm512_srlv_epi16(high, down), two));
        first = _mm512_maddubs_epi16(first, vi_load(q + 128 * i));
        second = _mm512_maddubs_epi16(second, vi_load(q + 128 * i + 64));
        isum = _mm512_dpwssd_epi32(isum, first, spread(four_words[2 * i], scales));
        more = _mm512_dpwssd_epi32(more, second, spread(four_words[2 * i + 1], scales));
    }
    out->sums[at] = vi_add32(isum, more);
    uint16_t d;
    memcpy(&d, p + 208, sizeof d);
    out->scales[at] = d;
}

/* Columns in their order, a scale per sixteen. */
INLINE void super_Q3_K(const uint8_t *p, const int8_t *q, const int16_t *sums, struct batch *out, int at) {
    const struct q3_k *s = (const void *)p;
    __m256i scales = _mm256_cvtepi8_epi16(subs_q3_k(s));
    __m256i offset = _mm256_madd_epi16(scales, load_32(sums));
    vi isum = vi_sub32(vi_set32(0), _mm512_zextsi256_si512(_mm256_slli_epi32(offset, 2))); /* codes are 4 too large */
    vi more = vi_set32(0);
    UNROLL for (int i = 0; i < 2; i++) {
        vi first = _mm512_maddubs_epi16(wide_q3_k(s, 2 * i), vi_load(q + 128 * i));
        vi second = _mm512_maddubs_epi16(wide_q3_k(s, 2 * i + 1), vi_load(q + 128 * i + 64));
        isum = _mm512_dpwssd_epi32(isum, first, spread(four_words[2 * i], scales));
        more = _mm512_dpwssd_epi32(more, second, spread(four_words[2 * i + 1], scales));
    }
    out->sums[at] = vi_add32(isum, more);
    out->scales[at] = load_u16(s->d);
}

/* ---- a scale per 32 columns ---- */

/* Lane j of the result: the sum of block j of sixteen. Of wide codes, two blocks' 4-column sums are in a register. */
INLINE vi sum_pairs(const vi v[8]) {
    const vi two[2] = {sum_quarters(v), sum_quarters(v + 4)};
    /* group g of two[i]: half g % 2 of block g / 2 of registers 4 i to 4 i + 3, in the order 0 1 2 3 */
    vi even = _mm512_permutex2var_epi32(
        two[0], _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27), two[1]);
    vi odd = _mm512_permutex2var_epi32(
        two[0], _mm512_setr_epi32(4, 12, 5, 13, 6, 14, 7, 15, 20, 28, 21, 29, 22, 30, 23, 31), two[1]);
    return vi_add32(even, odd);
}

INLINE vi codes_Q8_0(const uint8_t *block) {
    const uint8_t *next = block + sizeof(struct q8_0);
    vi both = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(block + 2)));
    both = _mm512_inserti64x4(both, _mm256_loadu_si256((const __m256i *)(next + 2)), 1);
    return _mm512_xor_si512(both, vi_set8(WIDE_OFFSET));
}

/* Of two times sixteen bytes: the low nibbles and then the high ones, of one and then of the other. */
INLINE vi nibbles_of(const uint8_t *first, const uint8_t *second) {
    const vi shift =
        _mm512_set_epi64(0x0004000400040004, 0x0004000400040004, 0, 0, 0x0004000400040004, 0x0004000400040004, 0, 0);
    vi both = _mm512_castsi256_si512(_mm256_broadcastsi128_si256(load16(first)));
    both = _mm512_inserti64x4(both, _mm256_broadcastsi128_si256(load16(second)), 1);
    return vi_and(_mm512_srlv_epi16(both, shift), vi_set8(15));
}
INLINE vi codes_Q5_0(const uint8_t *block) {
    const uint8_t *next = block + sizeof(struct q5_0);
    uint64_t high = (uint32_t)load_i32(block + 2) | (uint64_t)(uint32_t)load_i32(next + 2) << 32;
    return vi_or(nibbles_of(block + 6, next + 6), _mm512_maskz_mov_epi8(high, vi_set8(16)));
}

INLINE bool is_nibbles(int32_t type) { return type == LL_Q4_0 || type == LL_IQ4_NL; }

/* Sixteen blocks of nibbles, behind two bytes of scale. q is arranged by arrange_nibbles. */
INLINE vi sixteen_of_nibbles(int32_t type, const uint8_t *row, const int8_t *q) {
    const int bytes = sizeof(struct q4_0);
    const vi low = vi_set8(15);
    vi sums[4];
    UNROLL for (int i = 0; i < 4; i++) {
        const uint8_t *p = row + i * bytes + 2;
        vi codes = _mm512_castsi128_si512(load16(p));
        codes = _mm512_inserti32x4(codes, load16(p + 4 * bytes), 1);
        codes = _mm512_inserti32x4(codes, load16(p + 8 * bytes), 2);
        codes = _mm512_inserti32x4(codes, load16(p + 12 * bytes), 3);
        vi first = vi_and(codes, low), second = vi_and(_mm512_srli_epi16(codes, 4), low);
        if (type == LL_IQ4_NL) {
            first = vi_shuffle8(code_table(iq4_codes, WIDE_OFFSET), first);
            second = vi_shuffle8(code_table(iq4_codes, WIDE_OFFSET), second);
        }
        sums[i] = _mm512_dpbusd_epi32(vi_set32(0), first, vi_load(q + 128 * i));
        sums[i] = _mm512_dpbusd_epi32(sums[i], second, vi_load(q + 128 * i + 64));
    }
    return sum_quarters(sums); /* register i has blocks i, i + 4, i + 8 and i + 12, a quarter each */
}

/* The first halves of blocks i, i + 4, i + 8 and i + 12 of sixteen, and then their second halves. */
static void arrange_nibbles(const int8_t *q, int32_t k, int8_t *out) {
    for (int32_t i = 0; i < k; i += 512) {
        for (int32_t b = 0; b < 16; b++) {
            int8_t *to = out + i + 128 * (b % 4) + 16 * (b / 4);
            memcpy(to, q + i + 32 * b, 16);
            memcpy(to + 64, q + i + 32 * b + 16, 16);
        }
    }
}

INLINE bool arrange_blocks(int32_t type, const int8_t *q, int32_t k, int8_t *out) {
    if (!is_nibbles(type)) return false;
    arrange_nibbles(q, k, out);
    return true;
}

INLINE vi sixteen_of(int32_t type, int32_t bytes, const uint8_t *row, const int8_t *q) {
    if (is_nibbles(type)) return sixteen_of_nibbles(type, row, q);
    vi sums[8];
    UNROLL for (int i = 0; i < 8; i++) {
        const uint8_t *block = row + 2 * i * bytes;
        vi codes = type == LL_Q8_0 ? codes_Q8_0(block) : codes_Q5_0(block);
        sums[i] = _mm512_dpbusd_epi32(vi_set32(0), codes, vi_load(q + 64 * i));
    }
    return sum_pairs(sums);
}

/* The scales of eight blocks of nibbles, each of which begins with one: words 9 apart, all in two registers. */
INLINE __m128i nibble_scales(const uint8_t *blocks) {
    const vi at = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
    vi chosen = _mm512_permutex2var_epi16(_mm512_loadu_si512(blocks), at, _mm512_loadu_si512(blocks + 64));
    return _mm512_castsi512_si128(chosen);
}

/* The scaled sums of a row's blocks. Scales that are not chosen from registers are gathered before, so that no load
 * waits for the small stores. */
INLINE void row_of_blocks(int32_t type, int32_t bytes, const uint8_t *row, const int8_t *q, const struct activations *a,
                          const union term *terms, uint16_t *scales, float *out) {
    int32_t blocks = a->k / 32;
    for (int32_t b = 0; b < blocks && !is_nibbles(type); b++) memcpy(&scales[b], row + b * bytes, sizeof *scales);
    for (int32_t b = 0; b < blocks; b += 16, row += 16 * bytes) {
        prefetch(row, a->ahead, 16 * bytes);
        vi isum = vi_add32(sixteen_of(type, bytes, row, q + 32 * b), _mm512_loadu_si512(terms + b));
        __m256i d = is_nibbles(type) ? _mm256_set_m128i(nibble_scales(row + 8 * bytes), nibble_scales(row))
                                     : _mm256_loadu_si256((const __m256i *)(scales + b));
        _mm512_storeu_ps(out + b, vf_mul(vf_of(isum), _mm512_cvtph_ps(d)));
    }
}

#endif
