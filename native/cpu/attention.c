/* Paged attention on the CPU. The matrix of scores never exists: each head of each token walks the KV blocks of its
 * row in the order of their absolute positions and folds them into a running softmax. What is folded when depends on
 * positions alone, so a token's bits are the same whatever the chunk, the neighbours or the block numbers. Slots
 * beyond a token's position, or outside its window, never enter the arithmetic.
 *
 * One item of work is a tile of up to ATTEND_TILE tokens of one row and one KV head: the block's keys and values are
 * converted to float32 once and serve all query heads of the group and all tokens of the tile. */
#include <math.h>
#include <string.h>

#include "cpu.h"

struct attend {
    struct cpu *cpu;
    const struct model *m;
    const struct step *s;
    int32_t layer;
    const float *q; /* (n_tokens, n_heads, head_dim) */
    float *a;       /* the same */
};

int64_t attend_scratch(const struct model *m, int32_t block_size) {
    int64_t group = m->n_heads / m->n_kv_heads;
    int64_t blocks = 2 * (int64_t)block_size * m->head_dim; /* keys and values */
    int64_t states = ATTEND_TILE * group * (m->head_dim + (int64_t)(sizeof(struct softmax) / sizeof(float)));
    return (blocks + states + 64) * (int64_t)sizeof(float);
}

/* Which slots of a block the token at `position` sees. */
static void visible(int32_t position, int32_t window, int32_t start, int32_t size, int32_t *lo, int32_t *hi) {
    int32_t first = window > 0 && position >= window ? position - window + 1 : 0;
    *lo = first > start ? first - start : 0;
    *hi = position - start + 1 < size ? position - start + 1 : size;
}

static void load_block(const struct cpu *c, int32_t block, int32_t layer, int32_t value, int32_t head, int32_t slots,
                       int32_t head_dim, float *out) {
    const uint8_t *from = c->pool + kv_offset(&c->kv, block, layer, value, head);
    for (int32_t j = 0; j < slots; j++)
        c->row->load(c->kv.type, head_dim, from + j * c->kv.row_bytes, out + j * head_dim);
}

static void fold_block(const struct attend *w, const struct tile *tile, int32_t head, int32_t start, const float *keys,
                       const float *values, struct softmax *states) {
    const struct row_kernels *row = w->cpu->row;
    int32_t n = w->m->head_dim, group = w->m->n_heads / w->m->n_kv_heads, lo, hi;
    float scores[32];
    for (int32_t t = 0; t < tile->count; t++) {
        int32_t token = tile->first + t;
        visible(w->s->position[token], w->m->layers[w->layer].window, start, w->cpu->kv.block_size, &lo, &hi);
        if (lo >= hi) continue;
        for (int32_t g = 0; g < group; g++) {
            const float *q = w->q + ((int64_t)token * w->m->n_heads + head * group + g) * n;
            row->scores(lo, hi, n, q, keys, w->m->attn_scale, scores);
            row->fold(lo, hi, n, scores, values, &states[t * group + g]);
        }
    }
}

static void attend_item(void *arg, int32_t item, int32_t worker) {
    const struct attend *w = arg;
    struct cpu *c = w->cpu;
    int32_t n = w->m->head_dim, kv_heads = w->m->n_kv_heads, group = w->m->n_heads / kv_heads, size = c->kv.block_size;
    const struct tile *tile = &c->tiles[item / kv_heads];
    int32_t head = item % kv_heads, n_states = tile->count * group;
    float *keys = op_scratch(c, worker), *values = keys + (int64_t)size * n, *acc = values + (int64_t)size * n;
    struct softmax *states = (struct softmax *)(void *)(acc + (((int64_t)n_states * n + 15) & ~15));
    memset(acc, 0, (size_t)n_states * (size_t)n * sizeof *acc);
    for (int32_t i = 0; i < n_states; i++) states[i] = (struct softmax){-INFINITY, 0, acc + (int64_t)i * n};

    const int32_t *blocks = w->s->batch.blocks + (int64_t)tile->row * w->s->batch.max_blocks;
    int32_t last = w->s->position[tile->first + tile->count - 1], window = w->m->layers[w->layer].window, lo, hi;
    visible(w->s->position[tile->first], window, 0, INT32_MAX, &lo, &hi);
    for (int32_t start = lo / size * size; start <= last; start += size) {
        int32_t slots = last - start + 1 < size ? last - start + 1 : size;
        load_block(c, blocks[start / size], w->layer, 0, head, slots, n, keys);
        load_block(c, blocks[start / size], w->layer, 1, head, slots, n, values);
        fold_block(w, tile, head, start, keys, values, states);
    }
    for (int32_t i = 0; i < n_states; i++) {
        int64_t q_head = (int64_t)(tile->first + i / group) * w->m->n_heads + head * group + i % group;
        c->row->finish(n, &states[i], w->a + q_head * n);
    }
}

void cpu_attend(void *dev, const struct model *m, int32_t layer, const struct step *s, const float *q, float *a) {
    struct attend w = {dev, m, s, layer, q, a};
    team_run(w.cpu->team, w.cpu->n_tiles * m->n_kv_heads, attend_item, &w);
}
