/* A model as the forward pass sees it: numbers, and weights bound by name and checked against those numbers.
 * Whatever a model lacks is NULL or 0. On the CPU the weights lie in the file's map; a device with its own memory
 * makes a copy of this structure whose pointers are its own. */
#ifndef MODEL_H
#define MODEL_H
#include <stdint.h>
#include "localllm.h"

struct tensor {
    const uint8_t *data; /* (rows, row_bytes) */
    int32_t type;        /* LL_F32 ... */
    int32_t rows, cols;
    int64_t row_bytes;
};

struct linear {
    struct tensor w;   /* (out features, in features); w.data NULL: the model has no such product */
    const float *bias; /* (out features) or NULL */
};

struct layer {
    const float *attn_norm, *ffn_norm; /* (n_embd) */
    const float *q_norm, *k_norm;      /* (head_dim), or NULL: heads are not normed */
    struct linear q, k, v;             /* n_embd to (heads or KV heads) x head_dim */
    struct linear o;                   /* heads x head_dim to n_embd */
    struct linear gate, up, down;      /* n_embd to n_ff, the same, and back */
    int32_t window;                    /* a token sees this many, itself included; 0: all before it */
};

enum rope_style {
    ROPE_INTERLEAVED, /* rotates (0, 1), (2, 3), ...: how llama weights are stored in GGUF */
    ROPE_HALVES       /* rotates (0, d/2), (1, d/2 + 1), ...: the way of GPT-NeoX */
};

struct model {
    int32_t n_layers, n_ctx, n_embd, n_ff, n_vocab, n_heads, n_kv_heads, head_dim;
    float norm_eps;
    float attn_scale;        /* of a score before the softmax */
    enum rope_style rope_style;
    int32_t rope_dims;       /* leading dimensions of a head that rotate; even */
    const float *rope_freqs; /* (rope_dims / 2) radians per position, scaling applied */
    float rope_magnitude;    /* multiplies sine and cosine (YaRN); 1 otherwise */
    struct tensor embed;     /* (n_vocab, n_embd) */
    const float *out_norm;   /* (n_embd) */
    struct linear head;      /* n_embd to n_vocab; the embedding again where it is tied */
    const struct layer *layers; /* (n_layers) */
};

/* What ll_model is: the structure above and what it was made from. */
struct ll_model {
    struct model view;
    const ll_gguf *file;
    const char *arch;
    uint64_t weight_bytes, n_params;
    int32_t main_type;
    struct layer *layers; /* owned; view.layers */
    float *vectors;       /* owned: norms, biases and rope frequencies as float32 */
};

#endif
