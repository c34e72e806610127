/* What the CUDA files share. The device fills the same table as the CPU (ops.h) with the same arithmetic
 * (cpu/kernels.h and cpu/v16.h) in the same order, so that its logits are the CPU's bits: every kernel here is
 * plain, and a faster one has an exact answer to be compared with.
 *
 * Assumes compute capability 8.0, no contraction (--fmad=false) and no fast-math, as the build sets them. Each
 * operation launches kernels on one stream and waits for nothing; the first error is kept until finish().
 * Offsets into arrays are 64-bit. Grids have tokens or rows in x, because y ends at 65535. */
#ifndef COMMON_CUH
#define COMMON_CUH
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "base/status.h"
#include "ops.h"
#include "quant/formats.h"
}

/* The tests define it otherwise: there, kernels run as host code. */
#ifndef LAUNCH
#define LAUNCH(kernel, grid, threads, stream, ...) kernel<<<grid, threads, 0, stream>>>(__VA_ARGS__)
#endif

/* A batch's arrays: once in pinned host memory, where begin() writes them, once on the device. */
struct step_arrays {
    int32_t *tokens, *row_start, *row_pos, *blocks, *samples, *row_of, *position;
    float *rotation;
};

/* int8 activations under one scale per `width` columns (cpu/kernels.h), in plain order, with the sums of sixteen. */
struct quants {
    int8_t *q;      /* (n, k) */
    float *scale;   /* (n, k / width) */
    int16_t *sums;  /* (n, k / 16) */
};

/* Which quants the products of some weights need; their sum for several. */
enum width { WIDTH_NONE, WIDTH_32, WIDTH_256 };

/* What the next products multiply: (n, k) floats and, for quantized weights, their codes. */
struct input {
    int32_t n, k;
    const float *x;
    struct quants blocks, supers; /* of width 32 and 256 */
};

struct cuda {
    struct model model; /* weights are the device's; layers and rope_freqs lie on the host, which alone reads them */
    struct layer *layers; /* (n_layers) */
    struct kv_layout kv;
    struct work work;
    uint8_t *pool; /* the KV cache */
    float *normed, *up; /* (max_tokens, n_embd), (max_tokens, n_ff) */
    struct input input;
    struct step_arrays host[TRACKS], device[TRACKS];
    float *x[TRACKS]; /* (max_tokens, n_embd) */
    float *host_logits; /* (max_samples, n_vocab) pinned */
    int32_t table_columns; /* of step_arrays.blocks: the longest row's blocks */
    int32_t n_samples; /* of the last head */
    void *memory, *pinned; /* one allocation each */
    cudaStream_t stream;
    cudaError_t error; /* the first that no finish() has told yet */
    const char *where; /* the operation it belongs to */
};

/* Keeps the first error; call it after every launch and copy. */
static inline void note(struct cuda *d, cudaError_t error, const char *where) {
    if (error == cudaSuccess || d->error != cudaSuccess) return;
    d->error = error;
    d->where = where;
}

static inline unsigned tiles(int64_t n, int64_t tile) { return (unsigned)((n + tile - 1) / tile); }

/* ---- operations, one file each ---- */

/* Makes x (n, k) the input of the products that follow, which need the quants of `widths`. */
void cuda_set_input(struct cuda *d, const float *x, int32_t n, int32_t k, int widths);
/* out (n, rows) = input times w, plus its bias; `add`: out += that. */
void cuda_product(struct cuda *d, const struct linear *w, float *out, bool add);
int cuda_widths(const struct linear *w); /* an enum width */

/* x (tokens, k): row samples[i] goes to row i, for n samples that rise. */
void cuda_move_rows(struct cuda *d, const int32_t *samples, int32_t n, int32_t k, float *x);

/* out (n, k) = norm of x (n, k). */
void cuda_norm(struct cuda *d, const float *x, int32_t n, int32_t k, const float *w, float *out);
void cuda_swiglu(struct cuda *d, float *gate, const float *up, int32_t n, int32_t k);
void cuda_embed(void *dev, const struct model *m, const struct step *s, float *x);
void cuda_rotate_store(void *dev, const struct model *m, int32_t layer, const struct step *s, float *q, float *k,
                       const float *v);
void cuda_attend(void *dev, const struct model *m, int32_t layer, const struct step *s, const float *q, float *a);

/* ---- device functions that several files use ---- */

enum { WARP = 32 };
#define ALL_LANES 0xffffffffu

/* The sum of sixteen neighbouring lanes, folded 8, 4, 2 and 1 apart; each of them gets it. */
static __device__ inline float sum_of_16(float v) {
    for (int apart = 8; apart; apart /= 2) v += __shfl_xor_sync(ALL_LANES, v, apart);
    return v;
}

static __device__ inline float max_of_32(float v) {
    for (int apart = 16; apart; apart /= 2) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, apart));
    return v;
}

/* The exponential of cpu/v16.h, operation by operation: 0 from -88 down, NaN stays. x must not exceed 88. */
static __device__ inline float exp_exact(float x) {
    x = -88.0f > x ? -88.0f : x;
    float n = rintf(x * 1.44269504089f);
    float r = fmaf(n, -0.693145751953125f, x);
    r = fmaf(n, -1.42860682030941723e-6f, r);
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(r * r, p, r + 1.0f);
    return p * __int_as_float(n == n ? ((int32_t)n + 127) << 23 : 0);
}

/* One head's row of a block: kv_offset() of model/kv.h from the start of a layer in block 0. */
static __device__ inline int64_t kv_row(const struct kv_layout *kv, int32_t block, int32_t value, int32_t head,
                                        int32_t slot) {
    return block * kv->block_bytes + value * kv->plane_bytes + head * kv->head_bytes + slot * kv->row_bytes;
}

#endif
