/* The forward pass over one ragged batch, at once or a few layers at a time. */
#ifndef FORWARD_H
#define FORWARD_H
#include "ops.h"

/* A pass under way. Between two calls of forward() only step.x and the KV cache hold anything of it, so a pass of the
 * other track may be computed there. */
struct pass {
    struct step step;
    int32_t next; /* the layer that comes next; n_layers is the head, n_layers + 1 the end */
};

/* Goes on for `seconds`, or until the pass is done: at least one layer, and no other that would end too late if it
 * took as long as the one before. Fails when the device does, which ends the pass. */
int forward(const struct device *d, struct pass *p, double seconds);

static inline bool forward_done(const struct device *d, const struct pass *p) { return p->next > d->model->n_layers; }

#endif
