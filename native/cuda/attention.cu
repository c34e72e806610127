/* Paged attention: one block of threads per token and head walks the keys of the token's row in spans and splits and
 * weighs them as cpu/attention.h and cpu/attention_body.h say, with the same bits as the CPU's exact levels. Slots past
 * the token or before its window never enter the arithmetic. */
#include "decode.cuh"

extern "C" {
#include "cpu/attention.h"
}

enum { THREADS = ATTEND_SPAN, GROUPS = THREADS / 16, MAX_COLUMNS = 4096 / THREADS /* of a head, per thread */ };

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

/* The row of a position's key; its value lies a plane further. */
static __device__ inline const uint8_t *key_at(const struct attend *p, const int32_t *blocks, int32_t head,
                                               int32_t position) {
    int32_t size = p->kv.block_size;
    return p->layer + kv_row(&p->kv, blocks[position / size], 0, head, position % size);
}

/* Scores of keys [lo, hi) behind `start`: sixteen lanes each. */
template <int TYPE>
static __device__ inline void score(const struct attend *p, const float *q, const int32_t *blocks, int32_t head,
                                    int32_t start, int32_t lo, int32_t hi, float *scores) {
    int32_t group = threadIdx.x / 16, lane = threadIdx.x % 16;
    for (int32_t first = lo; first < hi; first += GROUPS) {
        int32_t slot = first + group;
        const uint8_t *key = key_at(p, blocks, head, start + min(slot, hi - 1)); /* the fold needs whole warps */
        float sum = 0;
        for (int32_t c = lane; c < p->head_dim; c += 16) sum = fmaf(q[c], cached<TYPE>(key, c), sum);
        sum = sum_of_16(sum);
        if (lane == 0 && slot < hi) scores[slot] = sum * p->scale;
    }
}

struct softmax { float max, sum; };

/* One warp: the largest score of the span and before. */
static __device__ inline float largest(int32_t lo, int32_t hi, const float *scores, float max) {
    for (int32_t slot = lo + (int32_t)threadIdx.x; slot < hi; slot += WARP) max = fmaxf(max, scores[slot]);
    return max_of_32(max);
}

/* One warp: the sum of the span's weights. */
static __device__ inline float sum_of_weights(const float *weights) {
    float sum = 0;
    for (int32_t slot = threadIdx.x % 16; slot < ATTEND_SPAN; slot += 16) sum += weights[slot];
    return sum_of_16(sum);
}

/* What is left of what was weighed against `old`, now that `max` is the largest score. */
static __device__ inline float left_of(float old, float max) { return max == -INFINITY ? 1.0f : exp_exact(old - max); }

template <int TYPE> static __global__ void attend(struct attend p) {
    __shared__ float scores[ATTEND_SPAN], max, inverse, total_left, part_left;
    int32_t token = (int32_t)blockIdx.x, head = (int32_t)blockIdx.y, me = (int32_t)threadIdx.x;
    int32_t position = p.position[token], kv_head = head / (p.n_heads / p.n_kv_heads);
    int32_t begin = p.window > 0 && position >= p.window ? position - p.window + 1 : 0;
    int64_t at = ((int64_t)token * p.n_heads + head) * p.head_dim;
    const int32_t *blocks = p.blocks + (int64_t)p.row_of[token] * p.table_columns;
    float *acc = p.a + at, part[MAX_COLUMNS]; /* each thread has its own columns */
    struct softmax total = {-INFINITY, 0}, state = {-INFINITY, 0}; /* of the first warp */
    for (int32_t c = me; c < p.head_dim; c += THREADS) acc[c] = part[c / THREADS] = 0;

    for (int32_t start = begin / ATTEND_SPAN * ATTEND_SPAN; start <= position; start += ATTEND_SPAN) {
        int32_t lo = begin > start ? begin - start : 0, hi = min(position - start + 1, (int32_t)ATTEND_SPAN);
        score<TYPE>(&p, p.q + at, blocks, kv_head, start, lo, hi, scores);
        __syncthreads();
        if (me < WARP) {
            float m = largest(lo, hi, scores, state.max), left = exp_exact(state.max - m);
            if (me == 0) {
                max = m;
                part_left = left;
            }
        }
        __syncthreads();
        scores[me] = me >= lo && me < hi ? exp_exact(scores[me] - max) : 0.0f;
        __syncthreads();
        if (me < WARP) {
            state.sum = fmaf(state.sum, part_left, sum_of_weights(scores));
            state.max = max;
        }
        for (int32_t c = me; c < p.head_dim; c += THREADS) {
            float sum = part[c / THREADS] * part_left;
            for (int32_t j = lo; j < hi; j++)
                sum = fmaf(scores[j], cached<TYPE>(key_at(&p, blocks, kv_head, start + j) + p.kv.plane_bytes, c), sum);
            part[c / THREADS] = sum;
        }
        __syncthreads(); /* before the next span's scores and factors replace these */
        if ((start + ATTEND_SPAN) % ATTEND_SPLIT != 0 && start + ATTEND_SPAN <= position) continue;
        if (me < WARP) {
            float m = fmaxf(total.max, state.max), a = left_of(total.max, m), b = left_of(state.max, m);
            total.sum = fmaf(total.sum, a, state.sum * b);
            total.max = m;
            state.max = -INFINITY;
            state.sum = 0;
            if (me == 0) {
                total_left = a;
                part_left = b;
                inverse = 1.0f / total.sum;
            }
        }
        __syncthreads();
        for (int32_t c = me; c < p.head_dim; c += THREADS) {
            acc[c] = fmaf(acc[c], total_left, part[c / THREADS] * part_left);
            part[c / THREADS] = 0;
        }
    }
    for (int32_t c = me; c < p.head_dim; c += THREADS) acc[c] *= inverse;
}

#define ATTEND(TYPE) \
    case TYPE: LAUNCH(attend<TYPE>, grid, THREADS, d->stream, p); break

void cuda_attend(void *dev, const struct model *m, int32_t layer, const struct step *s, const float *q, float *a) {
    struct cuda *d = (struct cuda *)dev;
    struct attend p = {};
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
