/* Products of activations with weights of every type, and the quantization of those activations.
 *
 * Quantized types: a warp owns a row of weights and up to TOKENS tokens. Its lanes each take one block of 32 columns,
 * eight of them together a block of 256, and leave that block's terms in shared memory; then a lane per token folds
 * them in block order. So the sum is the
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
    struct quants quants;
    const float *bias; /* or NULL */
    float *out;        /* (n, rows) */
};

/* One warp per block of WIDTH columns of one token: lane l takes columns l, l + 32, ... */
template <int WIDTH> static __global__ void quantize(const float *x, int64_t n_blocks, struct quants out) {
    int64_t block = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (block >= n_blocks) return;
    x += block * WIDTH;
    uint32_t top = 0;
    for (int c = lane; c < WIDTH; c += WARP) top = max(top, (uint32_t)__float_as_int(x[c]) & 0x7fffffffu);
    for (int apart = 16; apart; apart /= 2) top = max(top, __shfl_xor_sync(ALL_LANES, top, apart));
    float amax = __int_as_float((int32_t)top), inverse = 127.0f / amax;
    bool finite = top < 0x7f800000u, usable = finite && inverse <= 3.4028234663852886e38f;
    for (int c = lane; c < WIDTH; c += WARP) {
        int code = usable ? (int)rintf(x[c] * inverse) : 0, sum = code;
        for (int apart = 8; apart; apart /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, apart);
        out.q[block * WIDTH + c] = (int8_t)code;
        if (lane % 16 == 0) out.sums[(block * WIDTH + c) / 16] = (int16_t)sum;
    }
    if (lane == 0) out.scale[block] = usable ? amax / 127.0f : finite ? 0.0f : __int_as_float(0x7fc00000);
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

/* Sum over the eight lanes that hold a block of 256 columns. */
static __device__ inline int32_t sum_of_8(int32_t n) {
    for (int apart = 4; apart; apart /= 2) n += __shfl_xor_sync(ALL_LANES, n, apart);
    return n;
}

template <int TYPE> static __global__ void matmul_blocks(struct product p) {
    constexpr enum form FORM = form_of_type(TYPE);
    constexpr bool SUPER = FORM == FORM_SUPER || FORM == FORM_SUPER_MIN;
    constexpr bool MINIMA = FORM == FORM_MIN || FORM == FORM_SUPER_MIN;
    constexpr int LANES = SUPER ? 8 : 1; /* that share a scale */
    /* acc = fma(first, scale, acc), then for types with minima acc = fma(second, third, acc); 33 spreads the banks */
    __shared__ float first[WARPS][TOKENS][33], scale[WARPS][TOKENS][33];
    __shared__ float second[WARPS][MINIMA ? TOKENS : 1][33], third[WARPS][MINIMA ? TOKENS : 1][33];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int32_t row = (int32_t)blockIdx.x * WARPS + warp, token = (int32_t)blockIdx.y * TOKENS;
    int32_t count = min((int32_t)TOKENS, p.n - token), blocks = p.k / 32;
    if (row >= p.rows) return; /* a whole warp; nothing below waits for other warps */
    float acc = 0;
    for (int32_t base = 0; base < blocks; base += WARP) {
        int32_t b = min(base + lane, blocks - 1), here = min((int32_t)WARP, blocks - base);
        struct codes w;
        unpack(TYPE, p.w + row * p.row_bytes, b, &w); /* lanes past the end repeat the last block: sums need them all */
        for (int32_t t = 0; t < count; t++) {
            int64_t at = (int64_t)(token + t) * blocks + b;
            const int16_t *sums = p.quants.sums + 2 * at;
            float s = p.quants.scale[at / LANES];
            int32_t isum = block_sum(&w, p.quants.q + 32 * at);
            int32_t msum = w.submin[0] * sums[0] + w.submin[1] * sums[1];
            if (SUPER) {
                isum = sum_of_8(isum);
                if (MINIMA) msum = sum_of_8(msum);
            }
            first[warp][t][lane] = (float)isum * w.d;
            scale[warp][t][lane] = s;
            if (MINIMA) {
                second[warp][t][lane] = SUPER ? (float)msum * w.m : w.m;
                third[warp][t][lane] = SUPER ? s : s * (float)msum;
            }
        }
        __syncwarp();
        for (int32_t j = 0; lane < count && j < here; j += LANES) {
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

int cuda_widths(const struct linear *w) {
    enum form form = form_of_type(w->w.type);
    return form == FORM_FLOAT ? WIDTH_NONE : is_super(form) ? WIDTH_256 : WIDTH_32;
}

void cuda_set_input(struct cuda *d, const float *x, int32_t n, int32_t k, int widths) {
    struct input *a = &d->input;
    a->n = n;
    a->k = k;
    a->x = x;
    int64_t blocks = (int64_t)n * (k / 32), supers = (int64_t)n * (k / 256);
    if (widths & WIDTH_32 && blocks)
        LAUNCH(quantize<32>, tiles(blocks, WARPS), THREADS, d->stream, x, blocks, a->blocks);
    if (widths & WIDTH_256 && supers)
        LAUNCH(quantize<256>, tiles(supers, WARPS), THREADS, d->stream, x, supers, a->supers);
    note(d, cudaGetLastError(), "quantizing activations");
}

#define BLOCKS(TYPE) \
    case TYPE: LAUNCH(matmul_blocks<TYPE>, grid, THREADS, d->stream, p); break
#define FLOATS(TYPE) \
    case TYPE: LAUNCH(matmul_floats<TYPE>, float_grid, THREADS, d->stream, p); break

void cuda_product(struct cuda *d, const struct linear *w, float *out, bool add) {
    const struct input *a = &d->input;
    struct product p = {};
    p.w = w->w.data;
    p.row_bytes = w->w.row_bytes;
    p.rows = w->w.rows;
    p.k = a->k;
    p.n = a->n;
    p.add = add;
    p.x = a->x;
    p.quants = is_super(form_of_type(w->w.type)) ? a->supers : a->blocks;
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
