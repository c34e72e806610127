/* One token with AVX2 or AVX-512: the common types' products while one answer is being written, when nothing but
 * reading the weights should cost time. Rows as lanes (products.h) defeat the processor's prefetcher; here rows are
 * read from end to end, one after the other, and lanes are columns. Integer sums are exact in any order, and floats are
 * added in block order as everywhere, so the bits are those of every other kernel. What differs between the levels is
 * in one_token_avx512.h and one_token_avx2.h. */
#ifndef ONE_TOKEN_H
#define ONE_TOKEN_H
#include "kernels.h"
#include "lanes.h"
#include "panel.h"
#include "quant/formats.h"

enum { BATCH = 8 }; /* supers whose sums are reduced together */

/* The processor's own prefetcher stops where a page ends. A prefetch beyond a mapping does nothing. */
INLINE void prefetch(const uint8_t *p, int32_t ahead, int bytes) {
    UNROLL for (int i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)((uintptr_t)p + (uintptr_t)(ahead + i)), _MM_HINT_T0);
}

INLINE __m256i eight_words(const uint32_t w[8]) {
    return _mm256_setr_epi32((int)w[0], (int)w[1], (int)w[2], (int)w[3], (int)w[4], (int)w[5], (int)w[6], (int)w[7]);
}

/* Lane j of each quarter: the sum of register j's four lanes there. */
INLINE vi sum_quarters(const vi v[4]) {
    vi a = vi_add32(vi_low32(v[0], v[1]), vi_high32(v[0], v[1])),
       b = vi_add32(vi_low32(v[2], v[3]), vi_high32(v[2], v[3]));
    return vi_add32(vi_low64(a, b), vi_high64(a, b));
}

#if defined(__AVX512F__)
#include "one_token_avx512.h"
#else
#include "one_token_avx2.h"
#endif

/* What rows leave until there are LANES of them: scaled sums and, of types that have them, minima, (LANES, ld) each.
 * `mins` is NULL where there are none. */
struct sums {
    float *sums, *mins;
    int32_t ld;
};

/* Adds the rows' sums in the order of their columns, `count` of them from column b on. */
INLINE vf add_columns(vf acc, const struct sums *in, int32_t b, int count, const float *scale) {
    const int64_t stride = in->ld * (int64_t)sizeof(float), at = b * (int64_t)sizeof(float);
    vi s[4], m[4];
    load_columns((struct rows){(const uint8_t *)in->sums, stride, NULL}, at, s);
    if (in->mins) load_columns((struct rows){(const uint8_t *)in->mins, stride, NULL}, at, m);
    UNROLL for (int i = 0; i < count; i++) {
        vf one = vf_set(scale[b + i]);
        acc = vf_fma(vf_bits(s[i]), one, acc);
        if (in->mins) acc = vf_fma(vf_bits(m[i]), one, acc);
    }
    return acc;
}

/* All of them. Rows become lanes, so that each step of this long chain serves LANES rows. */
INLINE vf add_in_order(const struct sums *in, int32_t count, const float *scale) {
    vf acc = vf_set(0);
    int32_t b = 0;
    for (; b + 4 <= count; b += 4) acc = add_columns(acc, in, b, 4, scale);
    return b < count ? add_columns(acc, in, b, count - b, scale) : acc;
}

INLINE void store_some(float *out, vf acc, int32_t count) {
    float all[LANES];
    memcpy(all, &acc, sizeof all);
    memcpy(out, all, sizeof *all * (size_t)count);
}

/* ---- a scale per 256 columns ---- */

INLINE bool has_minima(int32_t type) { return type == LL_Q4_K || type == LL_Q5_K; }

/* `count` supers of a row, at most BATCH. */
INLINE void batch_of_supers(int32_t type, int bytes, int count, int32_t ahead, const uint8_t *p, const int8_t *q,
                            const int16_t *q_sums, float *sums, float *mins) {
    struct batch batch = {0};
    if (has_minima(type)) heads_4_5(p, bytes, count, q_sums, &batch, mins);
    UNROLL for (int b = 0; b < BATCH; b++, p += bytes, q += 256, q_sums += SUPER_SUMS) {
        if (b == count) break;
        prefetch(p, ahead, bytes);
        if (has_minima(type))
            super_4_5(type == LL_Q5_K, p, q, q_sums, &batch, b);
        else if (type == LL_Q6_K)
            super_Q6_K(p, q, q_sums, &batch, b);
        else
            super_Q3_K(p, q, q_sums, &batch, b);
    }
    scale_batch(has_minima(type), &batch, sums, mins);
}

INLINE void row_of_supers(int32_t type, int bytes, const uint8_t *row, const int8_t *q, const struct activations *a,
                          float *sums, float *mins) {
    const int16_t *q_sums = a->supers.sums;
    const float *end = sums + a->k / 256;
    for (; sums + BATCH <= end; sums += BATCH, mins += BATCH) {
        batch_of_supers(type, bytes, BATCH, a->ahead, row, q, q_sums, sums, mins);
        row += BATCH * bytes, q += BATCH * 256, q_sums += BATCH * SUPER_SUMS;
    }
    if (sums < end) batch_of_supers(type, bytes, (int)(end - sums), a->ahead, row, q, q_sums, sums, mins);
}

INLINE void one_of_supers(int32_t type, int bytes, const uint8_t *w, int64_t row_bytes, int32_t rows,
                          const struct activations *a, float *out, int8_t *room) {
    int32_t supers = a->k / 256, ld = (supers + BATCH - 1) / BATCH * BATCH;
    float *sums = (float *)(void *)(room + a->k), *mins = sums + LANES * ld;
    const struct sums left = {sums, has_minima(type) ? mins : NULL, ld};
    const int8_t *q = arrange_supers(type, a->supers.q, a->k, room) ? room : a->supers.q;
    for (int32_t r = 0; r < rows; r += LANES) {
        int32_t here = rows - r < LANES ? rows - r : LANES;
        for (int32_t i = 0; i < here; i++)
            row_of_supers(type, bytes, w + (r + i) * row_bytes, q, a, sums + i * ld, mins + i * ld);
        store_some(out + r, add_in_order(&left, supers, a->supers.scale), here);
    }
}

#define ONE_OF_SUPERS(type, block)                                                                         \
    static void one_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, \
                           const union term *terms, float *out, int8_t *room) {                            \
        (void)terms;                                                                                       \
        one_of_supers(LL_##type, sizeof(struct block), w, row_bytes, rows, a, out, room);                  \
    }
ONE_OF_SUPERS(Q3_K, q3_k)
ONE_OF_SUPERS(Q4_K, q4_k)
ONE_OF_SUPERS(Q5_K, q5_k)
ONE_OF_SUPERS(Q6_K, q6_k)

/* ---- a scale per 32 columns ---- */

INLINE void one_of_blocks(int32_t type, int32_t bytes, const uint8_t *w, int64_t row_bytes, int32_t rows,
                          const struct activations *a, const union term *terms, float *out, int8_t *room) {
    int32_t blocks = a->k / 32;
    float *sums = (float *)(void *)(room + a->k);
    uint16_t *scales = (uint16_t *)(void *)(sums + LANES * blocks);
    const struct sums left = {sums, NULL, blocks};
    const int8_t *q = arrange_blocks(type, a->blocks.q, a->k, room) ? room : a->blocks.q;
    for (int32_t r = 0; r < rows; r += LANES) {
        int32_t here = rows - r < LANES ? rows - r : LANES;
        for (int32_t i = 0; i < here; i++)
            row_of_blocks(type, bytes, w + (r + i) * row_bytes, q, a, terms, scales, sums + i * blocks);
        store_some(out + r, add_in_order(&left, blocks, a->blocks.scale), here);
    }
}

#define ONE_OF_BLOCKS(type, block)                                                                         \
    static void one_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, \
                           const union term *terms, float *out, int8_t *room) {                            \
        one_of_blocks(LL_##type, sizeof(struct block), w, row_bytes, rows, a, terms, out, room);           \
    }
ONE_OF_BLOCKS(Q4_0, q4_0)
ONE_OF_BLOCKS(Q5_0, q5_0)
ONE_OF_BLOCKS(Q8_0, q8_0)
ONE_OF_BLOCKS(IQ4_NL, iq4_nl)

#endif
