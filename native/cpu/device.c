/* Life of a CPU device: one piece of memory for everything a step needs, one for the KV pool, a team of threads. */
#define _GNU_SOURCE

#include <stdlib.h>
#include <sys/mman.h>

#include "base/arena.h"
#include "base/status.h"
#include "cpu.h"
#include "cpuinfo.h"
#include "model/rope.h"

static int32_t widest_input(const struct model *m) {
    int32_t q = m->n_heads * m->head_dim, widest = m->n_embd > m->n_ff ? m->n_embd : m->n_ff;
    return (q > widest ? q : widest) + 63; /* quantized rows come in pieces of 64 */
}

/* Lays out all buffers of a step; with no base it only counts, so that the plan is the allocation. */
static void lay_out(struct cpu *c, const struct model *m, struct arena *a) {
    uint64_t n = (uint64_t)c->config.max_tokens, f = sizeof(float), wide = (uint64_t)widest_input(m);
    uint64_t q = (uint64_t)m->n_heads * (uint64_t)m->head_dim, kv = (uint64_t)m->n_kv_heads * (uint64_t)m->head_dim;
    for (struct track_arrays *track = c->tracks; track < c->tracks + TRACKS; track++) {
        track->x = arena_take(a, n * (uint64_t)m->n_embd, f);
        track->row_of = arena_take(a, n, sizeof(int32_t));
        track->position = arena_take(a, n, sizeof(int32_t));
        track->rotation = arena_take(a, n * (uint64_t)m->rope_dims, f);
        track->tiles = arena_take(a, n, sizeof(struct tile));
    }
    c->parts = arena_take(a, (uint64_t)attend_part_floats(m, c->config.threads), f);
    c->normed = arena_take(a, n * (uint64_t)m->n_embd, f);
    uint64_t padded = (uint64_t)padded_tokens(c->config.max_tokens);
    c->blocks.q = arena_take(a, padded * wide, 1);
    c->blocks.scale = arena_take(a, padded * (wide / 32), f);
    c->blocks.sums = arena_take(a, padded * (wide / 32), sizeof(int16_t));
    c->supers.q = arena_take(a, padded * wide, 1);
    c->supers.scale = arena_take(a, padded * (wide / 256), f);
    c->supers.sums = arena_take(a, padded * (wide / 256) * SUPER_SUMS, sizeof(int16_t));
    if (c->kernels->prompts) { /* level amx */
        c->fours.q = arena_take(a, padded * wide, 1);
        c->fours.sums = arena_take(a, padded * (wide / 256) * SUPER_SUMS, sizeof(int16_t));
        c->prompt.high = arena_take(a, padded * (wide + 32), sizeof(uint16_t));
        c->prompt.low = arena_take(a, padded * (wide + 32), sizeof(uint16_t));
    }
    c->work.q = arena_take(a, n * q, f);
    c->work.a = arena_take(a, n * q, f);
    c->work.k = arena_take(a, n * kv, f);
    c->work.v = arena_take(a, n * kv, f);
    c->work.h = arena_take(a, n * (uint64_t)m->n_ff, f);
    c->work.logits = arena_take(a, (uint64_t)c->config.max_samples * (uint64_t)m->n_vocab, f);
    c->scratch = arena_take(a, (uint64_t)c->config.threads, (uint64_t)c->scratch_bytes);
}

static int64_t round_up(int64_t bytes) { return (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN; }

/* Everything about a device that needs no memory. */
static int configure(struct cpu *c, const struct ll_model *model, const ll_runner_config *config) {
    const struct model *m = &model->view;
    *c = (struct cpu){.config = *config, .model = m};
    if (c->config.threads == 0) c->config.threads = cpu_count();
    TRY(kv_layout_init(&c->kv, m, config->kv_type, config->block_size));
    c->kernels = kernels_for(NULL);
    if (!c->kernels) return LL_EINVAL; /* kernels_for() has said why */
    c->row = c->kernels->row;
    c->read_ahead = cpu_read_ahead();
    enum cpu_level level = CPU_SCALAR;
    TRY(cpu_level_in_use(&level));
    c->attend = attend_kernels_for(level, config->kv_type, m->head_dim);
    int64_t tiles = 2 * tile_floats(config->max_tokens) * (int64_t)sizeof(float);
    int64_t attend = attend_scratch(c->attend, m);
    c->matmul_bytes = round_up(c->kernels->scratch(widest_input(m), config->max_tokens));
    if (c->kernels->prompts) {
        int64_t bytes = round_up(c->kernels->prompts->scratch(config->max_tokens));
        if (bytes > c->matmul_bytes) c->matmul_bytes = bytes;
    }
    c->scratch_bytes = c->matmul_bytes + round_up(tiles > attend ? tiles : attend);
    if (c->kv.block_bytes > INT64_MAX / config->n_blocks)
        return fail(LL_EINVAL, "n_blocks: %d blocks of %lld bytes are more than memory can address", config->n_blocks,
                    (long long)c->kv.block_bytes);
    c->pool_bytes = (uint64_t)c->kv.block_bytes * (uint64_t)config->n_blocks;
    return LL_OK;
}

int cpu_plan(const struct ll_model *model, const ll_runner_config *config, ll_plan *plan) {
    struct cpu c;
    struct arena counted = {0};
    TRY(configure(&c, model, config));
    lay_out(&c, &model->view, &counted);
    *plan = (ll_plan){model->weight_bytes, (uint64_t)c.kv.block_bytes, c.pool_bytes, counted.used};
    return LL_OK;
}

/* ---- a step ---- */

struct turn {
    const struct model *m;
    const struct track_arrays *track;
};

static void turn_token(void *arg, int32_t t, int32_t worker) {
    const struct turn *w = arg;
    (void)worker;
    rope_rotation(w->m, w->track->position[t], w->track->rotation + (int64_t)t * w->m->rope_dims);
}

static int cpu_begin(void *self, enum track track, const ll_batch *b, struct step *out) {
    struct cpu *c = self;
    struct track_arrays *l = &c->tracks[track];
    int32_t tile = attend_tile_tokens(c->model);
    l->n_tiles = 0;
    for (int32_t r = 0; r < b->n_rows; r++) {
        int32_t start = b->row_start[r], end = b->row_start[r + 1];
        for (int32_t t = start; t < end; t++) {
            l->row_of[t] = r;
            l->position[t] = b->row_pos[r] + (t - start);
        }
        for (int32_t t = start; t < end; t += tile)
            l->tiles[l->n_tiles++] = (struct tile){.row = r, .first = t, .count = end - t < tile ? end - t : tile};
    }
    struct turn turn = {c->model, l};
    team_run(c->team, b->n_tokens, turn_token, &turn);
    *out = (struct step){track, l->x, *b, l->row_of, l->position, l->rotation};
    return LL_OK;
}

static const float *cpu_logits(void *self) { return ((struct cpu *)self)->work.logits; }

/* ---- life ---- */

static void cpu_close(void *self) {
    struct cpu *c = self;
    team_close(c->team);
    if (c->pool) munmap(c->pool, c->pool_bytes);
    if (c->memory) munmap(c->memory, c->memory_bytes);
    free(c);
}

/* Pages that are never touched cost nothing: a large KV pool fills as it is used. */
static int map_memory(uint64_t bytes, const char *what, uint8_t **out) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return fail(LL_ENOMEM, "no memory for %s: %llu MB", what, (unsigned long long)bytes >> 20);
#if defined(MADV_HUGEPAGE)
    madvise(p, bytes, MADV_HUGEPAGE); /* activations are walked in long strides; a refusal costs only time */
#endif
    *out = p;
    return LL_OK;
}

static int take_memory(struct cpu *c, const struct model *m) {
    struct arena counted = {0};
    lay_out(c, m, &counted);
    c->memory_bytes = counted.used;
    TRY(map_memory(c->memory_bytes, "a step's activations", &c->memory));
    struct arena real = {c->memory, 0};
    lay_out(c, m, &real);
    TRY(map_memory(c->pool_bytes, "the KV pool", &c->pool));
#if defined(MADV_HUGEPAGE)
    madvise(c->pool, c->pool_bytes, MADV_HUGEPAGE); /* a head's keys lie 16 at a time all over it */
#endif
    return team_open(&c->team, c->config.threads);
}

int cpu_open(struct device *out, const struct ll_model *model, const ll_runner_config *config) {
    struct cpu *c = malloc(sizeof *c);
    if (!c) return fail(LL_ENOMEM, "no memory for a device");
    int status = configure(c, model, config);
    if (!status) status = take_memory(c, &model->view);
    if (status) {
        cpu_close(c);
        return status;
    }
    *out = (struct device){&cpu_ops, c,         &model->view, c->work,   c->config.threads,
                           c->team,  cpu_begin, cpu_logits,   cpu_close, .prompts_apart = c->kernels->prompts != NULL};
    return LL_OK;
}
