/* Attention on tiles: attention.h's arithmetic in two parts of bfloat16, hence not its exact tables' bits.
 *
 * Every operand is a sum of two bfloat16, high and low, and a product is high x high + high x low + low x high in
 * float32; what is left out is 2^-17 of the operands. Half precision and bfloat16 keys and values fit in two parts
 * exactly. Scores are in powers of 2, so that a weight is 2 to the (score - max). Each span begins sums of its own,
 * which are added to the state's, so tiles are never rescaled.
 *
 * Scores are computed as keys x queries: keys lie in the cache as the first operand wants them, and a register holds
 * one key's scores of sixteen queries, so that largest, weights and sums need no sums across lanes. Weights are then
 * transposed, and values, two keys interleaved, are the second operand. What lies behind a row's end is masked (scores)
 * or 0 (values). A step of tiles is the same whatever the number of queries, so one token gets the bits that it gets
 * among others; the products that other tokens' keys add to it are exactly 0, for which hidden values must be finite:
 * tiles with others are folded token by token.
 *
 * Assumes a KV type of F16, BF16 or Q8_0, head_dim a multiple of 16, a process that may use tiles (cpuinfo.h), and
 * denormals kept. Leaves the thread's tiles released. */
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "attention.h"
#include "localllm.h"
#include "tiles.h"

enum { TILE = 1024 /* bytes */, WEIGHTS = ATTEND_SPAN / 32 * 2 * TILE /* bytes */, SCORES = ATTEND_SPAN * 16 };

/* Pieces of a worker's scratch, all made of tiles of 16 rows of 64 bytes. */
struct layout {
    int32_t columns;   /* tiles of 16 queries */
    int32_t pairs;     /* steps of 32 dimensions, the last one half empty where head_dim is an odd multiple of 16 */
    uint8_t *q;        /* (columns, pairs, hi and lo) second operand: 16 pairs of dimensions x 16 queries */
    uint8_t *k;        /* (span / 16, pairs, hi and lo) first operand: 16 keys x 32 dimensions */
    uint8_t *v;        /* (span / 32, head_dim / 16, hi and lo) second operand: 16 pairs of keys x 16 dimensions */
    uint8_t *p;        /* (span / 32, hi and lo) first operand: 16 queries x 32 keys */
    float *s;          /* (span, 16) scores, one column per query */
    float *o;          /* (16, head_dim) */
    int32_t *visible;  /* (2, columns, 16) first and last key that a query sees */
};

static int64_t lay_out(struct layout *l, int32_t queries, int32_t head_dim, uint8_t *at) {
    uint8_t *start = at;
    l->columns = (queries + 15) / 16;
    l->pairs = (head_dim + 31) / 32;
    l->q = at, at += (int64_t)l->columns * l->pairs * 2 * TILE;
    l->k = at, at += (int64_t)(ATTEND_SPAN / 16) * l->pairs * 2 * TILE;
    l->v = at, at += (int64_t)(ATTEND_SPAN / 32) * (head_dim / 16) * 2 * TILE;
    l->p = at, at += WEIGHTS;
    l->s = (float *)(void *)at, at += SCORES * 4;
    l->o = (float *)(void *)at, at += (int64_t)head_dim * 64;
    l->visible = (int32_t *)(void *)at, at += (int64_t)l->columns * 2 * 64;
    return at - start;
}

static int64_t scratch(int32_t queries, int32_t head_dim) {
    struct layout l;
    static uint8_t none[1];
    return lay_out(&l, queries, head_dim, none);
}

/* ---- tiles ---- */

#define C0 0
#define C1 1
#define C2 2
#define C3 3
#define A0 4
#define A1 5
#define B0 6
#define B1 7

/* ---- operands in two parts ---- */

/* Words of a's high halves in even places and of b's in odd ones. */
INLINE __m512i pair(__m512 a, __m512 b) {
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(_mm512_castps_si512(a), 16), _mm512_castps_si512(b));
}

/* The upper bfloat16 of x, rounded to nearest so that the rest is at most half of its last place. */
INLINE __m512 upper(__m512 x) {
    __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    return _mm512_castsi512_ps(_mm512_and_epi32(bits, _mm512_set1_epi32((int)0xffff0000)));
}
/* Cut off instead: exact in two parts for half precision, whose numbers have 11 bits. */
INLINE __m512 upper_cut(__m512 x) {
    return _mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xffff0000)));
}

/* 16 pairs (a, b) as bfloat16 into the row at hi and what is left of them one tile further. */
INLINE void split_pairs(__m512 a, __m512 b, bool cut, uint8_t *hi) {
    __m512 ah = cut ? a : upper(a), bh = cut ? b : upper(b);
    _mm512_store_si512(hi, pair(ah, bh));
    ah = cut ? upper_cut(a) : ah;
    bh = cut ? upper_cut(b) : bh;
    _mm512_store_si512(hi + TILE, pair(_mm512_sub_ps(a, ah), _mm512_sub_ps(b, bh)));
}

/* 16 values of a cached row; i is a multiple of 16. */
INLINE __m512 cached_16(int32_t type, const uint8_t *row, int32_t i) {
    if (type == LL_F16) return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(row + 2 * i)));
    if (type == LL_BF16) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(row + 2 * i));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
    }
    const uint8_t *block = row + i / 32 * 34;
    uint16_t half;
    memcpy(&half, block, 2);
    __m512 codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(block + 2 + i % 32))));
    return _mm512_mul_ps(codes, _mm512_set1_ps(_cvtsh_ss(half)));
}

INLINE void split_key(int32_t type, const uint8_t *row, int32_t n, uint8_t *out) {
    int32_t i = 0;
    for (; i + 32 <= n; i += 32, out += 2 * TILE)
        split_pairs(cached_16(type, row, i), cached_16(type, row, i + 16), type != LL_Q8_0, out);
    if (i < n) split_pairs(cached_16(type, row, i), _mm512_setzero_ps(), type != LL_Q8_0, out);
}

/* Two keys' values; either may be absent. */
INLINE void split_values(int32_t type, const uint8_t *a, const uint8_t *b, int32_t n, uint8_t *out) {
    for (int32_t i = 0; i < n; i += 16, out += 2 * TILE)
        split_pairs(cached_16(type, a, i), b ? cached_16(type, b, i) : _mm512_setzero_ps(), type != LL_Q8_0, out);
}

INLINE int64_t row_bytes(int32_t type, int32_t n) { return type == LL_Q8_0 ? n / 32 * 34 : n * 2; }

INLINE void prefetch(const uint8_t *p, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T1);
}

/* Keys that will be wanted 64 keys later: the next span's, or the next head's first ones. */
INLINE const uint8_t *row_ahead(const struct attend_tile *t, int32_t position) {
    if (position + ATTEND_SPAN < t->position + t->tokens) return attend_row(t, position + ATTEND_SPAN);
    return attend_row(t, attend_first_span(t, 0) + position % ATTEND_SPAN) + t->to_next;
}

/* Keys and values [from, from + n), and zeros up to a multiple of 32. Meanwhile what comes next comes nearer. */
INLINE void split_span_of(int32_t type, int32_t d, const struct attend_tile *t, int32_t from, int32_t n,
                          const struct layout *l) {
    int32_t key_bytes = (d + 31) / 32 * 2 * TILE, value_bytes = d / 16 * 2 * TILE;
    int64_t row = row_bytes(type, d);
    for (int32_t j = 0; j < n; j += ATTEND_GROUP) {
        const uint8_t *key = attend_row(t, from + j), *ahead = row_ahead(t, from + j);
        uint8_t *k = l->k + j / 16 * key_bytes, *v = l->v + j / 32 * value_bytes + j % 32 / 2 * 64;
        int32_t count = n - j < ATTEND_GROUP ? n - j : ATTEND_GROUP;
        for (int32_t r = 0; r < count; r++) {
            prefetch(ahead + r * row, row);
            split_key(type, key + r * row, d, k + r * 64);
        }
        key += t->to_values, ahead += t->to_values;
        for (int32_t r = 0; r < count; r += 2) {
            prefetch(ahead + r * row, 2 * row);
            split_values(type, key + r * row, r + 1 < count ? key + (r + 1) * row : NULL, d, v + r / 2 * 64);
        }
    }
    /* scores of what lies behind are masked, whatever they are, but 0 times a value must be 0 */
    for (int32_t j = (n + 1) & ~1; j % 32; j += 2) {
        uint8_t *v = l->v + j / 32 * value_bytes + j % 32 / 2 * 64;
        for (int32_t i = 0; i < 2 * d / 16; i++) _mm512_store_si512(v + i * TILE, _mm512_setzero_si512());
    }
}

INLINE void split_span_type(int32_t type, const struct attend_tile *t, int32_t from, int32_t n,
                            const struct layout *l) {
    switch (t->head_dim) { /* known sizes: loops without counters */
    case 64: split_span_of(type, 64, t, from, n, l); break;
    case 128: split_span_of(type, 128, t, from, n, l); break;
    default: split_span_of(type, t->head_dim, t, from, n, l);
    }
}

static void split_span(const struct attend_tile *t, int32_t from, int32_t n, const struct layout *l) {
    switch (t->kv_type) {
    case LL_F16: split_span_type(LL_F16, t, from, n, l); break;
    case LL_BF16: split_span_type(LL_BF16, t, from, n, l); break;
    default: split_span_type(LL_Q8_0, t, from, n, l);
    }
}

/* ---- scores ---- */

/* Queries times scale and log2(e), so that a weight is a power of 2 of a score less the largest. */
static void prepare(const struct attend_tile *t, void *at) {
    struct layout l;
    int32_t queries = attend_queries(t), n = t->head_dim;
    lay_out(&l, queries, n, at);
    const __m512 scale = _mm512_set1_ps(t->scale * 1.44269504089f);
    for (int32_t c = 0; c < l.columns; c++) {
        for (int32_t p = 0; p < l.pairs; p++) {
            uint8_t *out = l.q + (int64_t)(c * l.pairs + p) * 2 * TILE;
            __m512i a[16], b[16];
            for (int32_t i = 0; i < 16; i++) {
                int32_t query = 16 * c + i;
                const float *q = attend_query(t, query) + 32 * p;
                __m512 none = _mm512_setzero_ps();
                a[i] = _mm512_castps_si512(query < queries ? _mm512_mul_ps(_mm512_loadu_ps(q), scale) : none);
                b[i] = _mm512_castps_si512(
                    query < queries && 32 * p + 16 < n ? _mm512_mul_ps(_mm512_loadu_ps(q + 16), scale) : none);
            }
            transpose(a);
            transpose(b);
            for (int32_t i = 0; i < 16; i++)
                split_pairs(_mm512_castsi512_ps(a[i]), _mm512_castsi512_ps(b[i]), false, out + i * 64);
        }
    }
}

/* Scores of 64 keys and 16 queries, the keys as rows. Low times low is left out. */
static void score_64(const uint8_t *k, const uint8_t *q, int32_t pairs, float *s) {
    settle();
    int64_t key_bytes = (int64_t)pairs * 2 * TILE;
    _tile_zero(C0);
    _tile_zero(C1);
    _tile_zero(C2);
    _tile_zero(C3);
    for (int32_t p = 0; p < pairs; p++, k += 2 * TILE, q += 2 * TILE) {
        _tile_loadd(B0, q, 64);
        _tile_loadd(B1, q + TILE, 64);
        _tile_loadd(A0, k, 64);
        _tile_dpbf16ps(C0, A0, B0);
        _tile_loadd(A1, k + key_bytes, 64);
        _tile_dpbf16ps(C1, A1, B0);
        _tile_dpbf16ps(C0, A0, B1);
        _tile_loadd(A0, k + 2 * key_bytes, 64);
        _tile_dpbf16ps(C2, A0, B0);
        _tile_dpbf16ps(C1, A1, B1);
        _tile_loadd(A1, k + 3 * key_bytes, 64);
        _tile_dpbf16ps(C3, A1, B0);
        _tile_dpbf16ps(C2, A0, B1);
        _tile_loadd(A0, k + TILE, 64);
        _tile_dpbf16ps(C0, A0, B0);
        _tile_dpbf16ps(C3, A1, B1);
        _tile_loadd(A1, k + key_bytes + TILE, 64);
        _tile_dpbf16ps(C1, A1, B0);
        _tile_loadd(A0, k + 2 * key_bytes + TILE, 64);
        _tile_dpbf16ps(C2, A0, B0);
        _tile_loadd(A1, k + 3 * key_bytes + TILE, 64);
        _tile_dpbf16ps(C3, A1, B0);
    }
    _tile_stored(C0, s, 64);
    _tile_stored(C1, s + 256, 64);
    _tile_stored(C2, s + 512, 64);
    _tile_stored(C3, s + 768, 64);
}

static void score_32(const uint8_t *k, const uint8_t *q, int32_t pairs, float *s) {
    settle();
    int64_t key_bytes = (int64_t)pairs * 2 * TILE;
    _tile_zero(C0);
    _tile_zero(C1);
    for (int32_t p = 0; p < pairs; p++, k += 2 * TILE, q += 2 * TILE) {
        _tile_loadd(B0, q, 64);
        _tile_loadd(B1, q + TILE, 64);
        _tile_loadd(A0, k, 64);
        _tile_dpbf16ps(C0, A0, B0);
        _tile_loadd(A1, k + key_bytes, 64);
        _tile_dpbf16ps(C1, A1, B0);
        _tile_dpbf16ps(C0, A0, B1);
        _tile_dpbf16ps(C1, A1, B1);
        _tile_loadd(A0, k + TILE, 64);
        _tile_dpbf16ps(C0, A0, B0);
        _tile_loadd(A1, k + key_bytes + TILE, 64);
        _tile_dpbf16ps(C1, A1, B0);
    }
    _tile_stored(C0, s, 64);
    _tile_stored(C1, s + 256, 64);
}

/* ---- weights ---- */

/* 2 to the x within 2^-23, for x at most 0; about 0 from -126 down; NaN stays. */
INLINE __m512 exp2_of(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x); /* x where it is NaN */
    const __m512 shift = _mm512_set1_ps(0x1.8p23f);
    __m512 n = _mm512_add_ps(x, shift), r = _mm512_sub_ps(x, _mm512_sub_ps(n, shift));
    __m512 p = _mm512_set1_ps(0.0013276460813358426f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.009675540961325169f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.05550713464617729f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24022120237350464f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6931469440460205f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
}

struct lanes {
    __m512i lo, hi;
    bool all, none;
}; /* keys of a span that 16 queries see; whether each of them sees all, or nothing */

INLINE __mmask16 seen(const struct lanes *see, int32_t key) {
    __m512i at = _mm512_set1_epi32(key);
    return _mm512_mask_cmpgt_epi32_mask(_mm512_cmple_epi32_mask(see->lo, at), see->hi, at);
}

INLINE __m512 largest(const struct lanes *see, bool all, const float *s, int32_t n, __m512 max) {
    __m512 m[4] = {max, max, max, max};
    for (int32_t j = 0; j < n; j += 4) {
        for (int i = 0; i < 4; i++) {
            __m512 x = _mm512_load_ps(s + (j + i) * 16);
            m[i] = _mm512_mask_max_ps(m[i], all ? 0xffff : seen(see, j + i), x, m[i]); /* NaN is passed over */
        }
    }
    return _mm512_max_ps(_mm512_max_ps(m[0], m[1]), _mm512_max_ps(m[2], m[3]));
}

/* Scores of 32 keys become weights: two tiles, queries as rows. Returns sums of even and odd keys. */
INLINE void weigh(const struct lanes *see, bool all, int32_t key, const float *s, __m512 max, uint8_t *p, __m512 *even,
                  __m512 *odd) {
    __m512i hi[16], lo[16];
    for (int i = 0; i < 16; i++) {
        __m512 a = exp2_of(_mm512_sub_ps(_mm512_load_ps(s + 2 * i * 16), max));
        __m512 b = exp2_of(_mm512_sub_ps(_mm512_load_ps(s + (2 * i + 1) * 16), max));
        if (!all) {
            a = _mm512_maskz_mov_ps(seen(see, key + 2 * i), a);
            b = _mm512_maskz_mov_ps(seen(see, key + 2 * i + 1), b);
        }
        *even = _mm512_add_ps(*even, a);
        *odd = _mm512_add_ps(*odd, b);
        __m512 ah = upper(a), bh = upper(b);
        hi[i] = pair(ah, bh);
        lo[i] = pair(_mm512_sub_ps(a, ah), _mm512_sub_ps(b, bh));
    }
    transpose(hi);
    for (int i = 0; i < 16; i++) _mm512_store_si512(p + i * 64, hi[i]);
    transpose(lo);
    for (int i = 0; i < 16; i++) _mm512_store_si512(p + TILE + i * 64, lo[i]);
}

/* ---- values ---- */

static void values_64(const uint8_t *p, const uint8_t *v, int64_t value_bytes, int32_t steps, float *o, int64_t ld) {
    settle();
    _tile_zero(C0);
    _tile_zero(C1);
    _tile_zero(C2);
    _tile_zero(C3);
    for (int32_t i = 0; i < steps; i++, p += 2 * TILE, v += value_bytes) {
        _tile_loadd(A0, p, 64);
        _tile_loadd(A1, p + TILE, 64);
        _tile_loadd(B0, v, 64);
        _tile_dpbf16ps(C0, A0, B0);
        _tile_loadd(B1, v + 2 * TILE, 64);
        _tile_dpbf16ps(C1, A0, B1);
        _tile_dpbf16ps(C0, A1, B0);
        _tile_loadd(B0, v + 4 * TILE, 64);
        _tile_dpbf16ps(C2, A0, B0);
        _tile_dpbf16ps(C1, A1, B1);
        _tile_loadd(B1, v + 6 * TILE, 64);
        _tile_dpbf16ps(C3, A0, B1);
        _tile_dpbf16ps(C2, A1, B0);
        _tile_loadd(B0, v + TILE, 64);
        _tile_dpbf16ps(C0, A0, B0);
        _tile_dpbf16ps(C3, A1, B1);
        _tile_loadd(B1, v + 3 * TILE, 64);
        _tile_dpbf16ps(C1, A0, B1);
        _tile_loadd(B0, v + 5 * TILE, 64);
        _tile_dpbf16ps(C2, A0, B0);
        _tile_loadd(B1, v + 7 * TILE, 64);
        _tile_dpbf16ps(C3, A0, B1);
    }
    _tile_stored(C0, o, ld);
    _tile_stored(C1, o + 16, ld);
    _tile_stored(C2, o + 32, ld);
    _tile_stored(C3, o + 48, ld);
}

static void values_16(const uint8_t *p, const uint8_t *v, int64_t value_bytes, int32_t steps, float *o, int64_t ld) {
    settle();
    _tile_zero(C0);
    for (int32_t i = 0; i < steps; i++, p += 2 * TILE, v += value_bytes) {
        _tile_loadd(A0, p, 64);
        _tile_loadd(A1, p + TILE, 64);
        _tile_loadd(B0, v, 64);
        _tile_loadd(B1, v + TILE, 64);
        _tile_dpbf16ps(C0, A0, B0);
        _tile_dpbf16ps(C0, A1, B0);
        _tile_dpbf16ps(C0, A0, B1);
    }
    _tile_stored(C0, o, ld);
}

/* ---- a span ---- */

static struct lanes lanes_of(const int32_t *visible, int32_t from, int32_t n) {
    __m512i start = _mm512_set1_epi32(from), zero = _mm512_setzero_si512(), end = _mm512_set1_epi32(n);
    __m512i lo = _mm512_sub_epi32(_mm512_load_si512(visible), start);
    __m512i hi = _mm512_sub_epi32(_mm512_load_si512(visible + 16), start);
    __mmask16 not_all = _mm512_cmpgt_epi32_mask(lo, zero) | _mm512_cmplt_epi32_mask(hi, end);
    __mmask16 some = _mm512_cmplt_epi32_mask(lo, end) & _mm512_cmpgt_epi32_mask(hi, zero);
    return (struct lanes){lo, hi, !not_all, !some};
}

/* A column of sixteen queries in a span of n keys, a multiple of 32. */
struct column {
    struct lanes see;
    const struct layout *l;
    int32_t n, head_dim, first, last; /* queries [first, last) take in values */
    const uint8_t *q;
    uint8_t *p;
    float *s, *o, *max, *sum, *acc; /* the last three are of the state */
    float shrink[16];
};

static struct column column_at(const struct attend_tile *t, const struct layout *l, int32_t index, int32_t from,
                               int32_t n, const struct attend_state *state) {
    int32_t rest = attend_queries(t) - index * 16;
    return (struct column){
        .see = lanes_of(l->visible + index * 32, from, n),
        .l = l,
        .n = n,
        .head_dim = t->head_dim,
        .last = rest < 16 ? rest : 16,
        .q = l->q + (int64_t)index * l->pairs * 2 * TILE,
        .p = l->p,
        .s = l->s,
        .o = l->o,
        .max = state->max + index * 16,
        .sum = state->sum + index * 16,
        .acc = state->acc + (int64_t)index * 16 * t->head_dim,
    };
}

static void score(const struct column *c) {
    int32_t j = 0, key_bytes = c->l->pairs * 2 * TILE;
    for (; j + 64 <= c->n; j += 64) score_64(c->l->k + j / 16 * key_bytes, c->q, c->l->pairs, c->s + j * 16);
    if (j < c->n) score_32(c->l->k + j / 16 * key_bytes, c->q, c->l->pairs, c->s + j * 16);
}

INLINE void weigh_all(struct column *c, bool all) {
    __m512 old = _mm512_load_ps(c->max), max = largest(&c->see, all, c->s, c->n, old);
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int32_t j = 0; j < c->n; j += 32)
        weigh(&c->see, all, j, c->s + j * 16, max, c->p + j / 32 * 2 * TILE, &even, &odd);
    __mmask16 any = _mm512_cmp_ps_mask(max, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
    __m512 shrink = _mm512_maskz_mov_ps(any, exp2_of(_mm512_sub_ps(old, max)));
    _mm512_store_ps(c->sum, _mm512_fmadd_ps(_mm512_load_ps(c->sum), shrink, _mm512_add_ps(even, odd)));
    _mm512_store_ps(c->max, max);
    _mm512_storeu_ps(c->shrink, shrink);
}

static void weigh_column(struct column *c) {
    if (c->see.all)
        weigh_all(c, true);
    else
        weigh_all(c, false);
}

static void take_values(const struct column *c) {
    int64_t value_bytes = c->head_dim / 16 * 2 * TILE, ld = (int64_t)c->head_dim * 4;
    const uint8_t *v = c->l->v;
    int32_t d = 0;
    for (; d + 64 <= c->head_dim; d += 64) values_64(c->p, v + d / 16 * 2 * TILE, value_bytes, c->n / 32, c->o + d, ld);
    for (; d < c->head_dim; d += 16) values_16(c->p, v + d / 16 * 2 * TILE, value_bytes, c->n / 32, c->o + d, ld);
}

static void add_up(const struct column *c) {
    for (int32_t i = c->first; i < c->last; i++) {
        __m512 shrink = _mm512_set1_ps(c->shrink[i]);
        for (int32_t at = i * c->head_dim; at < (i + 1) * c->head_dim; at += 16) {
            __m512 old = _mm512_load_ps(c->acc + at);
            _mm512_store_ps(c->acc + at, _mm512_fmadd_ps(old, shrink, _mm512_load_ps(c->o + at)));
        }
    }
}

/* One column at a time, for two do not stay in the first cache with the span's keys and values. */
static void fold_column(struct column *c) {
    score(c);
    weigh_column(c);
    take_values(c);
    add_up(c);
}

static bool finite_row(const struct attend_tile *t, const uint8_t *row) {
    __mmask16 bad = 0;
    for (int32_t i = 0; i < t->head_dim; i += 16) {
        __m512 x = t->kv_type == LL_F16    ? cached_16(LL_F16, row, i)
                   : t->kv_type == LL_BF16 ? cached_16(LL_BF16, row, i)
                                           : cached_16(LL_Q8_0, row, i);
        bad |= _mm512_fpclass_ps_mask(x, 0x99); /* infinities and NaNs */
    }
    return !bad;
}

/* Are values finite where only some tokens of the tile see them? 0 times another one would not be 0. */
static bool finite_where_hidden(const struct attend_tile *t, int32_t from, int32_t n) {
    int32_t first_hi, last_lo, unused;
    attend_visible(t, 0, from, &unused, &first_hi);
    attend_visible(t, t->tokens - 1, from, &last_lo, &unused);
    for (int32_t j = 0; j < last_lo && j < n; j++)
        if (!finite_row(t, attend_row(t, from + j) + t->to_values)) return false;
    for (int32_t j = first_hi > 0 ? first_hi : 0; j < n; j++)
        if (!finite_row(t, attend_row(t, from + j) + t->to_values)) return false;
    return true;
}

static void clear_value(const struct layout *l, int32_t head_dim, int32_t key) {
    uint8_t *v = l->v + key / 32 * (head_dim / 16 * 2 * TILE) + key % 32 / 2 * 64;
    __mmask32 half = key % 2 ? 0xaaaaaaaau : 0x55555555u;
    for (int32_t i = 0; i < 2 * head_dim / 16; i++)
        _mm512_mask_storeu_epi16(v + i * TILE, half, _mm512_setzero_si512());
}

/* The same as below, one token at a time over the values that it sees. */
static void fold_tokens(const struct attend_tile *t, const struct layout *l, int32_t from, int32_t n,
                        struct attend_state *state) {
    int32_t round = (n + 31) & ~31, lo, hi;
    for (int32_t token = 0; token < t->tokens; token++) {
        split_span(t, from, n, l);
        attend_visible(t, token, from, &lo, &hi);
        for (int32_t j = 0; j < n; j++) {
            if (j < lo || j >= hi) clear_value(l, t->head_dim, j);
        }
        for (int32_t q = token * t->group, end = q + t->group, next; q < end; q = next) {
            int32_t column = q / 16, first = q % 16;
            next = end < (column + 1) * 16 ? end : (column + 1) * 16;
            struct column c = column_at(t, l, column, from, round, state);
            __mmask16 mine = (__mmask16)(((1u << (next - q)) - 1) << first);
            c.see.hi = _mm512_maskz_mov_epi32(mine, c.see.hi);
            c.see.all = false;
            c.first = first;
            c.last = first + next - q;
            fold_column(&c);
        }
    }
}

static void fold_span(const struct attend_tile *t, const struct layout *l, int32_t from, int32_t n,
                      struct attend_state *state) {
    if (!finite_where_hidden(t, from, n)) {
        fold_tokens(t, l, from, n, state);
        return;
    }
    int32_t round = (n + 31) & ~31;
    split_span(t, from, n, l);
    for (int32_t i = 0; i < l->columns; i++) {
        struct column c = column_at(t, l, i, from, round, state);
        if (!c.see.none) fold_column(&c);
    }
}

static void fold(const struct attend_tile *t, int32_t begin, int32_t end, void *at, struct attend_state *state) {
    struct layout l;
    int32_t queries = attend_queries(t);
    lay_out(&l, queries, t->head_dim, at);
    for (int32_t i = 0; i < l.columns * 16; i++) {
        int32_t *visible = l.visible + i / 16 * 32 + i % 16;
        attend_visible(t, (i < queries ? i : queries - 1) / t->group, 0, visible, visible + 16);
        if (visible[16] > end) visible[16] = end;
        state->max[i] = -INFINITY;
        state->sum[i] = 0;
    }
    memset(state->acc, 0, (size_t)queries * (size_t)t->head_dim * sizeof *state->acc);
    enter_tiles(SIDE, 64); /* sixteen rows of 64 bytes each, all eight */
    for (int32_t from = attend_first_span(t, begin); from < end; from += ATTEND_SPAN)
        fold_span(t, &l, from, end - from < ATTEND_SPAN ? end - from : ATTEND_SPAN, state);
    _tile_release();
}

/* ---- the end ---- */

static void merge(int32_t queries, int32_t head_dim, const struct attend_state *from, struct attend_state *into) {
    for (int32_t c = 0; c < queries; c += 16) {
        __m512 x = _mm512_load_ps(into->max + c), y = _mm512_load_ps(from->max + c), max = _mm512_max_ps(x, y);
        __mmask16 any = _mm512_cmp_ps_mask(max, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
        __m512 one = _mm512_set1_ps(1), a = _mm512_mask_mov_ps(one, any, exp2_of(_mm512_sub_ps(x, max)));
        __m512 b = _mm512_mask_mov_ps(one, any, exp2_of(_mm512_sub_ps(y, max)));
        float as[16], bs[16];
        _mm512_storeu_ps(as, a);
        _mm512_storeu_ps(bs, b);
        __m512 later = _mm512_mul_ps(_mm512_load_ps(from->sum + c), b);
        _mm512_store_ps(into->max + c, max);
        _mm512_store_ps(into->sum + c, _mm512_fmadd_ps(_mm512_load_ps(into->sum + c), a, later));
        for (int32_t i = 0; i < 16 && c + i < queries; i++) {
            float *to = into->acc + (int64_t)(c + i) * head_dim;
            const float *add = from->acc + (int64_t)(c + i) * head_dim;
            for (int32_t d = 0; d < head_dim; d += 16) {
                later = _mm512_mul_ps(_mm512_load_ps(add + d), _mm512_set1_ps(bs[i]));
                _mm512_store_ps(to + d, _mm512_fmadd_ps(_mm512_load_ps(to + d), _mm512_set1_ps(as[i]), later));
            }
        }
    }
}

static void finish(const struct attend_tile *t, const struct attend_state *s, float *out) {
    for (int32_t i = 0; i < attend_queries(t); i++) {
        __m512 inverse = _mm512_set1_ps(1.0f / s->sum[i]);
        const float *acc = s->acc + (int64_t)i * t->head_dim;
        float *to = out + attend_query_offset(t, i);
        for (int32_t d = 0; d < t->head_dim; d += 16)
            _mm512_storeu_ps(to + d, _mm512_mul_ps(_mm512_load_ps(acc + d), inverse));
    }
}

const struct attend_kernels attend_amx = {"amx", scratch, prepare, fold, merge, finish};
