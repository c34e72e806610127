/* Level amx, generated tokens: few at a time go the ways of level avx512, more go through tiles of int8; Q4_K has a
 * way of its own (q4_k_amx.h), and so have up to eight tokens of types with a scale per 32 columns
 * (few_blocks_amx.h). Sums are exact integers and are scaled and added in the order that kernels.h binds, so
 * the bits are every other level's.
 *
 * Sixteen rows of weights at a time are unpacked, COLUMNS of them, into the first-level cache and multiplied with all
 * tokens. Types with a scale per 32 columns are signed bytes, one tile product for each block. Types with a scale per
 * 256 columns fold their integer sub-scales into the codes: 16-bit weights as two planes of bytes,
 * weight = 256 * high + low, each of which is summed over the 256 columns.
 *
 * Two things bound this. Any tile instruction shuts one of the two ports that take 512-bit float arithmetic for some
 * 250 cycles, so each float operation counts twice; and sums leave the tiles through memory only. So sums are added
 * while the next ones are made, and sums of blocks become floats by an integer addition (magic.h). */
#include <stdbool.h>

#include "one_token.h"
#include "q4_k_amx.h"
#include "row_codes.h"
#include "tiles.h"
#include "vnni.h"

#include "products.h"

#include "few_blocks_amx.h"

/* FETCHES: of lines, at the sums of a block; unpacking takes as long as so many tokens */
enum { FETCHES = 4, BLOCKS_UNPACKING = 11, SUPERS_UNPACKING = 22 };
enum { FEW = 4 }; /* up to so many tokens, tiles do not pay */
enum { COLUMNS = 512, BLOCKS = COLUMNS / 32, SUPERS = COLUMNS / 256, STEPS = 4 /* of 64 columns in a super */ };

/* Sixteen rows' codes. */
struct weights {
    union {
        uint8_t planes[SUPERS][2][STEPS][SIDE][64]; /* low and high */
        int8_t codes[BLOCKS][SIDE][32];
    };
};

/* What scales their sums; rows past a matrix's end hold what they held. */
struct scales {
    float d[BLOCKS][SIDE], m[BLOCKS][SIDE], magic[BLOCKS][SIDE]; /* magic: MAGIC's float times d */
    int32_t minima[SUPERS][SIDE][8]; /* pairs of 16-bit numbers */
};

typedef int32_t tile_sums[SIDE][SIDE]; /* (rows, tokens) */

/* One group of tokens at a chunk of columns. */
struct part {
    const int8_t *q;
    const float *scale; /* (blocks or supers, rows) */
    const int16_t *sums; /* (blocks, rows), or of supers (12 pairs, rows, 2) each */
    int32_t rows; /* tokens of the group */
    float (*acc)[SIDE];
};

/* A super of sixteen rows times one or two groups of tokens, and where its sums go: (group, low and high). */
struct unit {
    const struct scales *scales;
    int super;
    bool two;
    struct part part[2];
    tile_sums *sums;
};

struct tile_work {
    _Alignas(64) struct weights weights;
    _Alignas(64) struct scales scales[2]; /* of this chunk and the one before it, whose last sums are not yet added */
    _Alignas(64) tile_sums sums[8];
    struct unit units[2];
    const struct unit *before; /* the last unit, if its sums are not yet added */
    int turn; /* of units */
    struct stream next;
    _Alignas(64) float acc[][SIDE][SIDE]; /* (groups of tokens): rows by tokens */
};

static int64_t tile_scratch(int32_t k, int32_t n) {
    int64_t tiles = (int64_t)sizeof(struct tile_work) + groups_of(n) * (int64_t)sizeof(tile_sums);
    int64_t lanes = scratch(k, n < MOST_TOKENS ? n : MOST_TOKENS), codes = code_scratch(n),
            most = tiles > lanes ? tiles : lanes;
    return most > codes ? most : codes;
}

/* ---- activations ---- */

/* Of tokens that go through tiles: within a group's 64 columns four columns of every token follow each other, as a tile
 * product takes them, and sums of a super two of every token. */
static void put(const uint8_t *from, int count, int32_t rows, int32_t token, uint8_t *to) {
    for (int i = 0; i < count; i++) memcpy(to + ((int64_t)i * rows + token) * 4, from + 4 * i, 4);
}

static void quantize_blocks_by_fours(const struct activations *a, int32_t token, int32_t first, int32_t count,
                                     const float *x) {
    if (a->n <= MOST_TOKENS) {
        quantize_blocks(a, token, first, count, x);
        return;
    }
    x += 32 * first;
    for (int32_t b = first; b < first + count; b++, x += 32) {
        int64_t at = scale_at(a, 32, token, b);
        int16_t sums[2];
        _Alignas(32) int8_t q[32];
        quantize_32(x, block_scale(largest(32, x), &a->blocks.scale[at]), q, sums);
        a->blocks.sums[at] = (int16_t)(sums[0] + sums[1]);
        int8_t *group = a->blocks.q + q_at(a, token / GROUP * GROUP, b / 2) + (int64_t)(b % 2) * 32 * a->rows;
        put((const uint8_t *)q, 8, a->rows, token % GROUP, (uint8_t *)group);
    }
}

/* A sum of 32 q as a multiple of 32 and a rest, both exact as bf16. */
static void split_sum(int16_t sum, int16_t out[2]) {
    int rest = ((sum + 16) & 31) - 16;
    float parts[2] = {(float)(sum - rest), (float)rest};
    for (int i = 0; i < 2; i++) {
        uint32_t bits;
        memcpy(&bits, &parts[i], sizeof bits);
        out[i] = (int16_t)(bits >> 16);
    }
}

/* 64 columns of a group's tokens: four of every token follow each other. */
static void arrange(const int8_t *q, int32_t rows, int8_t *to) {
    __mmask16 mask = (__mmask16)((1u << rows) - 1);
    vi r[SIDE];
    UNROLL for (int t = 0; t < SIDE; t++) r[t] = _mm512_loadu_si512(q + (t < rows ? t : 0) * 64);
    transpose(r);
    UNROLL for (int i = 0; i < SIDE; i++) _mm512_mask_storeu_epi32(to + 4 * i * rows, mask, r[i]);
}

static void quantize_supers_twice(const struct activations *a, int32_t token, int32_t first, int32_t count,
                                  const float *x) {
    int32_t group = token / GROUP * GROUP, at = token - group;
    bool last = at == GROUP - 1 || token == a->n - 1; /* the others have come before */
    quantize_supers(a, token, first, count, x);
    if (a->n <= FEW) return;
    for (int32_t b = first; b < first + count; b++) {
        int16_t *sums = a->supers.sums + scale_at(a, 256, token, b) * SUPER_SUMS;
        for (int i = 0; i < 8; i++) split_sum(sums[16 + i], sums + SPLIT_SUMS + 2 * i);
        int16_t *to = a->fours.sums + scale_at(a, 256, group, b) * SUPER_SUMS;
        put((const uint8_t *)sums, SPLIT_SUMS / 2, a->rows, at, (uint8_t *)to);
        for (int i = 4 * b; last && i < 4 * b + 4; i++)
            arrange(a->supers.q + q_at(a, group, i), a->rows, a->fours.q + q_at(a, group, i));
    }
}

/* ---- rows, unpacked: blocks [first, first + count) of 32 columns ---- */

#define BLOCKS_OF(type, block, has_min, codes_of, d_of, m_of)                                          \
    static void unpack_##type(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, \
                              struct weights *out, struct scales *scales, struct stream *place) {      \
        struct stream next = *place;                                                                   \
        for (int r = 0; r < rows; r++, w += row_bytes) {                                               \
            const struct block *s = (const struct block *)w + first;                                   \
            for (int b = 0; b < count; b++, s++) {                                                     \
                fetch_on(&next, next.unpacking);                                                       \
                _mm256_store_si256((__m256i *)out->codes[b][r], codes_of(s));                          \
                scales->d[b][r] = d_of;                                                                \
                if (has_min) scales->m[b][r] = m_of;                                                   \
            }                                                                                          \
        }                                                                                              \
        *place = next;                                                                                 \
    }
BLOCKS_OF(Q4_0, q4_0, false, codes_q4_0, half(s->d), 0)
BLOCKS_OF(Q4_1, q4_1, true, codes_q4_1, half(s->d), half(s->m))
BLOCKS_OF(Q5_0, q5_0, false, codes_q5_0, half(s->d), 0)
BLOCKS_OF(Q5_1, q5_1, true, codes_q5_1, half(s->d), half(s->m))
BLOCKS_OF(Q8_0, q8_0, false, codes_q8_0, half(s->d), 0)
BLOCKS_OF(IQ4_NL, iq4_nl, false, codes_iq4_nl, half(s->d), 0)
BLOCKS_OF(MXFP4, mxfp4, false, codes_mxfp4, e8m0_half(s->e), 0)

/* Unsigned codes of 64 columns, less the offset, times their sub-scales, as bytes of two planes. subs: sixteen signed
 * bytes, four times; even and odd: which of them belongs to each two columns, and where among the two. */
INLINE void fold(vi codes, vi subs, vi even, vi odd, int offset, void *low, void *high) {
    const vi lower = vi_set32(0x00ff00ff);
    vi first = vi_shuffle8(subs, even);
    vi w0 = _mm512_maddubs_epi16(codes, first), w1 = _mm512_maddubs_epi16(codes, vi_shuffle8(subs, odd));
    if (offset) {
        vi minus = _mm512_maddubs_epi16(vi_set8(offset), first);
        w0 = _mm512_sub_epi16(w0, minus);
        w1 = _mm512_sub_epi16(w1, minus);
    }
    vi_store(low, vi_or(vi_and(w0, lower), _mm512_slli_epi16(w1, 8)));
    vi_store(high, vi_or(_mm512_srli_epi16(w0, 8), _mm512_andnot_si512(lower, w1)));
}

/* Bytes 4 i to 4 i + 3 over a quarter each, or bytes 2 i and 2 i + 1 over a half each, in the even bytes or in the odd
 * ones; the others are 0. */
INLINE vi index_of(bool halves, int i, bool odd) {
    vi quarters = _mm512_setr_epi64(0, 0, 0x0001000100010001, 0x0001000100010001, 0x0002000200020002,
                                    0x0002000200020002, 0x0003000300030003, 0x0003000300030003);
    vi half = _mm512_inserti64x4(vi_set32(0), _mm256_set1_epi16(1), 1);
    vi byte = _mm512_add_epi16(halves ? quarters : half, vi_set16(halves ? 4 * i : 2 * i));
    return odd ? vi_or(_mm512_slli_epi16(byte, 8), vi_set16(0x80)) : vi_or(byte, vi_set16(0x8000));
}

/* `integers` gives sixteen signed bytes: sub-scales, and behind eight of them may be minima. */
#define SUPERS_OF(type, block, halves, offset, codes_of, integers, put_minima)                                \
    static void unpack_##type(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count,        \
                              struct weights *out, struct scales *scales, struct stream *place) {             \
        struct stream next = *place;                                                                          \
        for (int r = 0; r < rows; r++, w += row_bytes) {                                                      \
            const struct block *s = (const struct block *)w + first / 8;                                      \
            for (int b = 0; b < count / 8; b++, s++) {                                                        \
                __m128i bytes = integers;                                                                     \
                vi subs = vi_repeat128(bytes);                                                                \
                scales->d[b][r] = half(s->d);                                                                 \
                put_minima;                                                                                   \
                UNROLL for (int i = 0; i < STEPS; i++) {                                                      \
                    fetch_on(&next, next.unpacking);                                                          \
                    fold(codes_of(s, i), subs, index_of(halves, i, false), index_of(halves, i, true), offset, \
                         out->planes[b][0][i][r], out->planes[b][1][i][r]);                                   \
                }                                                                                             \
            }                                                                                                 \
        }                                                                                                     \
        *place = next;                                                                                        \
    }
#define NO_MINIMA (void)0
#define EIGHT_MINIMA                  \
    scales->m[b][r] = -half(s->dmin); \
    _mm_storeu_si128((__m128i *)scales->minima[b][r], _mm_cvtepi8_epi16(_mm_srli_si128(bytes, 8)))
#define SIXTEEN_MINIMA                \
    scales->m[b][r] = -half(s->dmin); \
    _mm256_storeu_si256((__m256i *)scales->minima[b][r], _mm256_cvtepi8_epi16(minima_q2_k(s)))
SUPERS_OF(Q2_K, q2_k, true, 0, wide_q2_k, subs_q2_k(s), SIXTEEN_MINIMA)
SUPERS_OF(Q3_K, q3_k, true, 4, wide_q3_k, subs_q3_k(s), NO_MINIMA)
SUPERS_OF(Q5_K, q5_k, false, 0, wide_q5_k, scales_and_minima(s->scales), EIGHT_MINIMA)
SUPERS_OF(Q6_K, q6_k, true, 32, wide_q6_k, load16(s->scales), NO_MINIMA)
SUPERS_OF(IQ4_XS, iq4_xs, false, 128, wide_iq4_xs, subs_iq4_xs(s), NO_MINIMA)

/* ---- a scale per 32 columns ---- */

INLINE void multiply_block(const struct weights *w, const struct part *p, int b, int turn) {
    const int8_t *q = p->q + (int64_t)b * 32 * p->rows;
#define PRODUCT(sums, weights, tokens)     \
    _tile_loadd(weights, w->codes[b], 32); \
    _tile_loadd(tokens, q, p->rows * 4);   \
    _tile_zero(sums);                      \
    _tile_dpbssd(sums, weights, tokens);
    IN_TURN(turn, PRODUCT)
#undef PRODUCT
}

INLINE void add_block(bool magic, bool min, const struct scales *w, const struct part *p, int b, tile_sums *sums,
                      vf acc[SIDE], struct stream *next) {
    vf scale = _mm512_loadu_ps(p->scale + (int64_t)b * p->rows), term = scale;
    if (min) {
        __m256i q = load_32(p->sums + (int64_t)b * p->rows);
        term = vf_mul(scale, vf_of(_mm512_cvtepi16_epi32(q)));
    }
    UNROLL for (int r = 0; r < SIDE; r++) {
        if (r % (SIDE / FETCHES) == 0) fetch_on(next, next->multiplying);
        vi n = vi_load((*sums)[r]);
        vf d = vf_set(w->d[b][r]), product;
        if (magic)
            product = _mm512_fmsub_ps(vf_bits(vi_add32(n, vi_set32(MAGIC))), d, vf_set(w->magic[b][r]));
        else
            product = vf_mul(vf_of(n), d);
        acc[r] = vf_fma(product, scale, acc[r]);
        if (min) acc[r] = vf_fma(vf_set(w->m[b][r]), term, acc[r]);
    }
}

/* Sums are stored two blocks after their product began and added one later, so that no step waits for another. */
INLINE void block_tile(bool magic, bool min, const struct weights *w, const struct scales *scales, const struct part *p,
                       int count, struct tile_work *work) {
    tile_sums *sums = work->sums;
    struct stream next = work->next;
    vf acc[SIDE];
    UNROLL for (int r = 0; r < SIDE; r++) acc[r] = vf_load(p->acc[r]);
    for (int first = 0; first < count; first += 8) {
        int here = count - first;
        UNROLL for (int b = 0; b < 8 + 3; b++) {
            if (b < 8 && b < here) multiply_block(w, p, first + b, b);
            if (b >= 2 && b - 2 < 8 && b - 2 < here) store_tile(b - 2, &sums[(b - 2) % 8]);
            if (b >= 3 && b - 3 < here) add_block(magic, min, scales, p, first + b - 3, &sums[(b - 3) % 8], acc, &next);
        }
    }
    UNROLL for (int r = 0; r < SIDE; r++) vf_store(p->acc[r], acc[r]);
    work->next = next;
}

static void block_tiles(bool min, const struct activations *a, int32_t first, int count, struct tile_work *work) {
    const struct weights *w = &work->weights;
    const struct scales *scales = &work->scales[0];
    bool magic = takes_magic(scales->d, count);
    for (int b = 0; b < count; b++)
        vf_store(work->scales[0].magic[b], vf_mul(vf_load(scales->d[b]), vf_set(MAGIC_FLOAT)));
    settle();
    for (int32_t t = 0; t < a->n; t += GROUP) {
        int64_t at = scale_at(a, 32, t, first);
        struct part p = {.q = a->blocks.q + q_at(a, t, first / 2),
                         .scale = a->blocks.scale + at,
                         .sums = a->blocks.sums + at,
                         .rows = a->rows,
                         .acc = work->acc[t / GROUP]};
        if (magic && min)
            block_tile(true, true, w, scales, &p, count, work);
        else if (magic)
            block_tile(true, false, w, scales, &p, count, work);
        else if (min)
            block_tile(false, true, w, scales, &p, count, work);
        else
            block_tile(false, false, w, scales, &p, count, work);
    }
}

/* ---- a scale per 256 columns ---- */

/* Adds eight rows of a group, from row `from`. */
INLINE void add_rows(bool halves, bool min, const struct unit *u, int group, int from, struct stream *next) {
    const vi up = vi_repeat128(_mm_setr_epi8(-1, 0, 1, 2, -1, 4, 5, 6, -1, 8, 9, 10, -1, 12, 13, 14));
    const struct part *p = &u->part[group];
    const struct scales *s = u->scales;
    const int pairs = halves ? 8 : 4;
    vf scale = _mm512_loadu_ps(p->scale);
    vi sums[8];
    UNROLL for (int i = 0; min && i < pairs; i++) sums[i] =
        _mm512_loadu_si512(p->sums + ((halves ? 0 : 8) + i) * 2 * p->rows);
    UNROLL for (int r = from; r < from + 8; r++) {
        fetch_on(next, next->multiplying);
        vi high = vi_shuffle8(vi_load(u->sums[2 * group + 1][r]), up);
        vi isum = vi_add32(high, vi_load(u->sums[2 * group][r]));
        vf acc = vf_fma(vf_mul(vf_of(isum), vf_set(s->d[u->super][r])), scale, vf_load(p->acc[r]));
        if (min) {
            vi msum = vi_set32(0);
            UNROLL for (int i = 0; i < pairs; i++) msum =
                _mm512_dpwssd_epi32(msum, vi_set32(s->minima[u->super][r][i]), sums[i]);
            acc = vf_fma(vf_mul(vf_of(msum), vf_set(s->m[u->super][r])), scale, acc);
        }
        vf_store(p->acc[r], acc);
    }
}

/* Adds what the last unit left. */
INLINE void add_last(bool halves, bool min, struct tile_work *work) {
    const struct unit *u = work->before;
    work->before = NULL;
    for (int i = 0; u && i < (u->two ? 4 : 2); i++) add_rows(halves, min, u, i / 2, i % 2 * 8, &work->next);
}

/* The sums of one unit, while those of the one before it, if any, are added. */
INLINE void run_unit(bool halves, bool min, bool two, const struct unit *u, struct tile_work *work) {
    const int64_t row = u->part[0].rows * 4, step = u->part[0].rows * 64;
    const uint8_t (*planes)[STEPS][SIDE][64] = work->weights.planes[u->super];
    if (work->before && work->before->two != two) add_last(halves, min, work);
    const struct unit *before = work->before;
    struct stream next = work->next;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    UNROLL for (int i = 0; i < STEPS; i++) {
        _tile_loadd(WEIGHTS_A, planes[0][i], 64);
        _tile_loadd(TOKENS_A, u->part[0].q + i * step, row);
        _tile_dpbusd(0, WEIGHTS_A, TOKENS_A);
        _tile_loadd(WEIGHTS_B, planes[1][i], 64);
        _tile_dpbssd(1, WEIGHTS_B, TOKENS_A);
        if (two) {
            _tile_loadd(TOKENS_B, u->part[1].q + i * step, row);
            _tile_dpbusd(2, WEIGHTS_A, TOKENS_B);
            _tile_dpbssd(3, WEIGHTS_B, TOKENS_B);
        }
        if (before && (two || i < 2)) add_rows(halves, min, before, i / 2, i % 2 * 8, &next);
    }
    _tile_stored(0, u->sums[0], 64);
    _tile_stored(1, u->sums[1], 64);
    if (two) {
        _tile_stored(2, u->sums[2], 64);
        _tile_stored(3, u->sums[3], 64);
    }
    work->before = u;
    work->next = next;
}

static struct part super_part(const struct activations *a, int32_t token, int32_t super, struct tile_work *work) {
    int64_t at = scale_at(a, 256, token, super);
    return (struct part){.q = a->fours.q + q_at(a, token, super * STEPS),
                         .scale = a->supers.scale + at,
                         .sums = a->fours.sums + at * SUPER_SUMS,
                         .rows = a->rows,
                         .acc = work->acc[token / GROUP]};
}

/* A chunk's supers times all tokens, two groups at a time. */
INLINE void super_tiles(bool halves, bool min, const struct activations *a, int32_t first, int count,
                        const struct scales *scales, struct tile_work *work) {
    settle();
    for (int32_t t = 0; t < a->n; t += 2 * GROUP) {
        bool two = a->n - t > GROUP;
        for (int s = 0; s < count; s++, work->turn ^= 1) {
            struct unit *u = &work->units[work->turn];
            *u = (struct unit){scales, s, two, {super_part(a, t, first + s, work)}, work->sums + 4 * work->turn};
            if (two) u->part[1] = super_part(a, t + GROUP, first + s, work);
            if (two)
                run_unit(halves, min, true, u, work);
            else
                run_unit(halves, min, false, u, work);
        }
    }
    if (first + count == a->k / 256) add_last(halves, min, work);
}

/* ---- the table ---- */

static void add_chunk(const struct format *f, const struct activations *a, int32_t first, int count,
                      const struct scales *scales, struct tile_work *work) {
    if (!is_super(f->form))
        block_tiles(f->form == FORM_MIN, a, first, count, work);
    else if (f->halves && f->form == FORM_SUPER_MIN)
        super_tiles(true, true, a, first / 8, count / 8, scales, work);
    else if (f->halves)
        super_tiles(true, false, a, first / 8, count / 8, scales, work);
    else if (f->form == FORM_SUPER_MIN)
        super_tiles(false, true, a, first / 8, count / 8, scales, work);
    else
        super_tiles(false, false, a, first / 8, count / 8, scales, work);
}

/* Of a chunk's places, all of a super's or of a block's. */
static struct stream tile_pace(const struct format *f, int32_t tokens) {
    int64_t bytes = (int64_t)SIDE * f->chunk_bytes, products = (int64_t)CHUNK * groups_of(tokens);
    if (is_super(f->form)) return paced(bytes, tokens, SUPERS_UNPACKING, SIDE * STEPS, 2 * products);
    return paced(bytes, tokens, BLOCKS_UNPACKING, SIDE * CHUNK, FETCHES * products);
}

static void matmul_tiles(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows,
                         const struct activations *a, float *out, int64_t ld_out, void *scratch) {
    struct tile_work *work = scratch;
    int32_t blocks = a->k / 32, groups = groups_of(a->n);
    bool slow = f->unpack && is_super(f->form) && !f->halves; /* to unpack: Q5_K and IQ4_XS */
    if (a->n <= (slow ? MOST_TOKENS : FEW)) {
        matmul_lanes(f, w, row_bytes, rows, a, out, ld_out, scratch);
        return;
    }
    if (a->n <= MOST_TOKENS && !is_super(f->form)) {
        matmul_few_blocks(f, w, row_bytes, rows, a, out, ld_out, scratch);
        return;
    }
    if (!f->unpack) {
        matmul_codes(w, row_bytes, rows, a, out, ld_out, scratch);
        return;
    }
    enter_tiles(a->n, is_super(f->form) ? 64 : 32);
    work->before = NULL;
    work->turn = 0;
    work->next = tile_pace(f, a->n);
    for (int32_t r = 0; r < rows; r += SIDE) {
        int here = rows - r < SIDE ? rows - r : SIDE;
        memset(work->acc, 0, sizeof *work->acc * (size_t)groups);
        for (int32_t first = 0; first < blocks; first += BLOCKS) {
            int count = blocks - first < BLOCKS ? blocks - first : BLOCKS;
            struct scales *scales = &work->scales[is_super(f->form) ? first / BLOCKS % 2 : 0];
            int64_t bytes = (int64_t)SIDE * f->chunk_bytes / CHUNK; /* of a block */
            start_stream(&work->next, (uintptr_t)w + (uintptr_t)((r + here) * row_bytes + first * bytes),
                         count * bytes);
            f->unpack(w + r * row_bytes, row_bytes, here, first, count, &work->weights, scales, &work->next);
            add_chunk(f, a, first, count, scales, work);
            fetch_rest(&work->next);
        }
        for (int32_t t = 0; t < a->n; t += GROUP)
            store_transposed(work->acc[t / GROUP], here, a->n - t, out + t * ld_out + r, ld_out);
    }
    _tile_release();
}

#define MATMUL matmul_tiles
#define ONE(type) one_##type
#define UNPACK(type) unpack_##type
#define unpack_Q4_K NULL /* it goes a way of its own: q4_k_amx.h */
#include "product_table.h"

static const struct kernels table = {
    .name = "amx",
    .scratch = tile_scratch,
    .quantize_blocks = quantize_blocks_by_fours,
    .quantize_supers = quantize_supers_twice,
    .prompts = &prompt_kernels_amx,
    .row = &row_kernels_avx512,
    .matmul = PRODUCTS,
};

const struct kernels *kernels_amx(void) { return &table; }
