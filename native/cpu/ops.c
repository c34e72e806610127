/* The CPU's operations around products. Each has two passes over the team: the tokens' inputs are normed and
 * quantized, then the rows of the weights are shared out. Which worker takes which rows changes no bit.
 *
 * A level may have prompt kernels: then the step's first tokens, those that were generated, go through the quantized
 * products, and those of prompts, behind them, through the others, one right after the other on the same weights. */
#include <stdbool.h>
#include <string.h>

#include "cpu.h"
#include "quant/formats.h"

enum { TILE_FLOATS = 1 << 17, MAX_ROWS_PER_ITEM = 256, ROW_GROUP = 16, VALUES_PER_ITEM = 1 << 13 };

/* What products ask of their input: columns that share a scale, or, of prompts, the low part too. */
enum asked { BLOCKS = 1, SUPERS = 2, LOW = 4 };

/* What becomes of a product's output. */
enum use { STORE, ADD, GLU };

/* The tokens before a product: generated ones and then prompts. */
struct tokens {
    struct activations generated;
    struct prompt prompt;
};

struct product {
    struct cpu *cpu;
    struct tokens in;
    int32_t n; /* of both */
    enum use use;
    int32_t count; /* of the weights below; a GLU's gate and up are one unit */
    const struct linear *w[3];
    float *out[3];               /* (n, rows of w) each */
    int32_t first_item[4];       /* item numbers of each weight start here */
    int32_t rows_per_item[3];
};

struct input {
    struct cpu *cpu;
    const float *x;             /* (n_tokens, k) */
    const float *norm;          /* (k) or NULL: x as it is */
    float eps;
    unsigned asked;             /* enum asked */
    int32_t k;
    int32_t parts;              /* in which columns of a group of generated tokens are shared out */
    struct tokens out;
};

int64_t tile_floats(int32_t max_tokens) {
    int64_t least = (int64_t)max_tokens * ROW_GROUP;
    return least > TILE_FLOATS ? least : TILE_FLOATS;
}

/* ---- inputs ---- */

/* Normed, if the input is to be. */
static const float *input_row(const struct input *in, int32_t t) {
    const float *x = in->x + (int64_t)t * in->k;
    if (!in->norm) return x;
    float *normed = in->cpu->normed + (int64_t)t * in->k;
    in->cpu->row->norm(in->k, x, in->norm, in->eps, normed);
    return normed;
}

static void norm_item(void *arg, int32_t token, int32_t worker) {
    (void)worker;
    input_row(arg, token);
}

/* A group's tokens, some of their columns: tokens of a group share cache lines, so no two workers write them. */
static void quantize_part(const struct input *in, int32_t group, int32_t part) {
    const struct kernels *kernels = in->cpu->kernels;
    const struct activations *a = &in->out.generated;
    int32_t end = (group + 1) * GROUP < a->n ? (group + 1) * GROUP : a->n;
    int32_t blocks = in->k / 32, supers = (blocks + 7) / 8;
    int32_t first = (int32_t)((int64_t)supers * part / in->parts),
            stop = (int32_t)((int64_t)supers * (part + 1) / in->parts);
    int32_t last = 8 * stop < blocks ? 8 * stop : blocks;
    for (int32_t t = group * GROUP; t < end; t++) {
        const float *x = a->x + t * a->ld;
        if (in->asked & BLOCKS) kernels->quantize_blocks(a, t, 8 * first, last - 8 * first, x);
        if (in->asked & SUPERS) kernels->quantize_supers(a, t, first, stop - first, x);
    }
}

/* Items are parts of groups of generated tokens and then groups of prompt tokens. */
static void prepare_item(void *arg, int32_t item, int32_t worker) {
    struct input *in = arg;
    const struct activations *a = &in->out.generated;
    const struct prompt *p = &in->out.prompt;
    int32_t parts = groups_of(a->n) * in->parts, from = (item - parts) * GROUP;
    (void)worker;
    if (item < parts) {
        quantize_part(in, item / in->parts, item % in->parts);
        return;
    }
    const float *x = input_row(in, a->n + from);
    for (int32_t t = from + 1; t < from + GROUP && t < p->n; t++) input_row(in, a->n + t);
    in->cpu->kernels->prompts->pack(p, item - parts, x, in->k);
}

static unsigned asked_by(const struct linear *const *w, int32_t count) {
    unsigned asked = 0;
    for (int32_t i = 0; i < count; i++) {
        enum form form = form_of(w[i]->w.type);
        if (form == FORM_FLOAT)
            asked |= w[i]->w.type == LL_F32 ? 0 : LOW;
        else
            asked |= is_super(form) ? SUPERS : BLOCKS;
    }
    return asked;
}

static void prepare(struct input *in, const struct step *s) {
    struct cpu *c = in->cpu;
    int32_t n = s->batch.n_tokens, generated = c->kernels->prompts ? s->batch.n_generated : n;
    in->out.generated = (struct activations){.n = generated,
                                             .k = in->k,
                                             .rows = group_rows(generated),
                                             .ahead = c->read_ahead,
                                             .ld = in->k,
                                             .x = in->norm ? c->normed : in->x,
                                             .blocks = c->blocks,
                                             .supers = c->supers,
                                             .fours = c->fours};
    in->out.prompt = (struct prompt){n - generated, in->k, c->prompt.high, in->asked & LOW ? c->prompt.low : NULL};
    int32_t share = (int32_t)((int64_t)group_rows(generated) * in->k / VALUES_PER_ITEM), most = (in->k + 255) / 256;
    in->parts = share < 1 ? 1 : share < most ? share : most;
    if (in->norm) team_run(c->team, generated, norm_item, in);
    team_run(c->team, groups_of(generated) * in->parts + groups_of(n - generated), prepare_item, in);
}

/* ---- products ---- */

static void add_bias(float *out, int64_t ld, int32_t n, int32_t rows, const float *bias) {
    if (!bias) return;
    for (int32_t t = 0; t < n; t++, out += ld) {
        for (int32_t r = 0; r < rows; r++) out[r] += bias[r];
    }
}

/* Floats of 32 bits know no other arithmetic. */
static void multiply_prompt(const struct product *p, const struct tensor *w, const uint8_t *rows_at, int32_t rows,
                            float *out, int64_t ld, void *scratch) {
    const struct prompt *prompt = &p->in.prompt;
    if (w->type != LL_F32) {
        p->cpu->kernels->prompts->matmul(w->type, rows_at, w->row_bytes, rows, prompt, out, ld, scratch);
        return;
    }
    struct activations a = p->in.generated;
    a.x += a.n * a.ld;
    a.n = prompt->n;
    p->cpu->kernels->matmul[w->type](rows_at, w->row_bytes, rows, &a, out, ld, scratch);
}

static void multiply(const struct product *p, const struct linear *l, int32_t first, int32_t rows, float *out,
                     int64_t ld, int32_t worker) {
    const struct tensor *w = &l->w;
    const struct activations *a = &p->in.generated;
    const uint8_t *from = w->data + first * w->row_bytes;
    void *scratch = matmul_scratch(p->cpu, worker);
    if (a->n) p->cpu->kernels->matmul[w->type](from, w->row_bytes, rows, a, out, ld, scratch);
    if (p->in.prompt.n) multiply_prompt(p, w, from, rows, out + a->n * ld, ld, scratch);
    add_bias(out, ld, p->n, rows, l->bias ? l->bias + first : NULL);
}

static void product_item(void *arg, int32_t item, int32_t worker) {
    const struct product *p = arg;
    const struct row_kernels *row = p->cpu->row;
    int32_t i = 0;
    while (item >= p->first_item[i + 1]) i++;
    int32_t total = p->w[i]->w.rows, first = (item - p->first_item[i]) * p->rows_per_item[i];
    int32_t rows = total - first < p->rows_per_item[i] ? total - first : p->rows_per_item[i];
    float *out = p->out[i] + first, *tile = op_scratch(p->cpu, worker), *up = tile + (int64_t)p->n * rows;
    if (p->use == STORE) {
        multiply(p, p->w[i], first, rows, out, total, worker);
        return;
    }
    multiply(p, p->w[i], first, rows, tile, rows, worker);
    if (p->use == GLU) multiply(p, p->w[i + 1], first, rows, up, rows, worker);
    for (int32_t t = 0; t < p->n; t++, tile += rows, up += rows, out += total) {
        if (p->use == ADD)
            row->add(rows, tile, out);
        else
            row->swiglu(rows, tile, up, out);
    }
}

/* Enough items that a late worker costs little, few enough that a group's weights are unpacked once. */
static int32_t rows_per_item(const struct cpu *c, int32_t rows, int32_t n) {
    int32_t share = rows / (2 * team_threads(c->team)), fit = TILE_FLOATS / n;
    if (share > MAX_ROWS_PER_ITEM) share = MAX_ROWS_PER_ITEM;
    if (share > fit) share = fit;
    share = share / ROW_GROUP * ROW_GROUP;
    return share > ROW_GROUP ? share : ROW_GROUP;
}

static void multiply_all(struct product *p, struct input *in, const struct step *s) {
    p->n = s->batch.n_tokens;
    if (p->n == 0) return;
    prepare(in, s);
    p->in = in->out;
    for (int32_t i = 0; i < p->count; i++) {
        int32_t rows = p->w[i]->w.rows;
        p->rows_per_item[i] = rows_per_item(p->cpu, rows, p->n);
        p->first_item[i + 1] = p->first_item[i] + (rows + p->rows_per_item[i] - 1) / p->rows_per_item[i];
    }
    team_run(p->cpu->team, p->first_item[p->count], product_item, p);
}

/* ---- the table ---- */

struct embed {
    struct cpu *cpu;
    const struct model *m;
    const struct step *s;
    float *x;
};

static void embed_token(void *arg, int32_t t, int32_t worker) {
    const struct embed *e = arg;
    const struct tensor *w = &e->m->embed;
    (void)worker;
    decode_row(w->type, w->data + e->s->batch.tokens[t] * w->row_bytes, w->cols, e->x + (int64_t)t * w->cols);
}

static void cpu_embed(void *dev, const struct model *m, const struct step *s, float *x) {
    struct embed e = {dev, m, s, x};
    team_run(e.cpu->team, s->batch.n_tokens, embed_token, &e);
}

static void cpu_norm_qkv(void *dev, const struct model *m, const struct layer *l, const struct step *s, const float *x,
                         float *q, float *k, float *v) {
    struct product p = {.cpu = dev, .use = STORE, .count = 3, .w = {&l->q, &l->k, &l->v}, .out = {q, k, v}};
    struct input in = {
        .cpu = dev, .x = x, .norm = l->attn_norm, .eps = m->norm_eps, .k = m->n_embd, .asked = asked_by(p.w, 3)};
    multiply_all(&p, &in, s);
}

/* Samples rise, so no row is overwritten before it has moved. */
static void move_rows(const struct step *s, int64_t width, float *x) {
    for (int32_t i = 0; i < s->batch.n_samples; i++)
        memmove(x + i * width, x + s->batch.samples[i] * width, (size_t)width * sizeof *x);
}

static void cpu_keep_sampled(void *dev, const struct model *m, const struct step *s, float *x, float *a) {
    (void)dev;
    move_rows(s, m->n_embd, x);
    move_rows(s, (int64_t)m->n_heads * m->head_dim, a);
}

static void cpu_linear_add(void *dev, const struct linear *w, const struct step *s, const float *from, float *x) {
    struct product p = {.cpu = dev, .use = ADD, .count = 1, .w = {w}, .out = {x}};
    struct input in = {.cpu = dev, .x = from, .k = w->w.cols, .asked = asked_by(p.w, 1)};
    multiply_all(&p, &in, s);
}

static void cpu_norm_glu(void *dev, const struct model *m, const struct layer *l, const struct step *s, const float *x,
                         float *h) {
    struct product p = {.cpu = dev, .use = GLU, .count = 1, .w = {&l->gate, &l->up}, .out = {h}};
    struct input in = {
        .cpu = dev, .x = x, .norm = l->ffn_norm, .eps = m->norm_eps, .k = m->n_embd, .asked = asked_by(p.w, 2)};
    multiply_all(&p, &in, s);
}

static void cpu_head(void *dev, const struct model *m, const struct step *s, const float *x, float *logits) {
    struct product p = {.cpu = dev, .use = STORE, .count = 1, .w = {&m->head}, .out = {logits}};
    struct input in = {
        .cpu = dev, .x = x, .norm = m->out_norm, .eps = m->norm_eps, .k = m->n_embd, .asked = asked_by(p.w, 1)};
    multiply_all(&p, &in, s);
}

/* ---- rotation and the KV cache ---- */

struct rotate {
    struct cpu *cpu;
    const struct model *m;
    const struct step *s;
    int32_t layer;
    float *q, *k;
    const float *v;
};

static void rotate_heads(const struct rotate *w, int32_t token, int32_t heads, const float *norm, float *x) {
    const struct model *m = w->m;
    const float *rotation = w->s->rotation + (int64_t)token * m->rope_dims;
    for (int32_t h = 0; h < heads; h++, x += m->head_dim) {
        if (norm) w->cpu->row->norm(m->head_dim, x, norm, m->norm_eps, x);
        w->cpu->row->rotate(m->rope_style, m->rope_dims, rotation, x);
    }
}

static void rotate_token(void *arg, int32_t token, int32_t worker) {
    const struct rotate *w = arg;
    const struct model *m = w->m;
    const struct layer *l = &m->layers[w->layer];
    const struct kv_layout *kv = &w->cpu->kv;
    int64_t width = (int64_t)m->n_kv_heads * m->head_dim;
    float *k = w->k + token * width;
    const float *v = w->v + token * width;
    (void)worker;
    rotate_heads(w, token, m->n_heads, l->q_norm, w->q + (int64_t)token * m->n_heads * m->head_dim);
    rotate_heads(w, token, m->n_kv_heads, l->k_norm, k);

    int32_t position = w->s->position[token], slot = position % kv->block_size;
    const int32_t *blocks = w->s->batch.blocks + (int64_t)w->s->row_of[token] * w->s->batch.max_blocks;
    int32_t block = blocks[position / kv->block_size];
    for (int32_t h = 0; h < m->n_kv_heads; h++, k += m->head_dim, v += m->head_dim) {
        uint8_t *key = w->cpu->pool + kv_offset(kv, block, w->layer, 0, h) + slot * kv->row_bytes;
        w->cpu->row->store(kv->type, m->head_dim, k, key);
        w->cpu->row->store(kv->type, m->head_dim, v, key + kv->plane_bytes);
    }
}

static void cpu_rotate_store(void *dev, const struct model *m, int32_t layer, const struct step *s, float *q, float *k,
                             const float *v) {
    struct rotate w = {dev, m, s, layer, q, k, v};
    team_run(w.cpu->team, s->batch.n_tokens, rotate_token, &w);
}

static int cpu_finish(void *dev) {
    (void)dev; /* operations here are done when they return */
    return 0;
}

const struct ops cpu_ops = {
    "cpu",          cpu_embed,    cpu_norm_qkv, cpu_rotate_store, cpu_attend, cpu_keep_sampled,
    cpu_linear_add, cpu_norm_glu, cpu_head,     cpu_finish,
};
