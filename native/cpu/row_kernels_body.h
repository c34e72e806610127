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

static void swiglu(int32_t n, const float *gate, const float *up, float *out) {
    int32_t i = 0, rest = n % 16;
    for (; i + 16 <= n; i += 16) v16_store(out + i, swiglu16(v16_load(gate + i), v16_load(up + i)));
    if (rest) v16_store_part(out + i, swiglu16(v16_load_part(gate + i, rest), v16_load_part(up + i, rest)), rest);
}

static void rotate(enum rope_style style, int32_t dims, const float *rotation, float *head) {
    int32_t half = dims / 2;
    for (int32_t i = 0; i < half; i++) {
        float *a = style == ROPE_INTERLEAVED ? head + 2 * i : head + i;
        float *b = style == ROPE_INTERLEAVED ? a + 1 : a + half;
        float c = rotation[2 * i], s = rotation[2 * i + 1], x = *a, y = *b;
        *a = fmaf(x, c, -(y * s)); /* said, because GCC fuses a difference beside a sum though told not to */
        *b = fmaf(x, s, y * c);
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

static void write_f16(int32_t n, const float *x, uint16_t *row) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) v16_store_half(row + i, v16_load(x + i));
    for (; i < n; i++) row[i] = f32_to_f16(x[i]);
}

static void write_bf16(int32_t n, const float *x, uint16_t *row) {
    for (int32_t i = 0; i < n; i++) row[i] = f32_to_bf16(x[i]);
}

static void store(int32_t type, int32_t n, const float *x, void *row) {
    switch (type) {
    case LL_F16: write_f16(n, x, row); break;
    case LL_BF16: write_bf16(n, x, row); break;
    case LL_Q8_0: write_q8_0(n, x, row); break;
    default: memcpy(row, x, (size_t)n * sizeof *x);
    }
}

#define ROW_KERNELS {norm, add, swiglu, rotate, store}
