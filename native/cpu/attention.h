/* Attention of one tile of queries over a range of cached keys: what attention.c asks of each instruction-set level.
 *
 * A tile is a few neighbouring tokens of one row and the query heads that share one KV head; query i is head i % group
 * of token i / group. The KV range is cut at absolute positions: every ATTEND_SPLIT keys a new state begins, which is
 * merged into the states of the splits before it in their order; inside a split each span of ATTEND_SPAN keys is
 * weighed at once and folded into the split's state. A query whose span or split is all hidden keeps its state. So what
 * a query gets depends on its own row alone, and splits may be computed by different threads.
 *
 * The tables scalar, avx2 and avx512 give the same bits, and so does CUDA. Table amx differs from them by at most
 * about 2^-15 of a value's size: see attention_amx.c. */
#ifndef ATTENTION_H
#define ATTENTION_H
#include <stdint.h>

#include "cpuinfo.h"

enum { ATTEND_SPAN = 64, ATTEND_SPLIT = 1024, ATTEND_GROUP = 16 };
/* ATTEND_GROUP divides both block sizes: that many keys lie together in memory, rows row_bytes apart. */

struct attend_tile {
    int32_t kv_type, head_dim, group, tokens, window;
    int32_t position;     /* of the first token */
    float scale;          /* of a score */
    const float *q;       /* first query of the first token; heads lie head_dim apart */
    int64_t q_ld;         /* from one token's queries to the next */
    const uint8_t *keys;  /* this layer and KV head in block 0 of the pool */
    int64_t to_values, row_bytes, block_bytes;
    int64_t to_next;      /* from this KV head's keys to those that will probably be asked for next */
    const int32_t *blocks; /* block table of the row */
    int32_t block_size;
};

/* The running softmax (Milakov and Gimelshein 2018) of a tile's queries, whose count is rounded up to 16: the largest
 * score so far, the sum of exp(score - max), and the values weighted by it. Nothing seen: -INFINITY, 0, 0. */
struct attend_state {
    float *max, *sum; /* (queries) */
    float *acc;       /* (queries, head_dim up to a multiple of 16) */
};

struct attend_kernels {
    const char *name;
    /* bytes of scratch, which is aligned to 64, for tiles of up to so many queries */
    int64_t (*scratch)(int32_t queries, int32_t head_dim);
    /* readies scratch for folds of this tile */
    void (*prepare)(const struct attend_tile *t, void *scratch);
    /* s = the state of keys [begin, end) alone; begin is a multiple of ATTEND_SPLIT, and all lie in one split */
    void (*fold)(const struct attend_tile *t, int32_t begin, int32_t end, void *scratch, struct attend_state *s);
    /* into = into merged with the split after it */
    void (*merge)(int32_t queries, int32_t head_dim, const struct attend_state *from, struct attend_state *into);
    /* out = acc / sum; query i goes where it came from in q */
    void (*finish)(const struct attend_tile *t, const struct attend_state *s, float *out);
};

/* All but scalar are built on x86-64 only. */
extern const struct attend_kernels attend_scalar, attend_avx2, attend_avx512, attend_amx;

/* The table of a level. A KV type or head size that tiles do not serve gets the table of level avx512. */
const struct attend_kernels *attend_kernels_for(enum cpu_level level, int32_t kv_type, int32_t head_dim);

static inline int32_t attend_queries(const struct attend_tile *t) { return t->tokens * t->group; }
/* Floats from the tile's first query to query i, in q and in the output. */
static inline int64_t attend_query_offset(const struct attend_tile *t, int32_t i) {
    return i / t->group * t->q_ld + (int64_t)(i % t->group) * t->head_dim;
}
static inline const float *attend_query(const struct attend_tile *t, int32_t i) {
    return t->q + attend_query_offset(t, i);
}

/* Row of `position`'s key; its value lies to_values further. */
static inline const uint8_t *attend_row(const struct attend_tile *t, int32_t position) {
    return t->keys + t->blocks[position / t->block_size] * t->block_bytes + position % t->block_size * t->row_bytes;
}

/* The keys that a token of the tile sees, [lo, hi), counted from position `from`. */
static inline void attend_visible(const struct attend_tile *t, int32_t token, int32_t from, int32_t *lo, int32_t *hi) {
    int32_t at = t->position + token;
    *lo = (t->window > 0 && at >= t->window ? at - t->window + 1 : 0) - from;
    *hi = at + 1 - from;
}

/* The first span at or behind `begin` of which a token of the tile sees something. */
static inline int32_t attend_first_span(const struct attend_tile *t, int32_t begin) {
    int32_t lo, hi;
    attend_visible(t, 0, 0, &lo, &hi);
    return lo > begin ? lo / ATTEND_SPAN * ATTEND_SPAN : begin;
}

#endif
