/* The waist: what a device must be able to do. model/forward.c is written in these words and no others; native/cpu
 * and native/cuda fill the table. The grain is that of one GPU kernel per operation and about seven per layer, so
 * no fusion pass is needed. Operations cannot fail: all memory is taken when a device opens, and finish() reports.
 *
 * Every output element depends on its own row, the weights and the device's arithmetic, never on the batch. */
#ifndef OPS_H
#define OPS_H
#include <stdbool.h>

#include "localllm.h"
#include "model/kv.h"
#include "model/model.h"

/* Two batches may be under way on a device, each in a track: one that is computed at once, and one of prompts that is
 * computed a few layers at a time between those (model/forward.h). */
enum track { TRACK_WHOLE, TRACK_PARTS, TRACKS };

/* One batch as the device holds it: checked, plus what is derived from it once and what one layer leaves the next. */
struct step {
    enum track track;
    float *x;                /* (max_tokens, n_embd) the residual stream */
    ll_batch batch;          /* its arrays are readable by the device */
    const int32_t *row_of;   /* (n_tokens) */
    const int32_t *position; /* (n_tokens) */
    const float *rotation;   /* (n_tokens, rope_dims / 2, 2) cosine and sine */
};

/* Activations within a layer, one row per token. h holds n_ff columns, q and a heads x head_dim, k and v KV heads x
 * head_dim. */
struct work {
    float *q, *a;  /* (max_tokens, n_heads * head_dim) */
    float *k, *v;  /* (max_tokens, n_kv_heads * head_dim) */
    float *h;      /* (max_tokens, n_ff) */
    float *logits; /* (max_samples, n_vocab) */
};

struct ops {
    const char *name;
    /* x = rows of the embedding */
    void (*embed)(void *dev, const struct model *m, const struct step *s, float *x);
    /* q, k, v = norm(x) through the layer's three products and biases */
    void (*norm_qkv)(void *dev, const struct model *m, const struct layer *l, const struct step *s, const float *x,
                     float *q, float *k, float *v);
    /* norms the heads of q and k if the layer does, rotates both by position, writes k and v to the KV cache */
    void (*rotate_store)(void *dev, const struct model *m, int32_t layer, const struct step *s, float *q, float *k,
                         const float *v);
    /* a = attention of q over the KV cache, each token up to and including itself */
    void (*attend)(void *dev, const struct model *m, int32_t layer, const struct step *s, const float *q, float *a);
    /* moves the sampled tokens' rows of x (n_embd) and a to the front: others are of no use after the last attend */
    void (*keep_sampled)(void *dev, const struct model *m, const struct step *s, float *x, float *a);
    /* x += w times in */
    void (*linear_add)(void *dev, const struct linear *w, const struct step *s, const float *in, float *x);
    /* h = silu(gate(norm(x))) * up(norm(x)) */
    void (*norm_glu)(void *dev, const struct model *m, const struct layer *l, const struct step *s, const float *x,
                     float *h);
    /* logits = head(norm(x)) of the step's samples, which are the first rows of x */
    void (*head)(void *dev, const struct model *m, const struct step *s, const float *x, float *logits);
    /* waits for the step and tells whether it succeeded */
    int (*finish)(void *dev);
};

/* An opened device. The runner calls begin, forward() over ops until the pass is done, then logits. */
struct device {
    const struct ops *ops;
    void *self;
    const struct model *model; /* with pointers of this device */
    struct work work;
    int32_t threads;
    struct team *team; /* the threads of a CPU device, which then draw tokens too; else NULL */
    /* takes the batch to the device, in the place of the track's last one */
    int (*begin)(void *self, enum track track, const ll_batch *b, struct step *out);
    /* Host memory with the last head's logits (n_samples, n_vocab); NULL and a reason when the device failed. */
    const float *(*logits)(void *self);
    void (*close)(void *self);
    bool prompts_apart; /* tokens of prompts are multiplied in another arithmetic than generated ones */
};

/* `plan` is filled by the same arithmetic that allocates: weight_bytes are those the device copies. */
int cpu_plan(const struct ll_model *model, const ll_runner_config *c, ll_plan *plan);
int cpu_open(struct device *out, const struct ll_model *model, const ll_runner_config *c);
int cuda_plan(const struct ll_model *model, const ll_runner_config *c, ll_plan *plan);
int cuda_open(struct device *out, const struct ll_model *model, const ll_runner_config *c);

#endif
