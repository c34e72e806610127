#include "profile.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/status.h"

struct profile {
    struct device inner;
    struct kv_layout kv;
    ll_batch batch[TRACKS]; /* as the caller gave it: a step's own may be in a device's memory */
    double last;           /* when the last operation ended */
    ll_op_work work[LL_OPS];
};

void profile_start(struct profile *p) {
    if (p) p->last = clock_seconds();
}

void profile_stop(struct profile *p, int32_t op) {
    if (!p) return;
    double time = clock_seconds();
    p->work[op].calls++;
    p->work[op].nanoseconds += (uint64_t)(1e9 * (time - p->last));
    p->last = time;
}

void profile_get(const struct profile *p, ll_op_work *out) {
    for (int32_t i = 0; i < LL_OPS; i++) out[i] = p->work[i];
}

/* ---- work ---- */

static void count_product(struct profile *p, int32_t op, const struct linear *l, int32_t n) {
    if (n == 0) return;
    p->work[op].multiply_adds += (uint64_t)l->w.rows * (uint64_t)l->w.cols * (uint64_t)n;
    p->work[op].bytes += (uint64_t)l->w.rows * (uint64_t)l->w.row_bytes;
}

/* Each token sees those up to itself, in a window; a sequence's part of the cache is read once for all its tokens. */
static void count_attention(struct profile *p, const struct model *m, const struct layer *l, enum track track) {
    const ll_batch *b = &p->batch[track];
    uint64_t seen = 0, read = 0;
    for (int32_t r = 0; r < b->n_rows; r++) {
        int32_t count = b->row_start[r + 1] - b->row_start[r], end = b->row_pos[r] + count, widest = end;
        for (int32_t position = b->row_pos[r]; position < end; position++)
            seen += (uint64_t)(l->window && position >= l->window ? l->window : position + 1);
        if (l->window && l->window + count - 1 < widest) widest = l->window + count - 1;
        read += (uint64_t)widest;
    }
    p->work[LL_OP_ATTEND].multiply_adds += 2 * seen * (uint64_t)m->n_heads * (uint64_t)m->head_dim;
    p->work[LL_OP_ATTEND].bytes += 2 * read * (uint64_t)m->n_kv_heads * (uint64_t)p->kv.row_bytes;
}

/* ---- operations ---- */

static void embed(void *dev, const struct model *m, const struct step *s, float *x) {
    struct profile *p = dev;
    p->inner.ops->embed(p->inner.self, m, s, x);
    p->work[LL_OP_EMBED].bytes += (uint64_t)s->batch.n_tokens * (uint64_t)m->embed.row_bytes;
    profile_stop(p, LL_OP_EMBED);
}

static void norm_qkv(void *dev, const struct model *m, const struct layer *l, const struct step *s, const float *x,
                     float *q, float *k, float *v) {
    struct profile *p = dev;
    p->inner.ops->norm_qkv(p->inner.self, m, l, s, x, q, k, v);
    count_product(p, LL_OP_NORM_QKV, &l->q, s->batch.n_tokens);
    count_product(p, LL_OP_NORM_QKV, &l->k, s->batch.n_tokens);
    count_product(p, LL_OP_NORM_QKV, &l->v, s->batch.n_tokens);
    profile_stop(p, LL_OP_NORM_QKV);
}

static void rotate_store(void *dev, const struct model *m, int32_t layer, const struct step *s, float *q, float *k,
                         const float *v) {
    struct profile *p = dev;
    p->inner.ops->rotate_store(p->inner.self, m, layer, s, q, k, v);
    profile_stop(p, LL_OP_ROTATE_STORE);
}

static void attend(void *dev, const struct model *m, int32_t layer, const struct step *s, const float *q, float *a) {
    struct profile *p = dev;
    p->inner.ops->attend(p->inner.self, m, layer, s, q, a);
    count_attention(p, m, &m->layers[layer], s->track);
    profile_stop(p, LL_OP_ATTEND);
}

/* Its time goes to the operation after it. */
static void keep_sampled(void *dev, const struct model *m, const struct step *s, float *x, float *a) {
    struct profile *p = dev;
    p->inner.ops->keep_sampled(p->inner.self, m, s, x, a);
}

static bool is_out(const struct model *m, const struct linear *w) {
    for (int32_t i = 0; i < m->n_layers; i++)
        if (w == &m->layers[i].o) return true;
    return false;
}

static void linear_add(void *dev, const struct linear *w, const struct step *s, const float *in, float *x) {
    struct profile *p = dev;
    int32_t op = is_out(p->inner.model, w) ? LL_OP_ADD_OUT : LL_OP_ADD_DOWN;
    p->inner.ops->linear_add(p->inner.self, w, s, in, x);
    count_product(p, op, w, s->batch.n_tokens);
    profile_stop(p, op);
}

static void norm_glu(void *dev, const struct model *m, const struct layer *l, const struct step *s, const float *x,
                     float *h) {
    struct profile *p = dev;
    p->inner.ops->norm_glu(p->inner.self, m, l, s, x, h);
    count_product(p, LL_OP_NORM_GLU, &l->gate, s->batch.n_tokens);
    count_product(p, LL_OP_NORM_GLU, &l->up, s->batch.n_tokens);
    profile_stop(p, LL_OP_NORM_GLU);
}

static void head(void *dev, const struct model *m, const struct step *s, const float *x, float *logits) {
    struct profile *p = dev;
    p->inner.ops->head(p->inner.self, m, s, x, logits);
    count_product(p, LL_OP_HEAD, &m->head, s->batch.n_samples);
    profile_stop(p, LL_OP_HEAD);
}

static int finish(void *dev) {
    struct profile *p = dev;
    int status = p->inner.ops->finish(p->inner.self);
    profile_stop(p, LL_OP_FINISH);
    return status;
}

static const struct ops profile_ops = {
    .name = "profile",
    .embed = embed,
    .norm_qkv = norm_qkv,
    .rotate_store = rotate_store,
    .attend = attend,
    .keep_sampled = keep_sampled,
    .linear_add = linear_add,
    .norm_glu = norm_glu,
    .head = head,
    .finish = finish,
};

/* ---- the device around them ---- */

static int begin(void *self, enum track track, const ll_batch *b, struct step *out) {
    struct profile *p = self;
    p->batch[track] = *b;
    int status = p->inner.begin(p->inner.self, track, b, out);
    profile_stop(p, LL_OP_BEGIN);
    return status;
}

static const float *logits(void *self) {
    struct profile *p = self;
    return p->inner.logits(p->inner.self);
}

static void close(void *self) {
    struct profile *p = self;
    p->inner.close(p->inner.self);
    free(p);
}

int profile_open(struct profile **out, struct device *device, const ll_runner_config *config) {
    static const char *const names[LL_OPS] = {
        [LL_OP_BEGIN] = "begin",       [LL_OP_EMBED] = "embed",
        [LL_OP_NORM_QKV] = "norm_qkv", [LL_OP_ROTATE_STORE] = "rotate_store",
        [LL_OP_ATTEND] = "attend",     [LL_OP_ADD_OUT] = "linear_add (o)",
        [LL_OP_NORM_GLU] = "norm_glu", [LL_OP_ADD_DOWN] = "linear_add (down)",
        [LL_OP_HEAD] = "head",         [LL_OP_FINISH] = "finish",
        [LL_OP_SAMPLE] = "sampling",
    };
    struct profile *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return fail(LL_ENOMEM, "no memory for a profile");
    int status = kv_layout_init(&p->kv, device->model, config->kv_type, config->block_size);
    if (status) {
        free(p);
        return status;
    }
    for (int32_t i = 0; i < LL_OPS; i++) p->work[i].name = names[i];
    p->inner = *device;
    device->ops = &profile_ops;
    device->self = p;
    device->begin = begin;
    device->logits = logits;
    device->close = close;
    *out = p;
    return LL_OK;
}
