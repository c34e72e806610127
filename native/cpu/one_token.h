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

enum { BATCH = 8, AHEAD = 2048 }; /* supers reduced at once; bytes by which reading is told of in advance */

/* The processor's own prefetcher stops where a page ends. A prefetch beyond a mapping does nothing. */
INLINE void prefetch(const uint8_t *p, int bytes) {
    UNROLL for (int i = 0; i < bytes; i += 64)
        _mm_prefetch((const char *)((uintptr_t)p + AHEAD + (uintptr_t)i), _MM_HINT_T0);
}

/* What a batch of a row's supers leaves: sums by lanes, and the halves that scale them. */
struct batch {
    _Alignas(64) int32_t sums[BATCH][LANES];
    _Alignas(64) int32_t mins[BATCH][4];
    _Alignas(64) uint32_t scales[BATCH]; /* d in the low half, that of the minima in the high one */
};

#if defined(__AVX512F__)
#include "one_token_avx512.h"
#else
#include "one_token_avx2.h"
#endif

/* ---- a scale per 256 columns ---- */

/* Adds up to BATCH supers to *out, in order. Minima are taken away. */
INLINE void add_batch(bool min, const struct batch *in, int count, const float *scale, float *out) {
    float sums[BATCH], mins[BATCH], acc = *out;
    scale_batch(min, in, sums, mins);
    for (int b = 0; b < BATCH && b < count; b++) {
        acc = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(sums[b]), _mm_set_ss(scale[b]), _mm_set_ss(acc)));
        if (min) acc = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(mins[b]), _mm_set_ss(scale[b]), _mm_set_ss(acc)));
    }
    *out = acc;
}

/* Rows in batches. Each is added when the next one has been read: its small stores have then settled. */
INLINE void one_of_supers(int32_t type, int bytes, const uint8_t *w, int64_t row_bytes, int32_t rows,
                          const struct quants *x, const int8_t *q, int32_t supers, float *out) {
    const bool min = type == LL_Q4_K || type == LL_Q5_K;
    struct batch batches[2] = {0};
    int32_t last_row = -1, last_first = 0, turn = 0;
    for (int32_t r = 0; r < rows; r++) {
        out[r] = 0;
        for (int32_t first = 0; first < supers; first += BATCH, turn ^= 1) {
            int count = supers - first < BATCH ? supers - first : BATCH;
            const uint8_t *p = w + r * row_bytes + (int64_t)first * bytes;
            for (int b = 0; b < count; b++, p += bytes) {
                const int8_t *at = q + (first + b) * 256;
                const int16_t *sums = x->sums + (first + b) * SUPER_SUMS;
                prefetch(p, bytes);
                if (min)
                    super_4_5(type == LL_Q5_K, p, at, sums, &batches[turn], b);
                else if (type == LL_Q6_K)
                    super_Q6_K(p, at, sums, &batches[turn], b);
                else
                    super_Q3_K(p, at, sums, &batches[turn], b);
            }
            if (last_row >= 0)
                add_batch(min, &batches[turn ^ 1], supers - last_first, x->scale + last_first, &out[last_row]);
            last_row = r;
            last_first = first;
        }
    }
    add_batch(min, &batches[turn ^ 1], supers - last_first, x->scale + last_first, &out[last_row]);
}

#define ONE_OF_SUPERS(type, block)                                                                          \
    static void one_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,  \
                           const union term *terms, float *out, int8_t *room) {                             \
        (void)terms;                                                                                        \
        const int8_t *q = arrange_supers(LL_##type, a->supers.q, a->k, room) ? room : a->supers.q;          \
        one_of_supers(LL_##type, sizeof(struct block), w, row_bytes, rows, &a->supers, q, a->k / 256, out); \
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
    const int8_t *q = a->blocks.q;
    if (arrange_blocks(type, q, a->k, room)) q = room;
    for (int32_t r = 0; r < rows; r += LANES) {
        int32_t here = rows - r < LANES ? rows - r : LANES;
        for (int32_t i = 0; i < here; i++)
            row_of_blocks(type, w + (r + i) * row_bytes, bytes, q, terms, blocks, scales, sums + i * blocks);
        vf acc = add_in_order(sums, blocks, a->blocks.scale);
        float last[LANES];
        memcpy(last, &acc, sizeof last);
        memcpy(out + r, last, sizeof *last * (size_t)here);
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
