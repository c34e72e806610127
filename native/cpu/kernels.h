/* One table of kernels per instruction-set level, chosen once. The scalar table is the specification.
 *
 * The arithmetic of quantized products, the same at every level, so that all levels give the same bits:
 *   - activations are int8 under one float scale per 32 columns: scale = amax / 127, q = rint(x * (127 / amax)),
 *     rounding half to even; where 127 / amax overflows, scale and q are 0; a block with a value that is not finite
 *     has scale NaN and q 0, so that every output of that token is NaN;
 *   - each block b of 32 columns gives an exact int32: isum_b = sum of code * q, where types with sub-scales per 16
 *     columns multiply each half's sum by its integer sub-scale first;
 *   - acc = fma((float)isum_b * d_b, scale_b, acc), b rising, from acc = 0, where d_b is the block's float weight
 *     scale; types with minima follow it by acc = fma(m_b, scale_b * (float)qsum_b, acc), qsum_b the sum of q
 *     (Q2_K: (float)(m0*qsum0 + m1*qsum1) * dmin in the place of isum*d).
 * Float weights (F32, F16, BF16): sixteen lanes, lane j sums columns j, j + 16, ... by fma, rising (a last partial
 * sixteen is filled with zeros); then lanes fold 8 apart, 4 apart, 2 apart, 1 apart.
 * No level may reassociate either sum; every one may tile as it likes. */
#ifndef KERNELS_H
#define KERNELS_H
#include <stdint.h>
#include "localllm.h"

/* Activations of n tokens, k columns each; k is a multiple of 32 wherever q is used. */
struct activations {
    int32_t n, k;
    int64_t ld;         /* floats from one token of x to the next */
    const float *x;     /* (n, ld) */
    int8_t *q;          /* (n, k) */
    float *scale;       /* (n, k / 32) */
    int16_t *sums;      /* (n, k / 16) sums of sixteen q */
};

/* out[t * ld_out + r] = row r of w times token t, for r in [0, rows) and all tokens. Rows lie row_bytes apart.
 * scratch is the calling thread's, at least kernels.scratch(k, n) bytes, aligned to 64. */
typedef void matmul_fn(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, float *out,
                       int64_t ld_out, void *scratch);

struct kernels {
    const char *name;
    int64_t (*scratch)(int32_t k, int32_t n); /* bytes a matmul may need for k columns and n tokens */
    void (*quantize)(int32_t k, const float *x, int8_t *q, float *scale, int16_t *sums);
    matmul_fn *matmul[LL_TYPE_LIMIT]; /* NULL where a type is unknown */
    const struct row_kernels *row;    /* float operations on rows: row_kernels.h */
};

/* The levels, weakest first; which of them this machine runs is cpuinfo.h's answer. NULL when not built. */
extern const struct kernels kernels_scalar;
const struct kernels *kernels_avx2(void);
const struct kernels *kernels_avx512(void);

/* The table for a level by name; NULL name: the best this machine runs, capped by LOCALLLM_CPU. NULL result: no such
 * level here. */
const struct kernels *kernels_for(const char *level);

#endif
