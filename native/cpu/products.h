/* Products of weights and activations, written once for the vector levels. A level's file brings the cores that
 * multiply a panel by a tile of tokens, one for each class of formats, includes this, says which of the drivers its
 * quantized types take, and then includes product_table.h.
 *
 * Rows of weights are lanes: a panel of LANES rows by 256 columns is unpacked into the first-level cache and then
 * serves every token, one or a thousand, and no sum ever crosses lanes. Each (row, token) has one accumulator, which
 * follows the blocks in order, so neither the panel's width nor the tile's height shows in the bits. */
#ifndef PRODUCTS_H
#define PRODUCTS_H
#include <math.h>
#include <stdbool.h>

#include "kernels.h"
#include "panel.h"
#include "row_kernels.h"
#include "v16.h"

/* Unpacked side by side when there are tokens enough to reuse a tile: as many as the first-level cache holds. */
#if defined(__AMX_INT8__)
enum { PANELS = 2, TURNS = 4 }; /* and so many times that while the tokens' columns are near */
#else
enum { PANELS = 4, TURNS = 1 };
#endif

/* One token by another way than lanes of rows; `room` holds ONE_TOKEN_ROOM(k) bytes. Blocks of 32 columns come in
 * sixteens. */
typedef void one_fn(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,
                    const union term *terms, float *out, int8_t *room);
#define ONE_TOKEN_ROOM(k) (3 * (int64_t)(k))

struct format {
    fill_fn *fill;
    one_fn *one; /* or NULL */
    core_fn *const *cores; /* for 1, 2, 4, ... TILE tokens */
    enum form form;
    bool halves; /* sub-scales per sixteen columns */
    int32_t offset; /* of the panel's codes */
    int32_t chunk_bytes; /* of a row's 256 columns */
};

struct work {
    struct panel panels[PANELS];
    uint8_t staged[LANES][CHUNK * sizeof(struct q8_0)]; /* the widest */
#if defined(__AMX_INT8__)
    _Alignas(64) int32_t sums[8][GROUP][LANES]; /* of tile products: (buffer, tokens, rows) */
#endif
    struct stream next;
    _Alignas(64) float acc[]; /* (TURNS, padded tokens, panels, LANES), then terms (groups, k / 32, rows) */
};

static int64_t acc_floats(int32_t n) { return (int64_t)padded_tokens(n) * TURNS * PANELS * LANES; }

static int64_t scratch(int32_t k, int32_t n) {
    int64_t terms = (int64_t)padded_tokens(n) * (k / 32);
    return (int64_t)sizeof(struct work) + (acc_floats(n) + terms) * (int64_t)sizeof(float) + ONE_TOKEN_ROOM(k) + 64;
}

static union term *terms_of(struct work *work, int32_t n) { return (union term *)(void *)(work->acc + acc_floats(n)); }

/* What the cores need of the tokens' blocks of 32 columns, made once for all rows. */
static void set_terms(const struct format *f, const struct activations *a, union term *terms) {
    int64_t count = (int64_t)padded_tokens(a->n) / GROUP * (a->k / 32) * a->rows;
    const struct quants *x = &a->blocks;
    if (f->form == FORM_MIN) {
        for (int64_t i = 0; i < count; i++) terms[i].min_scale = x->scale[i] * (float)x->sums[i];
    } else if (f->form == FORM_PLAIN) {
        for (int64_t i = 0; i < count; i++) terms[i].start = -f->offset * x->sums[i];
    }
}

/* The tile that begins at a token and a block of 32 columns; `block` is a multiple of CHUNK. */
static struct tile tile_at(const struct format *f, const struct activations *a, const union term *terms, int32_t token,
                           int32_t block) {
    if (is_super(f->form)) {
        int64_t at = scale_at(a, 256, token, block / 8);
        return (struct tile){.rows = a->rows,
                             .q = a->supers.q + q_at(a, token, block / 2),
                             .scale = a->supers.scale + at,
                             .sums = a->supers.sums + at * SUPER_SUMS};
    }
    int64_t at = scale_at(a, 32, token, block);
    return (struct tile){.rows = a->rows,
                         .q = a->blocks.q + q_at(a, token, block / 2),
                         .scale = a->blocks.scale + at,
                         .term = terms + at};
}

/* The last rows, when they are fewer than the lanes, are copied to where reading LANES rows is allowed. */
static struct rows stage_rows(const uint8_t *w, int64_t row_bytes, int32_t rows, int64_t bytes, struct work *work) {
    for (int32_t i = 0; i < rows; i++) memcpy(work->staged[i], w + i * row_bytes, (size_t)bytes);
    return (struct rows){work->staged[0], (int64_t)sizeof work->staged[0], (uintptr_t)work->staged};
}

/* fetch: tell the processor of the rows after these meanwhile. */
static void fill_panels(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows, int64_t first,
                        int count, bool fetch, struct work *work) {
    struct panel *panel = work->panels;
    for (int32_t r = 0; r < rows; r += LANES, panel++) {
        const uint8_t *from = w + r * row_bytes;
        if (rows - r >= LANES) {
            uintptr_t next = fetch ? (uintptr_t)from + (uintptr_t)(rows * row_bytes) : 0;
            f->fill((struct rows){from, row_bytes, next}, first, count, panel);
            continue;
        }
        from += first * f->chunk_bytes / CHUNK;
        f->fill(stage_rows(from, row_bytes, rows - r, (int64_t)count * f->chunk_bytes / CHUNK, work), 0, count, panel);
    }
}

static void store_sums(const float *acc, int32_t rows, int32_t ld, int32_t n, float *out, int64_t ld_out) {
    for (int32_t t = 0; t < n; t++) memcpy(out + t * ld_out, acc + (int64_t)t * ld, sizeof(float) * (size_t)rows);
}

/* While `rows` rows' chunk is multiplied in `steps` steps, as much of the rows after them is fetched. */
static void fetch_next(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows, int32_t first,
                       int32_t steps, struct work *work) {
    int64_t bytes = (int64_t)rows * f->chunk_bytes;
    uintptr_t at = (uintptr_t)w + (uintptr_t)(rows * row_bytes + first / CHUNK * bytes);
    work->next = (struct stream){at, at + (uintptr_t)bytes, (int32_t)(bytes / 64) / steps + 1};
}

/* The driver of quantized types where rows are lanes. */
static void matmul_lanes(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows,
                         const struct activations *a, float *out, int64_t ld_out, struct work *work) {
    int32_t blocks = a->k / 32, most = (a->n > TILE ? PANELS : 1) * LANES;
    union term *terms = terms_of(work, a->n);
    set_terms(f, a, terms);
    if (a->n == 1 && f->one && (is_super(f->form) || blocks % 16 == 0)) {
        uintptr_t room = (uintptr_t)(terms + blocks);
        f->one(w, row_bytes, rows, a, terms, out, (int8_t *)((room + 63) / 64 * 64));
        return;
    }
    for (int32_t r = 0; r < rows; r += most) {
        int32_t here = rows - r < most ? rows - r : most, panels = (here + LANES - 1) / LANES, ld = panels * LANES;
        memset(work->acc, 0, sizeof(float) * (size_t)a->n * (size_t)ld);
        for (int32_t first = 0; first < blocks; first += CHUNK) {
            int count = blocks - first < CHUNK ? blocks - first : CHUNK;
            fetch_next(f, w + r * row_bytes, row_bytes, here, first, panels * CHUNK * ((a->n + TILE - 1) / TILE), work);
            if (a->n == 1) work->next.lines = 0; /* unpacking takes the most time, and fetches */
            fill_panels(f, w + r * row_bytes, row_bytes, here, first, count, a->n == 1, work);
            for (int32_t t = 0, size = SIZES - 1; t < a->n; t += 1 << size) {
                while (a->n - t < 1 << size) size--;
                struct tile x = tile_at(f, a, terms, t, first);
                x.next = &work->next;
                float *acc = work->acc + (int64_t)t * ld;
                for (int32_t p = 0; p < panels; p++) f->cores[size](&work->panels[p], &x, count, acc + p * LANES, ld);
            }
        }
        store_sums(work->acc, here, ld, a->n, out + r, ld_out);
    }
}

/* ---- activations ---- */

/* The largest magnitude of `width` floats, as bits: so that NaN counts as the largest of all. */
INLINE float largest(int width, const float *x) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < width; i += 8) {
        __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i));
        top = _mm256_max_epu32(top, _mm256_and_si256(bits, magnitude));
    }
    top = _mm256_max_epu32(top, _mm256_permute2x128_si256(top, top, 1));
    top = _mm256_max_epu32(top, _mm256_shuffle_epi32(top, 0x4e));
    top = _mm256_max_epu32(top, _mm256_shuffle_epi32(top, 0xb1));
    return _mm256_cvtss_f32(_mm256_castsi256_ps(top));
}

/* The scale of a block and what its values are multiplied by, as in kernels_scalar.c; 0 where all codes are 0. */
INLINE float block_scale(float amax, float *scale) {
    float inverse = 127.0f / amax;
    bool finite = amax <= 3.4028234663852886e38f, usable = finite && inverse <= 3.4028234663852886e38f;
    *scale = usable ? amax / 127.0f : finite ? 0.0f : NAN;
    return usable ? inverse : 0.0f;
}

/* Codes of 32 columns, and the sums of their halves. */
INLINE void quantize_32(const float *x, float inverse, int8_t *q, int16_t sums[2]) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    if (!(inverse > 0)) {
        memset(q, 0, 32);
        sums[0] = sums[1] = 0;
        return;
    }
    __m256i c[4];
    for (int i = 0; i < 4; i++)
        c[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inverse)));
    __m256i codes = _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
    codes = _mm256_permutevar8x32_epi32(codes, order);
    __m256i sum = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), codes), _mm256_set1_epi16(1));
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4e));
    sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xb1));
    _mm256_storeu_si256((__m256i *)q, codes);
    sums[0] = (int16_t)_mm256_extract_epi16(sum, 0);
    sums[1] = (int16_t)_mm256_extract_epi16(sum, 8);
}

static void quantize_blocks(const struct activations *a, int32_t token, const float *x) {
    for (int32_t b = 0; b < a->k / 32; b++, x += 32) {
        int64_t at = scale_at(a, 32, token, b);
        int16_t sums[2];
        float inverse = block_scale(largest(32, x), &a->blocks.scale[at]);
        quantize_32(x, inverse, a->blocks.q + q_at(a, token, b / 2) + 32 * (b % 2), sums);
        a->blocks.sums[at] = (int16_t)(sums[0] + sums[1]);
    }
}

static void quantize_supers(const struct activations *a, int32_t token, const float *x) {
    for (int32_t b = 0; b < a->k / 256; b++, x += 256) {
        int64_t at = scale_at(a, 256, token, b);
        int16_t *sums = a->supers.sums + at * SUPER_SUMS;
        float inverse = block_scale(largest(256, x), &a->supers.scale[at]);
        for (int i = 0; i < 8; i++) {
            quantize_32(x + 32 * i, inverse, a->supers.q + q_at(a, token, 4 * b + i / 2) + 32 * (i % 2), sums + 2 * i);
            sums[16 + i] = (int16_t)(sums[2 * i] + sums[2 * i + 1]);
        }
    }
}

/* ---- float weights ---- */

INLINE v16 load_weights(int32_t type, const uint8_t *p) {
    if (type == LL_F32) return v16_load((const float *)p);
    return type == LL_F16 ? v16_load_half((const uint16_t *)p) : v16_load_bf16((const uint16_t *)p);
}

/* `rows` rows by `tokens` tokens, held in registers over all columns. */
INLINE void float_tile(int32_t type, int rows, int tokens, const uint8_t *w, int64_t row_bytes, const float *x,
                       int64_t ld, int32_t k, float *out, int64_t ld_out) {
    const int size = type == LL_F32 ? 4 : 2;
    v16 acc[FLOAT_ROWS][FLOAT_TOKENS], weights[FLOAT_ROWS];
    int32_t c = 0;
    UNROLL for (int r = 0; r < rows; r++) { UNROLL for (int t = 0; t < tokens; t++) acc[r][t] = v16_set(0.0f); }
    for (; c + 16 <= k; c += 16) {
        UNROLL for (int r = 0; r < rows; r++) weights[r] = load_weights(type, w + r * row_bytes + (int64_t)c * size);
        UNROLL for (int t = 0; t < tokens; t++) {
            v16 v = v16_load(x + t * ld + c);
            UNROLL for (int r = 0; r < rows; r++) acc[r][t] = v16_fma(weights[r], v, acc[r][t]);
        }
    }
    if (c < k) {
        uint8_t part[FLOAT_ROWS][64] = {{0}};
        for (int r = 0; r < rows; r++) memcpy(part[r], w + r * row_bytes + (int64_t)c * size, (size_t)((k - c) * size));
        for (int t = 0; t < tokens; t++) {
            v16 v = v16_load_part(x + t * ld + c, k - c);
            for (int r = 0; r < rows; r++) acc[r][t] = v16_fma(load_weights(type, part[r]), v, acc[r][t]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int t = 0; t < tokens; t++) out[t * ld_out + r] = v16_sum(acc[r][t]);
    }
}

/* `tokens` tokens for all rows. */
INLINE void float_tokens(int32_t type, int tokens, const uint8_t *w, int64_t row_bytes, int32_t rows, const float *x,
                         int64_t ld, int32_t k, float *out, int64_t ld_out) {
    int32_t r = 0;
    for (; r + FLOAT_ROWS <= rows; r += FLOAT_ROWS)
        float_tile(type, FLOAT_ROWS, tokens, w + r * row_bytes, row_bytes, x, ld, k, out + r, ld_out);
    for (; r < rows; r++) float_tile(type, 1, tokens, w + r * row_bytes, row_bytes, x, ld, k, out + r, ld_out);
}

/* A few tokens are kept in the nearest cache while the rows, of fewer bytes, pass by from the second. */
INLINE void matmul_floats(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,
                          float *out, int64_t ld_out) {
    enum { ROWS = 64 };
    for (int32_t r = 0; r < rows; r += ROWS) {
        const uint8_t *from = w + r * row_bytes;
        int32_t t = 0, here = rows - r < ROWS ? rows - r : ROWS;
        for (; t + FLOAT_TOKENS <= a->n; t += FLOAT_TOKENS)
            float_tokens(type, FLOAT_TOKENS, from, row_bytes, here, a->x + t * a->ld, a->ld, a->k, out + t * ld_out + r,
                         ld_out);
        for (; t < a->n; t++)
            float_tokens(type, 1, from, row_bytes, here, a->x + t * a->ld, a->ld, a->k, out + t * ld_out + r, ld_out);
    }
}

#endif
