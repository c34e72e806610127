/* Products of the tokens of prompts at level amx: bf16 tiles. Weights become bf16 (bf16_rows.h), activations too, and
 * one tile product after the other adds 32 columns to 16 rows by 16 tokens of float32, in the order of the columns, so
 * neither how the work is cut nor who else is in the batch shows in the bits. Half-precision weights have two parts,
 * and activations beside float weights too: their products, less the product of both low parts, follow each other.
 *
 * Twice as fast as tiles of int8 (kernels_amx.c), whose sums must leave the tiles every 32 or 256 columns to be scaled,
 * and more exact. But one token alone would wait for its weights to be unpacked, hence only prompts come here.
 *
 * Up to FEW tokens have their sums with sixteen rows in tile registers from the first column to the last, and the next
 * columns are unpacked between the products. Of more tokens the inner loop is the only work that counts: two tiles of
 * rows by two of tokens, so that four tile products come on four tile loads. Around it, weights are unpacked DEPTH
 * columns at a time for ROWS rows, which lie in the second-level cache while all tokens pass; 32 tokens' DEPTH columns
 * lie in the first. Sums wait between depths as tiles in memory.
 *
 * A tile product flushes denormals to zero, and rounds like fmaf but in its own order: of 32 columns the even ones in
 * a chain of fused multiply-adds, the odd ones in another, whose sum is added (Intel, TDPBF16PS). */
#include "bf16_rows.h"
#include "kernels.h"
#include "quant/types.h"
#include "tiles.h"

_Static_assert(SIDE == (int)GROUP, "a group of tokens is a tile's");
enum { DEPTH = BF16_COLUMNS, PITCH = BF16_PITCH, ROWS = 256, STEP = 32, STEPS = DEPTH / STEP };
enum { FEW = 64, FETCH_ROWS = 32 };

struct prompt_work {
    _Alignas(64) uint16_t weights[2][ROWS][PITCH];
    _Alignas(64) float sums[][SIDE][SIDE]; /* rows by tokens: sums_at() */
};

/* What is multiplied with what: parts of the weights with parts of the tokens. */
struct terms {
    int count;
    int weight[3], token[3];
};
static const struct terms one = {1, {0}, {0}}, two = {2, {0, 0}, {0, 1}}, three = {3, {0, 0, 1}, {0, 1, 0}};

struct product {
    int32_t type, rows;
    const uint8_t *w;
    int64_t row_bytes;
    const struct prompt *tokens;
    float *out; /* (n, ld_out) */
    int64_t ld_out;
};

/* Where the sums of a tile of rows and a group of tokens lie: in fours, as block() takes them, one after the other. */
static int64_t sums_at(int32_t groups, int32_t tile, int32_t group) {
    return ((int64_t)(tile / 2) * ((groups + 1) / 2) + group / 2) * 4 + group % 2 * 2 + tile % 2;
}

static int64_t scratch_bytes(int32_t n) {
    return (int64_t)sizeof(struct prompt_work) + sums_at(groups_of(n), ROWS / SIDE, 0) * SIDE * SIDE * 4;
}

/* ---- activations ---- */

/* Where 32 columns of a group lie: DEPTH columns of every group, then the next ones. */
static int64_t tile_at(const struct prompt *p, int32_t group, int32_t step) {
    int32_t steps = prompt_steps(p->k), first = step / STEPS * STEPS,
            here = steps - first < STEPS ? steps - first : STEPS;
    return ((int64_t)first * groups_of(p->n) + (int64_t)group * here + (step - first)) * SIDE * STEP;
}

/* 32 columns of a token; those past the end are 0. */
INLINE void load_step(const float *x, int32_t left, vf out[2]) {
    __mmask32 mask = left >= STEP ? 0xffffffffu : (1u << left) - 1;
    out[0] = _mm512_maskz_loadu_ps((__mmask16)mask, x);
    out[1] = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + 16);
}

static void pack(const struct prompt *p, int32_t group, const float *x, int64_t ld) {
    int32_t steps = prompt_steps(p->k), here = p->n - group * SIDE < SIDE ? p->n - group * SIDE : SIDE;
    for (int32_t s = 0; s < steps; s++) {
        vi high[SIDE], low[SIDE];
        for (int t = 0; t < SIDE; t++) {
            vf v[2] = {vf_set(0), vf_set(0)};
            if (t < here) load_step(x + t * ld + s * STEP, p->k - s * STEP, v);
            if (p->low)
                split_bf16(v[0], v[1], &high[t], &low[t]);
            else
                high[t] = pack_bf16(v[0], v[1]);
        }
        int64_t at = tile_at(p, group, s);
        transpose(high);
        for (int i = 0; i < SIDE; i++) vi_store(p->high + at + i * STEP, high[i]);
        if (!p->low) continue;
        transpose(low);
        for (int i = 0; i < SIDE; i++) vi_store(p->low + at + i * STEP, low[i]);
    }
}

/* ---- weights ---- */

/* Where columns [first, first + steps) of some rows, in steps, are unpacked to. */
struct piece {
    int32_t first, steps;
    uint16_t *high, *low;
};

/* Columns of floats, which have several terms, need not be a multiple of 32: the last ones are filled up with zeros. */
INLINE void unpack(bf16_rows_fn *put, const struct terms *terms, const struct product *p, const uint8_t *w, int rows,
                   const struct piece *to) {
    int left = p->tokens->k - to->first * STEP, whole = left < to->steps * STEP ? left / STEP : to->steps;
    put(w, p->row_bytes, rows, to->first, whole, to->high, to->low);
    for (int r = 0; terms->count > 1 && whole < to->steps && r < rows; r++) {
        uint16_t last[STEP] = {0};
        int at = r * PITCH + whole * STEP;
        memcpy(last, w + r * p->row_bytes + 64 * (int64_t)(to->first + whole), sizeof *last * (size_t)(left % STEP));
        put((const uint8_t *)last, 0, 1, 0, 1, to->high + at, to->low + at);
    }
}

/* ---- few tokens ---- */

/* Up to DEPTH columns of up to sixteen rows, of which some are still to be unpacked. */
struct chunk {
    struct piece to;
    int32_t rows;       /* left to unpack */
    const uint8_t *row; /* the next one */
    int64_t from, bytes; /* of a row */
};

/* The i-th chunk: all columns of sixteen rows, then those of the next; behind the last one it has no rows. */
static struct chunk chunk_of(const struct product *p, int64_t i, struct prompt_work *work) {
    int32_t steps = prompt_steps(p->tokens->k), chunks = (steps + STEPS - 1) / STEPS, side = (int32_t)(i % 2) * SIDE;
    int32_t row = (int32_t)(i / chunks) * SIDE, first = (int32_t)(i % chunks) * STEPS, left = p->rows - row;
    int32_t here = steps - first < STEPS ? steps - first : STEPS;
    return (struct chunk){.to = {first, here, work->weights[0][side], work->weights[1][side]},
                          .rows = left < SIDE ? left : SIDE,
                          .row = p->w + (left > 0 ? row : 0) * p->row_bytes,
                          .from = p->row_bytes * first / steps,
                          .bytes = p->row_bytes * here / steps};
}

/* Unpacks up to `rows` more of a chunk, and fetches the same columns of those that come FETCH_ROWS later. */
INLINE void unpack_some(bf16_rows_fn *put, const struct terms *terms, const struct product *p, struct chunk *c,
                        int rows) {
    if (rows > c->rows) rows = c->rows;
    if (rows <= 0) return;
    for (int r = 0; r < rows; r++) {
        uintptr_t at = (uintptr_t)c->row + (uintptr_t)((r + FETCH_ROWS) * p->row_bytes + c->from);
        for (int64_t i = 0; i < c->bytes; i += 64) _mm_prefetch((const char *)(at + (uintptr_t)i), _MM_HINT_T1);
    }
    unpack(put, terms, p, c->row, rows, &c->to);
    c->to.high += rows * PITCH;
    c->to.low += rows * PITCH;
    c->rows -= rows;
    c->row += rows * p->row_bytes;
}

/* 32 columns of sixteen rows and of every group. */
#define GROUP_STEP(sums, weights, tile)          \
    if (sums < groups) {                         \
        _tile_loadd(tile, x + sums * group, 64); \
        _tile_dpbf16ps(sums, weights, tile);     \
    }
#define FEW_STEP(weights)                                                            \
    for (int i = 0; i < terms->count; i++) {                                         \
        const uint16_t *x = (terms->token[i] ? t->low : t->high) + at;               \
        _tile_loadd(weights, (terms->weight[i] ? low : high) + s * STEP, row_bytes); \
        GROUP_STEP(0, weights, TOKENS_A)                                             \
        GROUP_STEP(1, weights, TOKENS_B)                                             \
        GROUP_STEP(2, weights, TOKENS_A)                                             \
        GROUP_STEP(3, weights, TOKENS_B)                                             \
    }

/* An unpacked chunk times all tokens, while the next one is unpacked. */
INLINE void few_chunk(bf16_rows_fn *put, const struct terms *terms, const struct product *p, const struct piece *c,
                      struct chunk *next) {
    const struct prompt *t = p->tokens;
    const uint16_t *high = c->high, *low = c->low;
    const int64_t row_bytes = sizeof *high * PITCH, group = (int64_t)c->steps * SIDE * STEP;
    int32_t groups = groups_of(t->n);
    int64_t at = tile_at(t, 0, c->first);
    settle();
    for (int s = 0; s < c->steps; s++, at += SIDE * STEP) {
        if (s % 2)
            FEW_STEP(WEIGHTS_B)
        else
            FEW_STEP(WEIGHTS_A)
        unpack_some(put, terms, p, next, s + 1 < c->steps ? SIDE / STEPS : SIDE);
    }
}

static void store_few(const struct product *p, int32_t row, struct prompt_work *work) {
    int32_t n = p->tokens->n;
    _tile_stored(0, work->sums[0], 64);
    if (n > SIDE) _tile_stored(1, work->sums[1], 64);
    if (n > 2 * SIDE) _tile_stored(2, work->sums[2], 64);
    if (n > 3 * SIDE) _tile_stored(3, work->sums[3], 64);
    settle();
    for (int32_t t = 0; t < n; t += SIDE)
        store_transposed(work->sums[t / SIDE], p->rows - row, n - t, p->out + t * p->ld_out + row, p->ld_out);
}

INLINE void few(bf16_rows_fn *put, const struct terms *terms, const struct product *p, struct prompt_work *work) {
    int32_t steps = prompt_steps(p->tokens->k), row = 0;
    struct chunk c = chunk_of(p, 0, work);
    struct piece here = c.to;
    unpack_some(put, terms, p, &c, SIDE);
    for (int64_t i = 1; row < p->rows; i++) {
        struct chunk next = chunk_of(p, i, work);
        struct piece after = next.to;
        if (here.first == 0) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }
        few_chunk(put, terms, p, &here, &next);
        if (here.first + here.steps == steps) {
            store_few(p, row, work);
            row += SIDE;
        }
        here = after;
    }
}

/* Each type unpacks inside its own loop: calls would cost a fifth. */
typedef void few_fn(const struct product *p, struct prompt_work *work);
#define FEW_OF(type, terms) \
    static void few_##type(const struct product *p, struct prompt_work *work) { few(bf16_##type, &terms, p, work); }
#define EACH_TYPE(f)                                                                                         \
    f(F16, three) f(BF16, two) f(Q4_0, one) f(Q4_1, one) f(Q5_0, one) f(Q5_1, one) f(Q8_0, one) f(Q2_K, one) \
        f(Q3_K, one) f(Q4_K, one) f(Q5_K, one) f(Q6_K, one) f(IQ4_NL, one) f(IQ4_XS, one) f(MXFP4, one)
EACH_TYPE(FEW_OF)

static const struct way {
    few_fn *few;
    bf16_rows_fn *rows;
    const struct terms *terms;
} ways[LL_TYPE_LIMIT] = {
#define WAY(type, terms) [LL_##type] = {few_##type, bf16_##type, &terms},
    EACH_TYPE(WAY)};

/* ---- many tokens ---- */

/* What is needed next, fetched into the second-level cache a little at a time: the tokens' next columns, and the pieces
 * of rows of weights that will be unpacked. */
struct ahead {
    const char *at, *end;
    const uint8_t *row; /* of the first piece */
    int64_t row_bytes;
    int rows, bytes, each; /* pieces left, bytes of one, pieces per block */
};

INLINE void fetch(struct ahead *a, int lines) {
    for (int i = 0; i < lines; i++, a->at += 64)
        if (a->at < a->end) _mm_prefetch(a->at, _MM_HINT_T1);
}

INLINE void fetch_rows(struct ahead *a) {
    for (int i = 0; i < a->each && a->rows > 0; i++, a->rows--, a->row += a->row_bytes)
        for (int at = 0; at < a->bytes; at += 64) _mm_prefetch((const char *)a->row + at, _MM_HINT_T1);
}

/* Up to two tiles of rows times up to two groups of tokens, `steps` times 32 columns of them. */
INLINE void block(int tall, int wide, const struct terms *terms, const uint16_t *const weights[2],
                  const uint16_t *const tokens[2], int64_t group, int steps, bool first, float (*sums)[SIDE][SIDE],
                  struct ahead *ahead) {
    const int64_t row_bytes = sizeof(uint16_t) * PITCH;
    if (first) {
        _tile_zero(0);
        if (tall > 1) _tile_zero(1);
        if (wide > 1) _tile_zero(2);
        if (tall > 1 && wide > 1) _tile_zero(3);
    } else {
        _tile_loadd(0, sums[0], 64);
        if (tall > 1) _tile_loadd(1, sums[1], 64);
        if (wide > 1) _tile_loadd(2, sums[2], 64);
        if (tall > 1 && wide > 1) _tile_loadd(3, sums[3], 64);
    }
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < terms->count; i++) {
            fetch(ahead, tall * wide);
            const uint16_t *w = weights[terms->weight[i]] + s * STEP;
            const uint16_t *x = tokens[terms->token[i]] + s * SIDE * STEP;
            _tile_loadd(4, w, row_bytes);
            _tile_loadd(6, x, 64);
            _tile_dpbf16ps(0, 4, 6);
            if (tall > 1) {
                _tile_loadd(5, w + SIDE * PITCH, row_bytes);
                _tile_dpbf16ps(1, 5, 6);
            }
            if (wide > 1) {
                _tile_loadd(7, x + group, 64);
                _tile_dpbf16ps(2, 4, 7);
                if (tall > 1) _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, sums[0], 64);
    if (tall > 1) _tile_stored(1, sums[1], 64);
    if (wide > 1) _tile_stored(2, sums[2], 64);
    if (tall > 1 && wide > 1) _tile_stored(3, sums[3], 64);
}

/* All tokens times the unpacked rows, `tiles` tiles of them. */
INLINE void blocks(const struct terms *terms, const struct prompt *p, int32_t first, int steps, int tiles,
                   const struct ahead *weights_ahead, struct prompt_work *work) {
    int32_t groups = groups_of(p->n);
    int64_t group = (int64_t)steps * SIDE * STEP;
    int32_t next = first + steps < prompt_steps(p->k) ? first + steps : 0;
    struct ahead ahead = *weights_ahead;
    ahead.at = (const char *)(p->high + tile_at(p, 0, next));
    ahead.end = ahead.at + groups * group * 2;
    ahead.each = ahead.rows / ((tiles + 1) / 2 * ((groups + 1) / 2)) + 1;
    for (int t = 0; t < tiles; t += 2) {
        const uint16_t *weights[2] = {work->weights[0][t * SIDE], work->weights[1][t * SIDE]};
        for (int32_t g = 0; g < groups; g += 2) {
            const uint16_t *tokens[2] = {p->high + tile_at(p, g, first), p->low ? p->low + tile_at(p, g, first) : NULL};
            float (*sums)[SIDE][SIDE] = work->sums + sums_at(groups, t, g);
            bool tall = t + 1 < tiles, wide = g + 1 < groups;
            fetch_rows(&ahead);
            if (tall && wide)
                block(2, 2, terms, weights, tokens, group, steps, first == 0, sums, &ahead);
            else if (tall)
                block(2, 1, terms, weights, tokens, group, steps, first == 0, sums, &ahead);
            else if (wide)
                block(1, 2, terms, weights, tokens, group, steps, first == 0, sums, &ahead);
            else
                block(1, 1, terms, weights, tokens, group, steps, first == 0, sums, &ahead);
        }
    }
}

static void store_sums(const struct prompt_work *work, int32_t rows, int32_t n, float *out, int64_t ld_out) {
    int tiles = (rows + SIDE - 1) / SIDE;
    int32_t groups = groups_of(n);
    for (int32_t t = 0; t < n; t += SIDE) {
        for (int i = 0; i < tiles; i++) {
            const void *sums = work->sums[sums_at(groups, i, t / SIDE)];
            store_transposed(sums, rows - i * SIDE, n - t, out + t * ld_out + i * SIDE, ld_out);
        }
    }
}

/* The same rows' columns from step `next` on, or those after them from their beginning. */
static struct ahead next_rows(const struct product *p, int32_t row, int32_t here, int32_t next) {
    int32_t steps = prompt_steps(p->tokens->k), left = p->rows - row - here;
    const uint8_t *w = p->w + row * p->row_bytes;
    struct ahead a = {.row = w + p->row_bytes * next / steps, .row_bytes = p->row_bytes, .rows = here};
    int last = steps - next < STEPS ? steps - next : STEPS;
    if (next == steps) {
        a.row = w + here * p->row_bytes;
        a.rows = left < ROWS ? left : ROWS;
        last = steps < STEPS ? steps : STEPS;
    }
    a.bytes = (int)(p->row_bytes * last / steps);
    return a;
}

static void many(const struct product *p, struct prompt_work *work) {
    const struct way *way = &ways[p->type];
    int32_t steps = prompt_steps(p->tokens->k);
    for (int32_t r = 0; r < p->rows; r += ROWS) {
        int32_t here = p->rows - r < ROWS ? p->rows - r : ROWS, tiles = (here + SIDE - 1) / SIDE;
        for (int32_t first = 0; first < steps; first += STEPS) {
            int count = steps - first < STEPS ? steps - first : STEPS;
            struct piece to = {first, count, work->weights[0][0], work->weights[1][0]};
            struct ahead ahead = next_rows(p, r, here, first + count);
            unpack(way->rows, way->terms, p, p->w + r * p->row_bytes, here, &to);
            settle();
            if (way->terms == &one) /* known when this is compiled */
                blocks(&one, p->tokens, first, count, tiles, &ahead, work);
            else
                blocks(way->terms, p->tokens, first, count, tiles, &ahead, work);
        }
        settle();
        store_sums(work, here, p->tokens->n, p->out + r, p->ld_out);
    }
}

/* ---- the table ---- */

static void matmul(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct prompt *tokens,
                   float *out, int64_t ld_out, void *scratch) {
    struct product p = {type, rows, w, row_bytes, tokens, out, ld_out};
    enter_tiles(SIDE, 64);
    if (tokens->n <= FEW)
        ways[type].few(&p, scratch);
    else
        many(&p, scratch);
    _tile_release();
}

const struct prompt_kernels prompt_kernels_amx = {scratch_bytes, pack, matmul};
