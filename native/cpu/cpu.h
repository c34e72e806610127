/* The CPU device: its kernels, its threads, the KV pool and the buffers of a step. Its operations are spread over
 * ops.c (products, norms), attention.c and device.c (life and batches). */
#ifndef CPU_H
#define CPU_H
#include "attention.h"
#include "kernels.h"
#include "ops.h"
#include "row_kernels.h"
#include "team.h"

/* Tokens of one row that are attended together. */
struct tile {
    int32_t row, first, count; /* tokens [first, first + count) of the batch */
    /* how this layer's attention shares it out (attention.c): */
    int32_t first_item, shares; /* shares: pieces per KV head */
    int64_t parts_at;           /* where in cpu.parts their states lie */
};

/* What a batch keeps from one layer to the next. */
struct track_arrays {
    float *x;                   /* (max_tokens, n_embd) */
    int32_t *row_of, *position; /* (max_tokens) */
    float *rotation;            /* (max_tokens, rope_dims / 2, 2) */
    struct tile *tiles;         /* (max_tokens) */
    int32_t n_tiles;
};

struct cpu {
    const struct kernels *kernels;
    const struct row_kernels *row;
    const struct attend_kernels *attend;
    struct team *team;
    ll_runner_config config;
    const struct model *model;
    struct kv_layout kv;
    int32_t read_ahead;      /* cpu_read_ahead() */
    uint8_t *pool;           /* (n_blocks, kv.block_bytes) */
    uint64_t pool_bytes;
    uint8_t *memory;         /* one piece: everything below, and the work buffers */
    uint64_t memory_bytes;
    struct track_arrays tracks[TRACKS];
    float *parts;            /* states of tiles that are shared out (attend_part_floats) */
    float *normed;           /* (max_tokens, n_embd) */
    struct quants blocks, supers; /* of the widest input */
    struct quants fours;          /* likewise, at level amx: struct activations */
    struct prompt prompt;         /* likewise, where the level has prompt kernels */
    uint8_t *scratch;        /* (threads, scratch_bytes) */
    int64_t scratch_bytes, matmul_bytes;
    struct work work;
};

extern const struct ops cpu_ops;

/* attention.c */
int32_t attend_tile_tokens(const struct model *m);
int64_t attend_scratch(const struct attend_kernels *k, const struct model *m);
int64_t attend_part_floats(const struct model *m, int32_t threads);
void cpu_attend(void *dev, const struct model *m, int32_t layer, const struct step *s, const float *q, float *a);

/* ops.c: floats of output that a worker may hold aside */
int64_t tile_floats(int32_t max_tokens);

/* A worker's scratch: the products' own, then the operation's. Both aligned to 64. */
static inline void *matmul_scratch(const struct cpu *c, int32_t worker) {
    return c->scratch + worker * c->scratch_bytes;
}
static inline float *op_scratch(const struct cpu *c, int32_t worker) {
    return (float *)(void *)(c->scratch + worker * c->scratch_bytes + c->matmul_bytes);
}

#endif
