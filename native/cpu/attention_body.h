/* Attention in float32, written once over v16 and compiled once per level: the specification of attention.h's exact
 * tables. The including file sets the compiler's flags and wraps the table at the end.
 *
 *   score   = scale * the sum of sixteen lanes over the dimensions (v16.h), a last partial sixteen filled with zeros
 *   max     = the largest score so far, this span's included; scores that are not numbers are passed over
 *   shrink  = exp(max before - max), weight of a key = exp(score - max)
 *   sum     = fma(sum, shrink, W), where lane i of sixteen adds the weights of keys i, i + 16, ... of the span, rising,
 *             and W is the sum of the lanes
 *   acc     = acc * shrink, then acc = fma(weight, value, acc) for each key that the query sees, rising
 *   merging a later split b into a: max = the larger, wa = exp(a.max - max), wb = exp(b.max - max), both 1 where
 *             neither has seen a key; x = fma(a.x, wa, b.x * wb), of the sum and of acc
 *   out     = acc * (1 / sum)
 *
 * Keys and values of a span become float32 once for all queries of the tile. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "attention.h"
#include "localllm.h"
#include "v16.h"

/* How many sums grow side by side, of keys for each of SCORED queries, and of sixteen values: as many as there are
 * registers for. */
#if defined(__AVX512F__)
enum { SUMS = 8, SIXTEENS = 4 };
#elif defined(__AVX2__)
enum { SUMS = 2, SIXTEENS = 1 };
#else
enum { SUMS = 1, SIXTEENS = 1 };
#endif
enum { SCORED = 2, QUERIES = 4, NEAR_KEYS = 64 /* whose values stay in the first cache while queries take them in */ };

struct layout {
    int32_t queries, width; /* width is head_dim up to a multiple of 16; what is added is 0 */
    float *q;               /* (queries, width) */
    float *k, *v;           /* (span, width) */
    float *s;               /* (queries, span) scores, then weights */
    int32_t *lo, *hi;       /* (queries) keys of the span that each sees */
};

static int64_t lay_out(struct layout *l, int32_t queries, int32_t head_dim, uint8_t *at) {
    uint8_t *start = at;
    int64_t f = sizeof(float);
    l->queries = queries;
    l->width = (head_dim + 15) & ~15;
    l->q = (float *)(void *)at, at += queries * l->width * f;
    l->k = (float *)(void *)at, at += ATTEND_SPAN * l->width * f;
    l->v = (float *)(void *)at, at += ATTEND_SPAN * l->width * f;
    l->s = (float *)(void *)at, at += queries * ATTEND_SPAN * f;
    l->lo = (int32_t *)(void *)at, at += queries * f;
    l->hi = (int32_t *)(void *)at, at += queries * f;
    return at - start;
}

static int64_t scratch(int32_t queries, int32_t head_dim) {
    struct layout l;
    static uint8_t somewhere[1];
    return lay_out(&l, queries, head_dim, somewhere);
}

static void prepare(const struct attend_tile *t, void *at) {
    struct layout l;
    int32_t n = t->head_dim;
    lay_out(&l, attend_queries(t), n, at);
    memset(l.q, 0, (size_t)l.queries * (size_t)l.width * sizeof *l.q);
    for (int32_t i = 0; i < l.queries; i++)
        memcpy(l.q + (int64_t)i * l.width, attend_query(t, i), (size_t)n * sizeof *l.q);
}

/* ---- the KV cache's types ---- */

static void read_q8_0(int32_t n, const uint8_t *row, float *x) {
    for (int32_t b = 0; b < n / 32; b++, x += 32, row += 34) {
        v16 scale = v16_set_half(load_u16(row));
        v16_store(x, v16_mul(scale, v16_load_int8(row + 2)));
        v16_store(x + 16, v16_mul(scale, v16_load_int8(row + 18)));
    }
}

static void read_f16(int32_t n, const uint16_t *row, float *x) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) v16_store(x + i, v16_load_half(row + i));
    for (; i < n; i++) x[i] = f16_to_f32(row[i]);
}

static void read_bf16(int32_t n, const uint16_t *row, float *x) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) v16_store(x + i, v16_load_bf16(row + i));
    for (; i < n; i++) x[i] = bf16_to_f32(row[i]);
}

static void read_row(int32_t type, int32_t n, const void *row, float *x) {
    switch (type) {
    case LL_F16: read_f16(n, row, x); break;
    case LL_BF16: read_bf16(n, row, x); break;
    case LL_Q8_0: read_q8_0(n, row, x); break;
    default: memcpy(x, row, (size_t)n * sizeof *x);
    }
}

static void read_span(const struct attend_tile *t, const struct layout *l, int32_t from, int32_t n) {
    for (int32_t j = 0; j < n; j++) {
        const uint8_t *row = attend_row(t, from + j), *ahead = row;
        if (from + j + ATTEND_SPAN < t->position + t->tokens) ahead = attend_row(t, from + j + ATTEND_SPAN);
        for (int64_t i = 0; i < t->row_bytes; i += 64) {
            __builtin_prefetch(ahead + i, 0, 2);
            __builtin_prefetch(ahead + t->to_values + i, 0, 2);
        }
        float *k = l->k + (int64_t)j * l->width, *v = l->v + (int64_t)j * l->width;
        read_row(t->kv_type, t->head_dim, row, k);
        read_row(t->kv_type, t->head_dim, row + t->to_values, v);
        for (int32_t i = t->head_dim; i < l->width; i++) k[i] = v[i] = 0;
    }
}

/* ---- scores and weights ---- */

/* Sums of eight keys for some neighbouring queries. */
V16_INLINE void dot_eight(int queries, const float *q, const float *k, int32_t width, v16_eight *out) {
    v16 dot[SCORED][8];
    for (int32_t j = 0; j < 8; j += SUMS, k += (int64_t)SUMS * width) {
        v16 sum[SCORED][SUMS];
        for (int h = 0; h < queries; h++)
            for (int i = 0; i < SUMS; i++) sum[h][i] = v16_set(0);
        for (int32_t d = 0; d < width; d += 16) {
            v16 x[SCORED];
            for (int h = 0; h < queries; h++) x[h] = v16_load(q + (int64_t)h * width + d);
            for (int i = 0; i < SUMS; i++) {
                v16 key = v16_load(k + (int64_t)i * width + d);
                v16_hold(&key);
                for (int h = 0; h < queries; h++) sum[h][i] = v16_fma(x[h], key, sum[h][i]);
            }
        }
        for (int h = 0; h < queries; h++)
            for (int i = 0; i < SUMS; i++) dot[h][j + i] = sum[h][i];
    }
    for (int h = 0; h < queries; h++) out[h] = v16_sum_eight(dot[h]);
}

/* Of sixteen keys, for some neighbouring queries whose scores lie ATTEND_SPAN apart. */
V16_INLINE void score(int queries, const float *q, const float *k, int32_t width, float scale, float *s) {
    v16_eight low[SCORED], high[SCORED];
    dot_eight(queries, q, k, width, low);
    dot_eight(queries, q, k + 8 * (int64_t)width, width, high);
    for (int h = 0; h < queries; h++)
        v16_store(s + h * ATTEND_SPAN, v16_mul(v16_sums(low[h], high[h]), v16_set(scale)));
}

/* Sixteen keys stay near while all queries meet them. Keys that a query does not see may get any score. */
static void score_span(const struct layout *l, int32_t n, float scale) {
    for (int32_t j = 0; j < n; j += 16) {
        const float *k = l->k + (int64_t)j * l->width;
        for (int32_t i = 0, count; i < l->queries; i += count) {
            const float *q = l->q + (int64_t)i * l->width;
            float *s = l->s + (int64_t)i * ATTEND_SPAN + j;
            count = l->queries - i < SCORED ? 1 : SCORED;
            if (l->lo[i] >= j + 16 || l->hi[i + count - 1] <= j) continue; /* both rise */
            if (count == 1)
                score(1, q, k, l->width, scale, s);
            else
                score(SCORED, q, k, l->width, scale, s);
        }
    }
}

static float exp_of(float x) {
    float e[16];
    v16_store(e, v16_exp(v16_set(x)));
    return e[0];
}

/* One query's scores become weights, 0 for keys outside [lo, hi). Returns what is left of the values before. */
static float weigh(int32_t lo, int32_t hi, float *s, float *max, float *sum) {
    int32_t first = lo & ~15, last = (hi + 15) & ~15;
    float old = *max;
    v16 largest = v16_set(old), total = v16_set(0);
    for (int32_t j = first; j < lo; j++) s[j] = -INFINITY;
    for (int32_t j = hi; j < last; j++) s[j] = -INFINITY;
    for (int32_t j = first; j < last; j += 16) largest = v16_max(v16_load(s + j), largest);
    *max = v16_largest(largest);
    largest = v16_set(*max);
    for (int32_t j = first; j < last; j += 16) {
        v16 w = v16_exp(v16_sub(v16_load(s + j), largest));
        v16_store(s + j, w);
        total = v16_add(total, w);
    }
    float shrink = 1; /* e to the 0, as mostly: late keys seldom have the largest score */
    if (*max != old || old == -INFINITY) shrink = exp_of(old - *max); /* 0 where old alone is -INFINITY */
    *sum = fmaf(*sum, shrink, v16_sum(total));
    return shrink;
}

/* ---- values ---- */

/* Some queries and 16 * columns values of each key in [lo, hi). */
V16_INLINE void take_columns(int queries, int columns, const float *w, const float *v, int32_t width, int32_t lo,
                             int32_t hi, float *acc) {
    v16 sum[QUERIES][SIXTEENS], x[SIXTEENS];
    for (int i = 0; i < queries; i++)
        for (int c = 0; c < columns; c++) sum[i][c] = v16_load(acc + i * width + 16 * c);
    for (int32_t j = lo; j < hi; j++) {
        for (int c = 0; c < columns; c++) x[c] = v16_load(v + (int64_t)j * width + 16 * c);
        for (int i = 0; i < queries; i++) {
            v16 weight = v16_set(w[i * ATTEND_SPAN + j]);
            for (int c = 0; c < columns; c++) sum[i][c] = v16_fma(weight, x[c], sum[i][c]);
        }
    }
    for (int i = 0; i < queries; i++)
        for (int c = 0; c < columns; c++) v16_store(acc + i * width + 16 * c, sum[i][c]);
}

V16_INLINE void take(int queries, const struct layout *l, int32_t query, int32_t lo, int32_t hi, float *acc) {
    const float *w = l->s + (int64_t)query * ATTEND_SPAN;
    int32_t d = 0;
    if (lo >= hi) return;
    acc += (int64_t)query * l->width;
    for (; d + 16 * SIXTEENS <= l->width; d += 16 * SIXTEENS)
        take_columns(queries, SIXTEENS, w, l->v + d, l->width, lo, hi, acc + d);
    for (; d < l->width; d += 16) take_columns(queries, 1, w, l->v + d, l->width, lo, hi, acc + d);
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }

/* Queries [first, first + count) take in what they see of keys [from, to): together what all of them see. */
static void take_in(const struct layout *l, int32_t first, int32_t count, int32_t from, int32_t to, float *acc) {
    int32_t lo = from, hi = to;
    for (int32_t i = first; i < first + count; i++) {
        lo = most(lo, l->lo[i]);
        hi = least(hi, l->hi[i]);
    }
    if (count < QUERIES || lo >= hi) lo = hi = to;
    for (int32_t i = first; i < first + count; i++) take(1, l, i, most(from, l->lo[i]), least(lo, l->hi[i]), acc);
    if (lo == hi) return;
    take(QUERIES, l, first, lo, hi, acc);
    for (int32_t i = first; i < first + count; i++) take(1, l, i, hi, least(to, l->hi[i]), acc);
}

/* ---- a split ---- */

static void shrink_acc(float *acc, int32_t width, float shrink) {
    v16 by = v16_set(shrink);
    if (shrink == 1) return;
    for (int32_t d = 0; d < width; d += 16) v16_store(acc + d, v16_mul(v16_load(acc + d), by));
}

static void fold_span(const struct attend_tile *t, const struct layout *l, int32_t from, int32_t n,
                      struct attend_state *state) {
    read_span(t, l, from, n);
    for (int32_t i = 0; i < l->queries; i++) {
        attend_visible(t, i / t->group, from, &l->lo[i], &l->hi[i]);
        l->lo[i] = most(l->lo[i], 0);
        l->hi[i] = least(l->hi[i], n);
    }
    score_span(l, n, t->scale);
    for (int32_t i = 0; i < l->queries; i++) {
        if (l->lo[i] >= l->hi[i]) continue;
        float *s = l->s + (int64_t)i * ATTEND_SPAN, *acc = state->acc + (int64_t)i * l->width;
        shrink_acc(acc, l->width, weigh(l->lo[i], l->hi[i], s, &state->max[i], &state->sum[i]));
    }
    for (int32_t j = 0; j < n; j += NEAR_KEYS)
        for (int32_t i = 0; i < l->queries; i += QUERIES)
            take_in(l, i, least(QUERIES, l->queries - i), j, least(j + NEAR_KEYS, n), state->acc);
}

static void fold(const struct attend_tile *t, int32_t begin, int32_t end, void *at, struct attend_state *state) {
    struct layout l;
    lay_out(&l, attend_queries(t), t->head_dim, at);
    for (int32_t i = 0; i < l.queries; i++) {
        state->max[i] = -INFINITY;
        state->sum[i] = 0;
    }
    memset(state->acc, 0, (size_t)l.queries * (size_t)l.width * sizeof *state->acc);
    for (int32_t from = attend_first_span(t, begin); from < end; from += ATTEND_SPAN)
        fold_span(t, &l, from, least(end - from, ATTEND_SPAN), state);
}

static float factor(float old, float max) { return max == -INFINITY ? 1 : exp_of(old - max); }

static void merge(int32_t queries, int32_t head_dim, const struct attend_state *from, struct attend_state *into) {
    int32_t width = (head_dim + 15) & ~15;
    for (int32_t i = 0; i < queries; i++) {
        float max = into->max[i] > from->max[i] ? into->max[i] : from->max[i];
        float a = factor(into->max[i], max), b = factor(from->max[i], max);
        float *x = into->acc + (int64_t)i * width;
        const float *y = from->acc + (int64_t)i * width;
        into->max[i] = max;
        into->sum[i] = fmaf(into->sum[i], a, from->sum[i] * b);
        for (int32_t d = 0; d < width; d += 16)
            v16_store(x + d, v16_fma(v16_load(x + d), v16_set(a), v16_mul(v16_load(y + d), v16_set(b))));
    }
}

static void finish(const struct attend_tile *t, const struct attend_state *s, float *out) {
    int32_t width = (t->head_dim + 15) & ~15;
    for (int32_t i = 0; i < attend_queries(t); i++) {
        float inverse = 1.0f / s->sum[i], *to = out + attend_query_offset(t, i);
        const float *acc = s->acc + (int64_t)i * width;
        for (int32_t d = 0; d < t->head_dim; d++) to[d] = acc[d] * inverse;
    }
}

#define ATTEND_KERNELS(name) {name, scratch, prepare, fold, merge, finish}
