/* Products of the tokens of prompts at level amx: bf16 tiles. Weights become bf16 (bf16_rows.h), activations too, and
 * one tile product after the other adds 32 columns to 16 rows by 16 tokens of float32, in the order of the columns, so
 * neither how the work is cut nor who else is in the batch shows in the bits. Half-precision weights have two parts,
 * and activations beside float weights too: their products, less the product of both low parts, follow each other.
 *
 * Twice as fast as tiles of int8 (kernels_amx.c), whose sums must leave the tiles every 32 or 256 columns to be scaled,
 * and more exact. But one token alone would wait for its weights to be unpacked, hence only prompts come here.
 *
 * The inner loop is the only work that counts: two tiles of rows by two of tokens, so that four tile products come on
 * four tile loads. Around it, weights are unpacked DEPTH columns at a time for ROWS rows, which lie in the second-level
 * cache while all tokens pass; 32 tokens' DEPTH columns lie in the first. Sums wait between depths as tiles in memory.
 *
 * A tile product flushes denormals to zero, and rounds like fmaf but in its own order: of 32 columns the even ones in
 * a chain of fused multiply-adds, the odd ones in another, whose sum is added (Intel, TDPBF16PS). */
#include "bf16_rows.h"
#include "kernels.h"
#include "quant/types.h"
#include "tiles.h"

_Static_assert(SIDE == (int)GROUP, "a group of tokens is a tile's");
enum { DEPTH = BF16_COLUMNS, PITCH = BF16_PITCH, ROWS = 256, STEP = 32, STEPS = DEPTH / STEP };

struct prompt_work {
    _Alignas(64) uint16_t weights[2][ROWS][PITCH];
    _Alignas(64) float sums[][SIDE][SIDE]; /* rows by tokens: sums_at() */
};

/* Where the sums of a tile of rows and a group of tokens lie: in fours, as block() takes them, one after the other. */
static int64_t sums_at(int32_t groups, int32_t tile, int32_t group) {
    return ((int64_t)(tile / 2) * ((groups + 1) / 2) + group / 2) * 4 + group % 2 * 2 + tile % 2;
}

static int64_t scratch_bytes(int32_t n) {
    return (int64_t)sizeof(struct prompt_work) + sums_at(padded_tokens(n) / SIDE, ROWS / SIDE, 0) * SIDE * SIDE * 4;
}

/* ---- activations ---- */

/* Where 32 columns of a group lie: DEPTH columns of every group, then the next ones. */
static int64_t tile_at(const struct prompt *p, int32_t group, int32_t step) {
    int32_t steps = prompt_steps(p->k), first = step / STEPS * STEPS,
            here = steps - first < STEPS ? steps - first : STEPS;
    return ((int64_t)first * (padded_tokens(p->n) / SIDE) + (int64_t)group * here + (step - first)) * SIDE * STEP;
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

/* ---- products ---- */

/* What is multiplied with what: parts of the weights with parts of the tokens. */
struct terms {
    int count;
    int weight[3], token[3];
};

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
    int32_t groups = padded_tokens(p->n) / SIDE;
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
    int32_t groups = padded_tokens(n) / SIDE;
    for (int32_t t = 0; t < n; t += SIDE) {
        for (int i = 0; i < tiles; i++) {
            const void *sums = work->sums[sums_at(groups, i, t / SIDE)];
            store_transposed(sums, rows - i * SIDE, n - t, out + t * ld_out + i * SIDE, ld_out);
        }
    }
}

static bf16_rows_fn *const rows_of[LL_TYPE_LIMIT] = {
    [LL_F16] = bf16_F16,       [LL_BF16] = bf16_BF16,     [LL_Q4_0] = bf16_Q4_0,   [LL_Q4_1] = bf16_Q4_1,
    [LL_Q5_0] = bf16_Q5_0,     [LL_Q5_1] = bf16_Q5_1,     [LL_Q8_0] = bf16_Q8_0,   [LL_Q2_K] = bf16_Q2_K,
    [LL_Q3_K] = bf16_Q3_K,     [LL_Q4_K] = bf16_Q4_K,     [LL_Q5_K] = bf16_Q5_K,   [LL_Q6_K] = bf16_Q6_K,
    [LL_IQ4_NL] = bf16_IQ4_NL, [LL_IQ4_XS] = bf16_IQ4_XS, [LL_MXFP4] = bf16_MXFP4,
};

/* Columns of floats need not be a multiple of 32: the last ones are filled up with zeros. */
static void unpack(int32_t type, const uint8_t *w, int64_t row_bytes, int rows, int32_t k, int32_t first, int count,
                   struct prompt_work *work) {
    int left = k - first * STEP, whole = left < count * STEP ? left / STEP : count;
    rows_of[type](w, row_bytes, rows, first, whole, work->weights[0][0], work->weights[1][0]);
    for (int r = 0; whole < count && r < rows; r++) {
        uint16_t last[STEP] = {0};
        memcpy(last, w + r * row_bytes + 64 * (int64_t)(first + whole), sizeof *last * (size_t)(left % STEP));
        rows_of[type]((const uint8_t *)last, 0, 1, 0, 1, work->weights[0][r] + whole * STEP,
                      work->weights[1][r] + whole * STEP);
    }
}

/* The same rows' columns from step `next` on, or those after them from their beginning. */
static struct ahead next_rows(const uint8_t *w, int64_t row_bytes, int32_t here, int32_t left, int next, int steps) {
    struct ahead a = {.row = w + row_bytes * next / steps, .row_bytes = row_bytes, .rows = here};
    int last = steps - next < STEPS ? steps - next : STEPS;
    if (next == steps) {
        a.row = w + here * row_bytes;
        a.rows = left < ROWS ? left : ROWS;
        last = steps < STEPS ? steps : STEPS;
    }
    a.bytes = (int)(row_bytes * last / steps);
    return a;
}

static void matmul(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, const struct prompt *p, float *out,
                   int64_t ld_out, void *scratch) {
    static const struct terms one = {1, {0}, {0}}, two = {2, {0, 0}, {0, 1}}, three = {3, {0, 0, 1}, {0, 1, 0}};
    struct prompt_work *work = scratch;
    int32_t steps = prompt_steps(p->k);
    enter_tiles(SIDE, 64);
    for (int32_t r = 0; r < rows; r += ROWS) {
        int32_t here = rows - r < ROWS ? rows - r : ROWS, tiles = (here + SIDE - 1) / SIDE;
        for (int32_t first = 0; first < steps; first += STEPS) {
            int count = steps - first < STEPS ? steps - first : STEPS;
            struct ahead ahead = next_rows(w + r * row_bytes, row_bytes, here, rows - r - here, first + count, steps);
            unpack(type, w + r * row_bytes, row_bytes, here, p->k, first, count, work);
            settle();
            if (type == LL_F16)
                blocks(&three, p, first, count, tiles, &ahead, work);
            else if (type == LL_BF16)
                blocks(&two, p, first, count, tiles, &ahead, work);
            else
                blocks(&one, p, first, count, tiles, &ahead, work);
        }
        settle();
        store_sums(work, here, p->n, out + r, ld_out);
    }
    _tile_release();
}

const struct prompt_kernels prompt_kernels_amx = {scratch_bytes, pack, matmul};
