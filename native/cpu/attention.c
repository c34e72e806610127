/* Paged attention on the CPU. The matrix of scores never exists: attention.h says what is folded when, and that it
 * depends on positions alone, so a token's bits are the same whatever the chunk, the neighbours, the block numbers or
 * the number of threads.
 *
 * One item of work is a tile of neighbouring tokens of one row and one KV head; a tile so long that its worker would
 * finish last is shared out by splits of the KV range, whose states are merged in their order afterwards. */
#include "attention.h"

#include <stdbool.h>

#include "cpu.h"

enum { TILE_QUERIES = 256, MAX_TILE_TOKENS = 64, PARTS_PER_THREAD = 8, ITEMS_PER_THREAD = 4 };

struct attend {
    struct cpu *cpu;
    const struct track_arrays *track;
    const struct model *m;
    const struct step *s;
    int32_t layer;
    const float *q; /* (n_tokens, n_heads, head_dim) */
    float *a;       /* the same */
};

const struct attend_kernels *attend_kernels_for(enum cpu_level level, int32_t kv_type, int32_t head_dim) {
#if defined(LL_X86)
    /* Two parts of bfloat16 are exact for the other types' values or nearly so; float32 is there to be exact. */
    if (level == CPU_AMX && kv_type != LL_F32 && head_dim % 16 == 0) return &attend_amx;
    if (level >= CPU_AVX512) return &attend_avx512;
    if (level == CPU_AVX2) return &attend_avx2;
#endif
    (void)level, (void)kv_type, (void)head_dim;
    return &attend_scalar;
}

/* ---- sizes ---- */

static int32_t group_of(const struct model *m) { return m->n_heads / m->n_kv_heads; }

int32_t attend_tile_tokens(const struct model *m) {
    int32_t fit = TILE_QUERIES / group_of(m);
    return fit > MAX_TILE_TOKENS ? MAX_TILE_TOKENS : fit > 0 ? fit : 1;
}

/* Floats of a state of so many queries, and the state that begins at `at`. */
static int64_t state_floats(int32_t queries, int32_t head_dim) {
    return (int64_t)((queries + 15) & ~15) * (2 + ((head_dim + 15) & ~15));
}

static struct attend_state state_at(float *at, int32_t queries) {
    int32_t padded = (queries + 15) & ~15;
    return (struct attend_state){at, at + padded, at + 2 * (int64_t)padded};
}

static int64_t widest_state(const struct model *m) {
    return state_floats(attend_tile_tokens(m) * group_of(m), m->head_dim);
}

int64_t attend_scratch(const struct attend_kernels *k, const struct model *m) {
    int64_t states = 2 * widest_state(m) * (int64_t)sizeof(float);
    return states + k->scratch(attend_tile_tokens(m) * group_of(m), m->head_dim);
}

int64_t attend_part_floats(const struct model *m, int32_t threads) {
    return PARTS_PER_THREAD * (int64_t)threads * widest_state(m);
}

/* ---- a tile ---- */

static struct attend_tile describe(const struct attend *w, const struct tile *tile, int32_t head) {
    const struct cpu *c = w->cpu;
    const struct model *m = w->m;
    int64_t width = (int64_t)m->n_heads * m->head_dim, first = (int64_t)head * group_of(m) * m->head_dim;
    return (struct attend_tile){
        .kv_type = c->kv.type,
        .head_dim = m->head_dim,
        .group = group_of(m),
        .tokens = tile->count,
        .window = m->layers[w->layer].window,
        .position = w->s->position[tile->first],
        .scale = m->attn_scale,
        .q = w->q + tile->first * width + first,
        .q_ld = width,
        .keys = c->pool + kv_offset(&c->kv, 0, w->layer, 0, head),
        .to_values = c->kv.plane_bytes,
        .row_bytes = c->kv.row_bytes,
        .block_bytes = c->kv.block_bytes,
        .to_next = head + 1 < m->n_kv_heads ? c->kv.head_bytes : 0,
        .blocks = w->s->batch.blocks + (int64_t)tile->row * w->s->batch.max_blocks,
        .block_size = c->kv.block_size,
    };
}

static float *output(const struct attend *w, const struct attend_tile *t) { return w->a + (t->q - w->q); }

/* The splits that a tile sees: [first, last]. */
static void splits(const struct attend *w, const struct tile *tile, int32_t *first, int32_t *last) {
    struct attend_tile t = {.window = w->m->layers[w->layer].window, .position = w->s->position[tile->first]};
    *first = attend_first_span(&t, 0) / ATTEND_SPLIT;
    *last = (t.position + tile->count - 1) / ATTEND_SPLIT;
}

static void fold_split(const struct attend *w, const struct attend_tile *t, int32_t split, void *scratch,
                       struct attend_state *state) {
    int32_t begin = split * ATTEND_SPLIT, end = t->position + t->tokens;
    w->cpu->attend->fold(t, begin, end - begin < ATTEND_SPLIT ? end : begin + ATTEND_SPLIT, scratch, state);
}

static float *part_at(const struct attend *w, const struct tile *tile, int32_t head, int32_t part) {
    int32_t queries = tile->count * group_of(w->m);
    return w->cpu->parts + tile->parts_at +
           ((int64_t)head * tile->shares + part) * state_floats(queries, w->m->head_dim);
}

/* ---- items ---- */

static void attend_whole(const struct attend *w, const struct attend_tile *t, int32_t first, int32_t last,
                         float *scratch) {
    const struct attend_kernels *k = w->cpu->attend;
    int32_t queries = attend_queries(t);
    int64_t floats = widest_state(w->m);
    struct attend_state total = state_at(scratch, queries), next = state_at(scratch + floats, queries);
    void *rest = scratch + 2 * floats;
    k->prepare(t, rest);
    fold_split(w, t, first, rest, &total);
    for (int32_t split = first + 1; split <= last; split++) {
        fold_split(w, t, split, rest, &next);
        k->merge(queries, t->head_dim, &next, &total);
    }
    k->finish(t, &total, output(w, t));
}

/* The tile whose items include this one: tiles lie in the order of their items. */
static const struct tile *tile_of(const struct track_arrays *track, int32_t item) {
    int32_t lo = 0, hi = track->n_tiles;
    while (hi - lo > 1) {
        int32_t middle = lo + (hi - lo) / 2;
        if (track->tiles[middle].first_item <= item)
            lo = middle;
        else
            hi = middle;
    }
    return &track->tiles[lo];
}

static void attend_item(void *arg, int32_t item, int32_t worker) {
    const struct attend *w = arg;
    const struct tile *tile = tile_of(w->track, item);
    int32_t local = item - tile->first_item, head = local / tile->shares, part = local % tile->shares, first, last;
    float *scratch = op_scratch(w->cpu, worker);
    struct attend_tile t = describe(w, tile, head);
    splits(w, tile, &first, &last);
    if (tile->shares == 1) {
        attend_whole(w, &t, first, last, scratch);
        return;
    }
    struct attend_state state = state_at(part_at(w, tile, head, part), attend_queries(&t));
    w->cpu->attend->prepare(&t, scratch);
    fold_split(w, &t, first + part, scratch, &state);
}

/* Merges what was shared out. */
static void merge_item(void *arg, int32_t item, int32_t worker) {
    const struct attend *w = arg;
    const struct cpu *c = w->cpu;
    const struct tile *tile = &w->track->tiles[item / w->m->n_kv_heads];
    int32_t head = item % w->m->n_kv_heads;
    struct attend_tile t = describe(w, tile, head);
    int32_t queries = attend_queries(&t);
    (void)worker;
    if (tile->shares == 1) return;
    struct attend_state total = state_at(part_at(w, tile, head, 0), queries);
    for (int32_t part = 1; part < tile->shares; part++) {
        struct attend_state next = state_at(part_at(w, tile, head, part), queries);
        c->attend->merge(queries, t.head_dim, &next, &total);
    }
    c->attend->finish(&t, &total, output(w, &t));
}

/* Shares out the tiles that are more than a fair part of all work. Returns the number of items; `shared`: some are. */
static int32_t share_out(const struct attend *w, bool *shared) {
    const struct track_arrays *track = w->track;
    int32_t heads = w->m->n_kv_heads, threads = w->cpu->config.threads, first, last, items = 0;
    int64_t total = 0, used = 0, room = attend_part_floats(w->m, threads);
    for (int32_t i = 0; i < track->n_tiles; i++) {
        splits(w, &track->tiles[i], &first, &last);
        total += (int64_t)(last - first + 1) * heads;
    }
    *shared = false;
    for (int32_t i = 0; i < track->n_tiles; i++) {
        struct tile *tile = &track->tiles[i];
        splits(w, tile, &first, &last);
        int32_t count = last - first + 1;
        int64_t floats = heads * count * state_floats(tile->count * group_of(w->m), w->m->head_dim);
        bool share =
            threads > 1 && count > 1 && used + floats <= room && (int64_t)count * ITEMS_PER_THREAD * threads > total;
        tile->shares = share ? count : 1;
        tile->parts_at = used;
        tile->first_item = items;
        used += share ? floats : 0;
        items += heads * tile->shares;
        *shared = *shared || share;
    }
    return items;
}

void cpu_attend(void *dev, const struct model *m, int32_t layer, const struct step *s, const float *q, float *a) {
    struct cpu *c = dev;
    struct attend w = {c, &c->tracks[s->track], m, s, layer, q, a};
    bool shared;
    int32_t items = share_out(&w, &shared);
    team_run(c->team, items, attend_item, &w);
    if (shared) team_run(c->team, w.track->n_tiles * m->n_kv_heads, merge_item, &w);
}
