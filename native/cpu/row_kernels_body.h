/* The row kernels, written once over v16 and compiled once per level: the including file sets the compiler's flags
 * and wraps the table at the end, which is all that is visible. */
#include <float.h>
#include <stdbool.h>

#include "row_kernels.h"
#include "v16.h"

static void norm(int32_t n, const float *x, const float *w, float eps, float *out) {
    v16 sum = v16_set(0);
    int32_t i = 0, rest = n % 16;
    for (; i + 16 <= n; i += 16) sum = v16_fma(v16_load(x + i), v16_load(x + i), sum);
    if (rest) {
        v16 last = v16_load_part(x + i, rest);
        sum = v16_fma(last, last, sum);
    }
    v16 scale = v16_set(1.0f / sqrtf(v16_sum(sum) / (float)n + eps));
    for (i = 0; i + 16 <= n; i += 16) v16_store(out + i, v16_mul(v16_mul(v16_load(x + i), scale), v16_load(w + i)));
    if (rest)
        v16_store_part(out + i, v16_mul(v16_mul(v16_load_part(x + i, rest), scale), v16_load_part(w + i, rest)), rest);
}

static void add(int32_t n, const float *in, float *x) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) v16_store(x + i, v16_add(v16_load(x + i), v16_load(in + i)));
    for (; i < n; i++) x[i] += in[i];
}

V16_INLINE v16 swiglu16(v16 gate, v16 up) {
    v16 e = v16_exp(v16_sub(v16_set(0), v16_max(v16_set(-88.0f), gate))); /* beyond, silu is 0 to float32 */
    return v16_mul(v16_div(gate, v16_add(v16_set(1.0f), e)), up);
}

static void swiglu(int32_t n, float *gate, const float *up) {
    int32_t i = 0, rest = n % 16;
    for (; i + 16 <= n; i += 16) v16_store(gate + i, swiglu16(v16_load(gate + i), v16_load(up + i)));
    if (rest) v16_store_part(gate + i, swiglu16(v16_load_part(gate + i, rest), v16_load_part(up + i, rest)), rest);
}

static void rotate(enum rope_style style, int32_t dims, const float *rotation, float *head) {
    int32_t half = dims / 2;
    for (int32_t i = 0; i < half; i++) {
        float *a = style == ROPE_INTERLEAVED ? head + 2 * i : head + i;
        float *b = style == ROPE_INTERLEAVED ? a + 1 : a + half;
        float c = rotation[2 * i], s = rotation[2 * i + 1], x = *a, y = *b;
        *a = x * c - y * s;
        *b = x * s + y * c;
    }
}

/* ---- the KV cache's types ---- */

/* A block with a value that is not finite gets a scale that is not a number, so that the fault reaches the logits; one
 * too small to scale is 0. */
static void write_q8_0(int32_t n, const float *x, uint8_t *row) {
    for (int32_t b = 0; b < n / 32; b++, x += 32, row += 34) {
        float amax = 0;
        bool finite = true;
        for (int i = 0; i < 32; i++) {
            finite = finite && fabsf(x[i]) <= FLT_MAX;
            amax = fmaxf(amax, fabsf(x[i]));
        }
        bool usable = finite && 127 / amax <= FLT_MAX;
        float inverse = usable ? 127 / amax : 0;
        uint16_t scale = finite ? f32_to_f16(usable ? amax / 127 : 0) : 0x7e00;
        memcpy(row, &scale, 2);
        for (int i = 0; i < 32; i++) row[2 + i] = usable ? (uint8_t)(int8_t)rintf(x[i] * inverse) : 0;
    }
}

static void read_q8_0(int32_t n, const uint8_t *row, float *x) {
    for (int32_t b = 0; b < n / 32; b++, x += 32, row += 34) {
        uint16_t half;
        memcpy(&half, row, 2);
        float scale = f16_to_f32(half);
        for (int i = 0; i < 32; i++) x[i] = scale * (float)(int8_t)row[2 + i];
    }
}

static void write_f16(int32_t n, const float *x, uint16_t *row) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) v16_store_half(row + i, v16_load(x + i));
    for (; i < n; i++) row[i] = f32_to_f16(x[i]);
}

static void write_bf16(int32_t n, const float *x, uint16_t *row) {
    for (int32_t i = 0; i < n; i++) row[i] = f32_to_bf16(x[i]);
}

static void read_f16(int32_t n, const uint16_t *row, float *x) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) v16_store(x + i, v16_load_half(row + i));
    for (; i < n; i++) x[i] = f16_to_f32(row[i]);
}

static void read_bf16(int32_t n, const uint16_t *row, float *x) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) v16_store(x + i, v16_load_bf16(row + i));
    for (; i < n; i++) x[i] = bf16_to_f32(row[i]);
}

static void store(int32_t type, int32_t n, const float *x, void *row) {
    switch (type) {
    case LL_F16: write_f16(n, x, row); break;
    case LL_BF16: write_bf16(n, x, row); break;
    case LL_Q8_0: write_q8_0(n, x, row); break;
    default: memcpy(row, x, (size_t)n * sizeof *x);
    }
}

static void load(int32_t type, int32_t n, const void *row, float *x) {
    switch (type) {
    case LL_F16: read_f16(n, row, x); break;
    case LL_BF16: read_bf16(n, row, x); break;
    case LL_Q8_0: read_q8_0(n, row, x); break;
    default: memcpy(x, row, (size_t)n * sizeof *x);
    }
}

/* ---- attention ---- */

static void scores(int32_t lo, int32_t hi, int32_t n, const float *q, const float *k, float scale, float *out) {
    int32_t rest = n % 16;
    for (int32_t j = lo; j < hi; j++) {
        const float *row = k + (int64_t)j * n;
        v16 sum = v16_set(0);
        int32_t i = 0;
        for (; i + 16 <= n; i += 16) sum = v16_fma(v16_load(q + i), v16_load(row + i), sum);
        if (rest) sum = v16_fma(v16_load_part(q + i, rest), v16_load_part(row + i, rest), sum);
        out[j] = v16_sum(sum) * scale;
    }
}

/* The weights of one block's slots; those outside [lo, hi) get exactly 0 and so leave the sum alone. */
static float weigh(int32_t lo, int32_t hi, float max, float *scores) {
    for (int32_t j = 0; j < 32; j++) scores[j] = j >= lo && j < hi ? scores[j] - max : -INFINITY;
    v16 a = v16_exp(v16_load(scores)), b = v16_exp(v16_load(scores + 16));
    v16_store(scores, a);
    v16_store(scores + 16, b);
    return v16_sum(v16_add(a, b));
}

static void fold(int32_t lo, int32_t hi, int32_t n, float *scores, const float *v, struct softmax *s) {
    float max = s->max, shrink[16];
    for (int32_t j = lo; j < hi; j++) max = scores[j] > max ? scores[j] : max;
    v16_store(shrink, v16_exp(v16_set(s->max - max))); /* 0 in the first block, where s->max is -INFINITY */
    s->sum = fmaf(s->sum, shrink[0], weigh(lo, hi, max, scores));
    s->max = max;
    v16 old = v16_set(shrink[0]);
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 acc = v16_mul(v16_load(s->acc + i), old);
        for (int32_t j = lo; j < hi; j++) acc = v16_fma(v16_set(scores[j]), v16_load(v + (int64_t)j * n + i), acc);
        v16_store(s->acc + i, acc);
    }
    for (; i < n; i++) {
        float acc = s->acc[i] * shrink[0];
        for (int32_t j = lo; j < hi; j++) acc = fmaf(scores[j], v[(int64_t)j * n + i], acc);
        s->acc[i] = acc;
    }
}

static void finish(int32_t n, const struct softmax *s, float *out) {
    float inverse = 1.0f / s->sum;
    for (int32_t i = 0; i < n; i++) out[i] = s->acc[i] * inverse;
}

#define ROW_KERNELS {norm, add, swiglu, rotate, store, load, scores, fold, finish}
