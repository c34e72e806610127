/* The forward pass of every model we run. An architecture is data: which weights exist, and a few numbers. A weight
 * that is NULL is a step this model does not have. Nothing here knows a model's name or a device.
 *
 * A batch is ragged: each row brings some tokens, one while decoding and many in prefill. Nothing below
 * distinguishes the two, but a device may multiply tokens of prompts in another arithmetic than generated ones. */
#include "forward.h"

#include <math.h>

#include "base/clock.h"
#include "base/status.h"

static void attention(const struct device *d, int32_t i, const struct step *s) {
    const struct ops *op = d->ops;
    const struct model *m = d->model;
    const struct work *w = &d->work;
    op->norm_qkv(d->self, m, &m->layers[i], s, s->x, w->q, w->k, w->v);
    op->rotate_store(d->self, m, i, s, w->q, w->k, w->v);
    op->attend(d->self, m, i, s, w->q, w->a);
}

static void feed_forward(const struct device *d, int32_t i, const struct step *s) {
    const struct ops *op = d->ops;
    const struct model *m = d->model;
    const struct work *w = &d->work;
    op->linear_add(d->self, &m->layers[i].o, s, w->a, s->x);
    op->norm_glu(d->self, m, &m->layers[i], s, s->x, w->h);
    op->linear_add(d->self, &m->layers[i].down, s, w->h, s->x);
}

/* What is left of a step once no token looks at another any more. */
static struct step only_samples(const struct step *s) {
    struct step sampled = *s;
    sampled.batch.n_tokens = s->batch.n_samples;
    sampled.batch.n_generated =
        s->batch.n_samples; /* treated alike from here on: mostly few, and most of them answers' */
    return sampled;
}

static void compute(const struct device *d, int32_t i, const struct step *s) {
    struct step sampled = only_samples(s);
    int32_t n = d->model->n_layers;
    if (i == n) {
        d->ops->head(d->self, d->model, &sampled, s->x, d->work.logits);
        return;
    }
    if (i == 0) d->ops->embed(d->self, d->model, s, s->x);
    attention(d, i, s);
    if (i == n - 1) d->ops->keep_sampled(d->self, d->model, s, s->x, d->work.a);
    feed_forward(d, i, i == n - 1 ? &sampled : s);
}

int forward(const struct device *d, struct pass *p, double seconds) {
    bool limited = seconds < INFINITY;
    double now = limited ? clock_seconds() : 0, end = now + seconds;
    while (!forward_done(d, p)) {
        compute(d, p->next++, &p->step);
        if (!limited && !forward_done(d, p)) continue;
        TRY(d->ops->finish(d->self));
        double before = now;
        now = limited ? clock_seconds() : 0;
        if (now + (now - before) > end) break;
    }
    return LL_OK;
}
