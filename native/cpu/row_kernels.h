/* Float operations on single rows, one table per instruction-set level. The arithmetic is that of v16.h, so every
 * level gives the same bits. Any length is allowed; a last partial sixteen is filled with zeros. */
#ifndef ROW_KERNELS_H
#define ROW_KERNELS_H
#include <stdint.h>
#include "localllm.h"
#include "model/model.h"

/* One head's running softmax over the KV cache (Milakov and Gimelshein 2018): the largest score so far, the sum of
 * exp(score - max), and the values weighted by it. Start: max -INFINITY, sum 0, acc 0. */
struct softmax {
    float max, sum;
    float *acc; /* (head_dim) */
};

struct row_kernels {
    /* out = x / rms(x) * w (Zhang and Sennrich 2019); out may be x */
    void (*norm)(int32_t n, const float *x, const float *w, float eps, float *out);
    void (*add)(int32_t n, const float *in, float *x);
    /* gate = silu(gate) * up */
    void (*swiglu)(int32_t n, float *gate, const float *up);
    /* rotates the first `dims` of a head by (dims / 2, 2) cosines and sines */
    void (*rotate)(enum rope_style style, int32_t dims, const float *rotation, float *head);
    /* one row of n values to and from a KV type */
    void (*store)(int32_t type, int32_t n, const float *x, void *row);
    void (*load)(int32_t type, int32_t n, const void *row, float *x);
    /* scores[j] = scale * q . k[j] for slots j in [lo, hi); k is (slots, n) */
    void (*scores)(int32_t lo, int32_t hi, int32_t n, const float *q, const float *k, float scale, float *scores);
    /* folds slots [lo, hi) of one block of at most 32 into s; scores is (32) and is overwritten; v is (slots, n) */
    void (*fold)(int32_t lo, int32_t hi, int32_t n, float *scores, const float *v, struct softmax *s);
    /* out = acc / sum */
    void (*finish)(int32_t n, const struct softmax *s, float *out);
};

/* The last two are built on x86-64 only. */
extern const struct row_kernels row_kernels_scalar, row_kernels_avx2, row_kernels_avx512;

#endif
