/* Products of activations with weights of every type, and the quantization of those activations.
 *
 * Quantized types: a warp owns a row of weights and up to TOKENS tokens. Its lanes each take one block of 32 columns
 * and leave that block's terms in shared memory; then a lane per token folds them in block order. So the sum is the
 * serial one of cpu/kernels.h, bit for bit, whatever the batch. Float types: sixteen lanes own a row, and lane j sums
 * columns j, j + 16, ... as the CPU does. */
#include "decode.cuh"

enum { WARPS = 4, THREADS = WARPS * WARP, TOKENS = 16, FLOAT_ROWS = THREADS / 16, FLOAT_TOKENS = 8 };

/* Everything a product reads and writes. */
struct product {
    const uint8_t *w;
    int64_t row_bytes;
    int32_t rows, k, n, add; /* add: to what is in out */
    const float *x;
    const int8_t *q;
    const float *scale;
    const int16_t *sums;
    const float *bias; /* or NULL */
    float *out;        /* (n, rows) */
};

/* One warp per block of 32 columns of one token, one lane per column. */
static __global__ void quantize(const float *x, int64_t n_blocks, int8_t *q, float *scale, int16_t *sums) {
    int64_t block = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (block >= n_blocks) return;
    float value = x[block * 32 + lane];
    uint32_t top = (uint32_t)__float_as_int(value) & 0x7fffffffu;
    for (int apart = 16; apart; apart /= 2) top = max(top, __shfl_xor_sync(ALL_LANES, top, apart));
    float amax = __int_as_float((int32_t)top), inverse = 127.0f / amax;
    bool finite = top < 0x7f800000u, usable = finite && inverse <= 3.4028234663852886e38f;
    int code = usable ? (int)rintf(value * inverse) : 0, sum = code;
    for (int apart = 8; apart; apart /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, apart);
    q[block * 32 + lane] = (int8_t)code;
    if (lane % 16 == 0) sums[block * 2 + lane / 16] = (int16_t)sum;
    if (lane == 0) scale[block] = usable ? amax / 127.0f : finite ? 0.0f : __int_as_float(0x7fc00000);
}

static __device__ inline void put(const struct product *p, int32_t token, int32_t row, float sum) {
    float *out = p->out + (int64_t)token * p->rows + row;
    if (p->bias) sum += p->bias[row];
    *out = p->add ? *out + sum : sum;
}

/* The exact integer sum of one block, halves weighted by their sub-scales. q is aligned to 32. */
static __device__ inline int32_t block_sum(const struct codes *w, const int8_t *q) {
    const int32_t *words = (const int32_t *)q;
    int32_t half[2] = {0, 0};
    for (int i = 0; i < 8; i++) half[i / 4] = __dp4a((int32_t)w->word[i], words[i], half[i / 4]);
    return w->sub[0] * half[0] + w->sub[1] * half[1];
}

template <int TYPE> static __global__ void matmul_blocks(struct product p) {
    constexpr enum form FORM = form_of_type(TYPE);
    constexpr bool MINIMA = FORM == FORM_MIN || FORM == FORM_SUBMIN;
    /* acc = fma(first, scale, acc), then for types with minima acc = fma(second, third, acc); 33 spreads the banks */
    __shared__ float first[WARPS][TOKENS][33], scale[WARPS][TOKENS][33];
    __shared__ float second[WARPS][MINIMA ? TOKENS : 1][33], third[WARPS][MINIMA ? TOKENS : 1][33];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int32_t row = (int32_t)blockIdx.x * WARPS + warp, token = (int32_t)blockIdx.y * TOKENS;
    int32_t count = min((int32_t)TOKENS, p.n - token), blocks = p.k / 32;
    if (row >= p.rows) return; /* a whole warp; nothing below waits for other warps */
    float acc = 0;
    for (int32_t base = 0; base < blocks; base += WARP) {
        int32_t b = base + lane, here = min((int32_t)WARP, blocks - base);
        if (b < blocks) {
            struct codes w;
            unpack(TYPE, p.w + row * p.row_bytes, b, &w);
            for (int32_t t = 0; t < count; t++) {
                int64_t at = (int64_t)(token + t) * blocks + b;
                const int16_t *sums = p.sums + 2 * at;
                first[warp][t][lane] = (float)block_sum(&w, p.q + 32 * at) * w.d;
                scale[warp][t][lane] = p.scale[at];
                if (FORM == FORM_MIN) {
                    second[warp][t][lane] = w.m;
                    third[warp][t][lane] = p.scale[at] * (float)(sums[0] + sums[1]);
                } else if (FORM == FORM_SUBMIN) {
                    second[warp][t][lane] = (float)(w.submin[0] * sums[0] + w.submin[1] * sums[1]) * w.m;
                    third[warp][t][lane] = p.scale[at];
                }
            }
        }
        __syncwarp();
        for (int32_t j = 0; lane < count && j < here; j++) {
            acc = fmaf(first[warp][lane][j], scale[warp][lane][j], acc);
            if (MINIMA) acc = fmaf(second[warp][lane][j], third[warp][lane][j], acc);
        }
        __syncwarp();
    }
    if (lane < count) put(&p, token + lane, row, acc);
}

template <int TYPE> static __global__ void matmul_floats(struct product p) {
    int group = threadIdx.x / 16, lane = threadIdx.x % 16;
    int32_t row = (int32_t)blockIdx.x * FLOAT_ROWS + group, token = (int32_t)blockIdx.y * FLOAT_TOKENS;
    int32_t count = min((int32_t)FLOAT_TOKENS, p.n - token);
    /* Sixteen lanes past the last row repeat it, because the fold needs the whole warp. */
    const uint8_t *w = p.w + min(row, p.rows - 1) * p.row_bytes;
    float sum[FLOAT_TOKENS] = {0};
    for (int32_t c = lane; c < p.k; c += 16) {
        float weight = float_value(TYPE, w, c);
        for (int t = 0; t < FLOAT_TOKENS; t++)
            if (t < count) sum[t] = fmaf(weight, p.x[(int64_t)(token + t) * p.k + c], sum[t]);
    }
    for (int t = 0; t < FLOAT_TOKENS; t++) {
        float folded = sum_of_16(sum[t]);
        if (lane == 0 && t < count && row < p.rows) put(&p, token + t, row, folded);
    }
}

bool cuda_is_quantized(const struct linear *w) { return form_of_type(w->w.type) != FORM_FLOAT; }

void cuda_set_input(struct cuda *d, const float *x, int32_t n, int32_t k, bool quantized) {
    struct input *a = &d->input;
    a->n = n;
    a->k = k;
    a->x = x;
    if (!quantized || !n) return;
    int64_t n_blocks = (int64_t)n * (k / 32);
    LAUNCH(quantize, tiles(n_blocks, WARPS), THREADS, d->stream, x, n_blocks, a->q, a->scale, a->sums);
    note(d, cudaGetLastError(), "quantizing activations");
}

#define BLOCKS(TYPE) \
    case TYPE: LAUNCH(matmul_blocks<TYPE>, grid, THREADS, d->stream, p); break
#define FLOATS(TYPE) \
    case TYPE: LAUNCH(matmul_floats<TYPE>, float_grid, THREADS, d->stream, p); break

void cuda_product(struct cuda *d, const struct linear *w, float *out, bool add) {
    const struct input *a = &d->input;
    struct product p;
    p.w = w->w.data;
    p.row_bytes = w->w.row_bytes;
    p.rows = w->w.rows;
    p.k = a->k;
    p.n = a->n;
    p.add = add;
    p.x = a->x;
    p.q = a->q;
    p.scale = a->scale;
    p.sums = a->sums;
    p.bias = w->bias;
    p.out = out;
    dim3 grid(tiles(p.rows, WARPS), tiles(p.n, TOKENS));
    dim3 float_grid(tiles(p.rows, FLOAT_ROWS), tiles(p.n, FLOAT_TOKENS));
    if (!p.n) return;
    switch (w->w.type) {
        BLOCKS(LL_Q4_0);
        BLOCKS(LL_Q4_1);
        BLOCKS(LL_Q5_0);
        BLOCKS(LL_Q5_1);
        BLOCKS(LL_Q8_0);
        BLOCKS(LL_Q2_K);
        BLOCKS(LL_Q3_K);
        BLOCKS(LL_Q4_K);
        BLOCKS(LL_Q5_K);
        BLOCKS(LL_Q6_K);
        BLOCKS(LL_IQ4_NL);
        BLOCKS(LL_IQ4_XS);
        BLOCKS(LL_MXFP4);
        FLOATS(LL_F32);
        FLOATS(LL_F16);
        FLOATS(LL_BF16);
    }
    note(d, cudaGetLastError(), "a product");
}
