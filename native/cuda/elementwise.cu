/* Operations that are not products: embedding, norms, the gated activation, and rotation with the write to the KV
 * cache. Sums follow cpu/v16.h: lane j of sixteen takes columns j, j + 16, ... and the lanes are folded in pairs. */
#include <float.h>

#include "decode.cuh"

enum { THREADS = 128 };

/* ---- embedding ---- */

static __global__ void embed(struct tensor w, const int32_t *tokens, float *x) {
    const uint8_t *row = w.data + tokens[blockIdx.x] * w.row_bytes;
    float *out = x + (int64_t)blockIdx.x * w.cols;
    enum form form = form_of_type(w.type);
    if (form == FORM_FLOAT) {
        for (int32_t c = threadIdx.x; c < w.cols; c += THREADS) out[c] = float_value(w.type, row, c);
        return;
    }
    for (int32_t b = threadIdx.x; b < w.cols / 32; b += THREADS) {
        struct codes block;
        unpack(w.type, row, b, &block);
        for (int32_t c = 0; c < 32; c++) out[32 * b + c] = value_of(form, &block, c);
    }
}

void cuda_embed(void *dev, const struct model *m, const struct step *s, float *x) {
    struct cuda *d = (struct cuda *)dev;
    LAUNCH(embed, s->batch.n_tokens, THREADS, d->stream, m->embed, s->batch.tokens, x);
    note(d, cudaGetLastError(), "the embedding");
}

/* ---- norms ---- */

/* 1 / rms(x), computed by each sixteen lanes of a warp alike. */
static __device__ inline float inverse_rms(int32_t n, const float *x, float eps) {
    float sum = 0;
    for (int32_t c = threadIdx.x % 16; c < n; c += 16) sum = fmaf(x[c], x[c], sum);
    return 1.0f / sqrtf(sum_of_16(sum) / (float)n + eps);
}

/* Every warp sums the whole row: that is cheaper than waiting for one that does. out may not be x. */
static __global__ void norm(const float *x, int32_t k, const float *w, float eps, float *out) {
    int64_t i = blockIdx.x;
    const float *row = x + i * k;
    float scale = inverse_rms(k, row, eps);
    for (int32_t c = threadIdx.x; c < k; c += THREADS) out[i * k + c] = row[c] * scale * w[c];
}

void cuda_norm(struct cuda *d, const float *x, int32_t n, int32_t k, const float *w, float *out) {
    if (!n) return;
    LAUNCH(norm, n, THREADS, d->stream, x, k, w, d->model.norm_eps, out);
    note(d, cudaGetLastError(), "a norm");
}

/* ---- the rows that are sampled ---- */

/* Rows samples[i] >= i, rising, move to i. A thread owns a column, so nothing is read after it was written. */
static __global__ void move_rows(int32_t k, const int32_t *samples, int32_t n, float *x) {
    int32_t c = (int32_t)blockIdx.x * THREADS + threadIdx.x;
    if (c >= k) return;
    for (int32_t i = 0; i < n; i++) x[(int64_t)i * k + c] = x[(int64_t)samples[i] * k + c];
}

void cuda_move_rows(struct cuda *d, const int32_t *samples, int32_t n, int32_t k, float *x) {
    if (!n) return;
    LAUNCH(move_rows, tiles(k, THREADS), THREADS, d->stream, k, samples, n, x);
    note(d, cudaGetLastError(), "moving the sampled rows");
}

/* ---- gated activation ---- */

static __global__ void swiglu(int32_t k, float *gate, const float *up) {
    int32_t c = (int32_t)blockIdx.y * THREADS + threadIdx.x;
    int64_t at = (int64_t)blockIdx.x * k + c;
    if (c >= k) return;
    float g = gate[at];
    float e = exp_exact(0.0f - (-88.0f > g ? -88.0f : g)); /* exp(88) is finite, and silu is 0 long before it */
    gate[at] = g / (1.0f + e) * up[at];
}

void cuda_swiglu(struct cuda *d, float *gate, const float *up, int32_t n, int32_t k) {
    if (!n) return;
    LAUNCH(swiglu, dim3((unsigned)n, tiles(k, THREADS)), THREADS, d->stream, k, gate, up);
    note(d, cudaGetLastError(), "the gated activation");
}

/* ---- rotation, and the write to the KV cache ---- */

static __device__ inline uint16_t half_bits(float x) { return __half_as_ushort(__float2half_rn(x)); }

/* To nearest even; a NaN stays one. */
static __device__ inline uint16_t bf16_bits(float x) {
    uint32_t bits = (uint32_t)__float_as_int(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Blocks of 32 values: a half-precision scale and 32 codes. A lane per column. */
static __device__ inline void store_q8_0(int32_t n, const float *x, uint8_t *row) {
    int lane = threadIdx.x % WARP;
    for (int32_t b = 0; b < n / 32; b++, x += 32, row += 34) {
        float amax = max_of_32(fabsf(x[lane])), inverse = 127.0f / amax;
        bool finite = max_of_32(fabsf(x[lane]) <= FLT_MAX ? 0.0f : 1.0f) == 0.0f, usable = finite && inverse <= FLT_MAX;
        if (lane == 0) *(uint16_t *)row = finite ? half_bits(usable ? amax / 127.0f : 0.0f) : (uint16_t)0x7e00;
        row[2 + lane] = usable ? (uint8_t)(int8_t)rintf(x[lane] * inverse) : (uint8_t)0;
    }
}

static __device__ inline void store_row(int32_t type, int32_t n, const float *x, uint8_t *row) {
    if (type == LL_Q8_0) {
        store_q8_0(n, x, row);
        return;
    }
    for (int32_t c = threadIdx.x; c < n; c += WARP) {
        if (type == LL_F32)
            ((float *)row)[c] = x[c];
        else
            ((uint16_t *)row)[c] = type == LL_F16 ? half_bits(x[c]) : bf16_bits(x[c]);
    }
}

struct rotate {
    int32_t n_heads, n_kv_heads, head_dim, rope_dims, table_columns;
    enum rope_style style;
    float eps;
    const float *q_norm, *k_norm; /* or NULL */
    const int32_t *row_of, *position, *blocks;
    const float *rotation;
    float *q, *k;
    const float *v;
    uint8_t *layer; /* of block 0 in the pool */
    struct kv_layout kv;
};

/* Norms and rotates one head in place; ends with the warp in step. */
static __device__ inline void rotate_head(const struct rotate *r, const float *weight, const float *rotation,
                                          float *head) {
    if (weight) {
        float scale = inverse_rms(r->head_dim, head, r->eps);
        __syncwarp();
        for (int32_t c = threadIdx.x; c < r->head_dim; c += WARP) head[c] = head[c] * scale * weight[c];
        __syncwarp();
    }
    int32_t half = r->rope_dims / 2;
    for (int32_t i = threadIdx.x; i < half; i += WARP) {
        float *a = r->style == ROPE_INTERLEAVED ? head + 2 * i : head + i;
        float *b = r->style == ROPE_INTERLEAVED ? a + 1 : a + half;
        float c = rotation[2 * i], s = rotation[2 * i + 1], x = *a, y = *b;
        *a = fmaf(x, c, -(y * s));
        *b = fmaf(x, s, y * c);
    }
    __syncwarp();
}

/* One warp per token (x) and head (y): first the queries, then the keys, then the values. */
static __global__ void rotate_store(struct rotate r) {
    int32_t token = (int32_t)blockIdx.x, head = (int32_t)blockIdx.y - r.n_heads;
    const float *rotation = r.rotation + (int64_t)token * r.rope_dims;
    if (head < 0) {
        rotate_head(&r, r.q_norm, rotation, r.q + ((int64_t)token * r.n_heads + blockIdx.y) * r.head_dim);
        return;
    }
    int32_t value = head / r.n_kv_heads, kv_head = head % r.n_kv_heads;
    int64_t at = ((int64_t)token * r.n_kv_heads + kv_head) * r.head_dim;
    if (!value) rotate_head(&r, r.k_norm, rotation, r.k + at);
    int32_t position = r.position[token], slot = position % r.kv.block_size;
    int32_t block = r.blocks[(int64_t)r.row_of[token] * r.table_columns + position / r.kv.block_size];
    store_row(r.kv.type, r.head_dim, value ? r.v + at : r.k + at, r.layer + kv_row(&r.kv, block, value, kv_head, slot));
}

void cuda_rotate_store(void *dev, const struct model *m, int32_t layer, const struct step *s, float *q, float *k,
                       const float *v) {
    struct cuda *d = (struct cuda *)dev;
    const struct layer *l = &m->layers[layer];
    struct rotate r = {}; /* padding too: kernels take it by value */
    r.n_heads = m->n_heads;
    r.n_kv_heads = m->n_kv_heads;
    r.head_dim = m->head_dim;
    r.rope_dims = m->rope_dims;
    r.table_columns = s->batch.max_blocks;
    r.style = m->rope_style;
    r.eps = m->norm_eps;
    r.q_norm = l->q_norm;
    r.k_norm = l->k_norm;
    r.row_of = s->row_of;
    r.position = s->position;
    r.blocks = s->batch.blocks;
    r.rotation = s->rotation;
    r.q = q;
    r.k = k;
    r.v = v;
    r.layer = d->pool + kv_offset(&d->kv, 0, layer, 0, 0);
    r.kv = d->kv;
    dim3 grid((unsigned)s->batch.n_tokens, (unsigned)(m->n_heads + 2 * m->n_kv_heads));
    LAUNCH(rotate_store, grid, WARP, d->stream, r);
    note(d, cudaGetLastError(), "rotation");
}
