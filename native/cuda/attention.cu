/* Paged attention: one block of threads per token and head walks the KV blocks of the token's row in the order of
 * their positions and folds each into a running softmax (Milakov and Gimelshein 2018), as cpu/attention.c does and
 * with the same bits. Slots past the token or before its window never enter the arithmetic. */
#include "decode.cuh"

enum { THREADS = 128, GROUPS = THREADS / 16, MAX_SLOTS = 32 };

struct attend {
    int32_t n_heads, n_kv_heads, head_dim, window, table_columns;
    float scale;
    const int32_t *row_of, *position, *blocks;
    const float *q; /* (n_tokens, n_heads, head_dim) */
    float *a;       /* the same; holds the weighted values while they grow */
    const uint8_t *layer; /* of block 0 in the pool */
    struct kv_layout kv;
};

template <int TYPE> static __device__ __forceinline__ float cached(const uint8_t *row, int32_t c) {
    if (TYPE != LL_Q8_0) return float_value(TYPE, row, c);
    const uint8_t *block = row + c / 32 * 34;
    return load_half(block) * (float)(int8_t)block[2 + c % 32];
}

/* Scores of slots [lo, hi): sixteen lanes each. */
template <int TYPE>
static __device__ inline void score(const struct attend *p, const float *q, const uint8_t *keys, int32_t lo, int32_t hi,
                                    float *scores) {
    int32_t group = threadIdx.x / 16, lane = threadIdx.x % 16;
    for (int32_t first = lo; first < hi; first += GROUPS) {
        int32_t slot = first + group, row = min(slot, hi - 1); /* the fold needs whole warps */
        float sum = 0;
        for (int32_t c = lane; c < p->head_dim; c += 16)
            sum = fmaf(q[c], cached<TYPE>(keys + row * p->kv.row_bytes, c), sum);
        sum = sum_of_16(sum);
        if (lane == 0 && slot < hi) scores[slot] = sum * p->scale;
    }
}

struct softmax { float max, sum; };

/* One warp, a lane per slot: scores become weights, and the softmax takes them in. Returns what the values so far
 * shrink by. */
static __device__ inline float weigh(int32_t lo, int32_t hi, float *scores, struct softmax *s) {
    int32_t slot = threadIdx.x % WARP;
    bool seen = slot >= lo && slot < hi;
    float score = seen ? scores[slot] : -INFINITY;
    float max = fmaxf(s->max, max_of_32(score)), shrink = exp_exact(s->max - max);
    float weight = seen ? exp_exact(score - max) : 0.0f;
    scores[slot] = weight;
    s->sum = fmaf(s->sum, shrink, sum_of_16(weight + __shfl_xor_sync(ALL_LANES, weight, 16)));
    s->max = max;
    return shrink;
}

template <int TYPE> static __global__ void attend(struct attend p) {
    __shared__ float scores[MAX_SLOTS], shrink, total;
    int32_t token = (int32_t)blockIdx.x, head = (int32_t)blockIdx.y, size = p.kv.block_size;
    int32_t position = p.position[token], kv_head = head / (p.n_heads / p.n_kv_heads);
    int32_t begin = p.window > 0 && position >= p.window ? position - p.window + 1 : 0;
    int64_t at = ((int64_t)token * p.n_heads + head) * p.head_dim;
    const int32_t *blocks = p.blocks + (int64_t)p.row_of[token] * p.table_columns;
    float *acc = p.a + at; /* each thread touches its own columns only */
    for (int32_t c = threadIdx.x; c < p.head_dim; c += THREADS) acc[c] = 0;
    struct softmax state = {-INFINITY, 0}; /* of the first warp */

    for (int32_t start = begin / size * size; start <= position; start += size) {
        int32_t lo = max(begin - start, 0), hi = min(position - start + 1, size);
        const uint8_t *keys = p.layer + kv_row(&p.kv, blocks[start / size], 0, kv_head, 0);
        const uint8_t *values = keys + p.kv.plane_bytes;
        score<TYPE>(&p, p.q + at, keys, lo, hi, scores);
        __syncthreads();
        if (threadIdx.x < WARP) {
            float s = weigh(lo, hi, scores, &state);
            if (threadIdx.x == 0) {
                shrink = s;
                total = state.sum;
            }
        }
        __syncthreads();
        for (int32_t c = threadIdx.x; c < p.head_dim; c += THREADS) {
            float sum = acc[c] * shrink;
            for (int32_t j = lo; j < hi; j++) sum = fmaf(scores[j], cached<TYPE>(values + j * p.kv.row_bytes, c), sum);
            acc[c] = sum;
        }
        __syncthreads(); /* before the next block's scores replace these */
    }
    float inverse = 1.0f / total;
    for (int32_t c = threadIdx.x; c < p.head_dim; c += THREADS) acc[c] *= inverse;
}

#define ATTEND(TYPE) \
    case TYPE: LAUNCH(attend<TYPE>, grid, THREADS, d->stream, p); break

void cuda_attend(void *dev, const struct model *m, int32_t layer, const struct step *s, const float *q, float *a) {
    struct cuda *d = (struct cuda *)dev;
    struct attend p;
    p.n_heads = m->n_heads;
    p.n_kv_heads = m->n_kv_heads;
    p.head_dim = m->head_dim;
    p.window = m->layers[layer].window;
    p.table_columns = s->batch.max_blocks;
    p.scale = m->attn_scale;
    p.row_of = s->row_of;
    p.position = s->position;
    p.blocks = s->batch.blocks;
    p.q = q;
    p.a = a;
    p.layer = d->pool + kv_offset(&d->kv, 0, layer, 0, 0);
    p.kv = d->kv;
    dim3 grid((unsigned)s->batch.n_tokens, (unsigned)m->n_heads);
    switch (d->kv.type) {
        ATTEND(LL_F16);
        ATTEND(LL_BF16);
        ATTEND(LL_F32);
        ATTEND(LL_Q8_0);
    }
    note(d, cudaGetLastError(), "attention");
}
