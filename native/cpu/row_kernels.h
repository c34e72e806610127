/* Float operations on single rows, one table per instruction-set level. The arithmetic is that of v16.h, so every
 * level gives the same bits. Any length is allowed; a last partial sixteen is filled with zeros. */
#ifndef ROW_KERNELS_H
#define ROW_KERNELS_H
#include <stdint.h>
#include "localllm.h"
#include "model/model.h"

struct row_kernels {
    /* out = x / rms(x) * w (Zhang and Sennrich 2019); out may be x */
    void (*norm)(int32_t n, const float *x, const float *w, float eps, float *out);
    void (*add)(int32_t n, const float *in, float *x);
    /* out = silu(gate) * up */
    void (*swiglu)(int32_t n, const float *gate, const float *up, float *out);
    /* rotates the first `dims` of a head by (dims / 2, 2) cosines and sines */
    void (*rotate)(enum rope_style style, int32_t dims, const float *rotation, float *head);
    /* one row of n values as a KV type */
    void (*store)(int32_t type, int32_t n, const float *x, void *row);
};

/* The last two are built on x86-64 only. */
extern const struct row_kernels row_kernels_scalar, row_kernels_avx2, row_kernels_avx512;

#endif
