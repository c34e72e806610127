/* The forward pass of every model we run. An architecture is data: which weights exist, and a few numbers. A weight
 * that is NULL is a step this model does not have. Nothing here knows a model's name or a device.
 *
 * A step is a ragged batch: each row brings some tokens, one while decoding and many in prefill. Nothing below
 * distinguishes the two, but a device may multiply tokens of prompts in another arithmetic than generated ones. */
#include "forward.h"

static void attention(const struct device *d, int32_t i, const struct step *s) {
    const struct ops *op = d->ops;
    const struct model *m = d->model;
    const struct work *w = &d->work;
    op->norm_qkv(d->self, m, &m->layers[i], s, w->x, w->q, w->k, w->v);
    op->rotate_store(d->self, m, i, s, w->q, w->k, w->v);
    op->attend(d->self, m, i, s, w->q, w->a);
}

static void feed_forward(const struct device *d, int32_t i, const struct step *s) {
    const struct ops *op = d->ops;
    const struct model *m = d->model;
    const struct work *w = &d->work;
    op->linear_add(d->self, &m->layers[i].o, s, w->a, w->x);
    op->norm_glu(d->self, m, &m->layers[i], s, w->x, w->h);
    op->linear_add(d->self, &m->layers[i].down, s, w->h, w->x);
}

int forward(const struct device *d, const struct step *s) {
    struct step sampled = *s; /* what is left of the step once no token looks at another any more */
    sampled.batch.n_tokens = s->batch.n_samples;
    sampled.batch.n_generated =
        s->batch.n_samples; /* treated alike from here on: mostly few, and most of them answers' */
    int32_t last = d->model->n_layers - 1;
    d->ops->embed(d->self, d->model, s, d->work.x);
    for (int32_t i = 0; i < last; i++) {
        attention(d, i, s);
        feed_forward(d, i, s);
    }
    attention(d, last, s);
    d->ops->keep_sampled(d->self, d->model, s, d->work.x, d->work.a);
    feed_forward(d, last, &sampled);
    d->ops->head(d->self, d->model, &sampled, d->work.x, d->work.logits);
    return d->ops->finish(d->self);
}
