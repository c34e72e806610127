/* Doors for the tests of single kernels: one row decoded, one product at a level of choice. */
#include <stdlib.h>

#include "base/arena.h"
#include "base/status.h"
#include "cpu/cpuinfo.h"
#include "cpu/float_env.h"
#include "cpu/kernels.h"
#include "quant/formats.h"
#include "quant/types.h"

static int check_shape(int32_t type, int64_t cols) {
    const struct type *t = type_of(type);
    if (!t) return fail(LL_EUNSUPPORTED, "type: %d is not built", type);
    if (cols < 1 || cols % t->block)
        return fail(LL_EINVAL, "columns: expected a multiple of %d for %s, found %lld", t->block, t->name,
                    (long long)cols);
    return LL_OK;
}

int ll_test_decode(int32_t type, const void *src, int64_t n, float *dst) {
    TRY(check_shape(type, n));
    decode_row(type, src, n, dst);
    return LL_OK;
}

static void lay_out(struct activations *a, void **scratch, const struct kernels *k, struct arena *from) {
    uint64_t n = (uint64_t)padded_tokens(a->n), cols = (uint64_t)a->k;
    a->blocks.q = arena_take(from, n * (cols + 63), 1);
    a->blocks.scale = arena_take(from, n * (cols / 32), sizeof(float));
    a->blocks.sums = arena_take(from, n * (cols / 32), sizeof(int16_t));
    a->supers.q = arena_take(from, n * (cols + 63), 1);
    a->supers.scale = arena_take(from, n * (cols / 256), sizeof(float));
    a->supers.sums = arena_take(from, n * (cols / 256) * SUPER_SUMS, sizeof(int16_t));
    a->fours.q = arena_take(from, n * (cols + 63), 1);
    a->fours.sums = arena_take(from, n * (cols / 256) * SUPER_SUMS, sizeof(int16_t));
    *scratch = arena_take(from, 1, (uint64_t)k->scratch(a->k, a->n));
}

int ll_test_matmul(const char *level, int32_t type, const void *w, int32_t rows, int32_t cols, const float *x,
                   int32_t n, float *out) {
    TRY(check_shape(type, cols));
    const struct kernels *k = kernels_for(level);
    if (!k) return LL_EUNSUPPORTED; /* kernels_for() has said why */
    if (rows < 1 || n < 1) return fail(LL_EINVAL, "rows, n: expected at least 1, found %d and %d", rows, n);
    struct activations a = {.n = n, .k = cols, .rows = group_rows(n), .ahead = cpu_read_ahead(), .ld = cols, .x = x};
    struct arena counted = {0};
    void *scratch;
    lay_out(&a, &scratch, k, &counted);
    struct arena real = {aligned_alloc(ARENA_ALIGN, counted.used), 0};
    if (!real.base) return fail(LL_ENOMEM, "no memory for %d x %d activations", n, cols);
    lay_out(&a, &scratch, k, &real);
    uint32_t env = float_env_enter();
    for (int32_t t = 0; form_of(type) != FORM_FLOAT && t < n; t++) {
        if (is_super(form_of(type)))
            k->quantize_supers(&a, t, 0, cols / 256, x + (int64_t)t * cols);
        else
            k->quantize_blocks(&a, t, 0, cols / 32, x + (int64_t)t * cols);
    }
    const struct type *t = type_of(type);
    k->matmul[type](w, cols / t->block * (int64_t)t->bytes, rows, &a, out, rows, scratch);
    float_env_leave(env);
    free(real.base);
    return LL_OK;
}

static void lay_out_prompt(struct prompt *p, void **scratch, const struct prompt_kernels *k, struct arena *from) {
    uint64_t values = (uint64_t)padded_tokens(p->n) * 32 * (uint64_t)prompt_steps(p->k);
    p->high = arena_take(from, values, sizeof(uint16_t));
    p->low = arena_take(from, values, sizeof(uint16_t));
    *scratch = arena_take(from, 1, (uint64_t)k->scratch(p->n));
}

int ll_test_prompt_matmul(const char *level, int32_t type, const void *w, int32_t rows, int32_t cols, const float *x,
                          int32_t n, float *out) {
    TRY(check_shape(type, cols));
    const struct kernels *table = kernels_for(level);
    if (!table) return LL_EUNSUPPORTED; /* kernels_for() has said why */
    const struct prompt_kernels *k = table->prompts;
    if (!k || type == LL_F32) return fail(LL_EUNSUPPORTED, "level %s has no prompt products of this type", level);
    if (rows < 1 || n < 1) return fail(LL_EINVAL, "rows, n: expected at least 1, found %d and %d", rows, n);
    struct prompt p = {.n = n, .k = cols};
    struct arena counted = {0};
    void *scratch;
    lay_out_prompt(&p, &scratch, k, &counted);
    struct arena real = {aligned_alloc(ARENA_ALIGN, counted.used), 0};
    if (!real.base) return fail(LL_ENOMEM, "no memory for %d x %d activations", n, cols);
    lay_out_prompt(&p, &scratch, k, &real);
    if (form_of(type) != FORM_FLOAT) p.low = NULL;
    uint32_t env = float_env_enter();
    for (int32_t t = 0; t < n; t += GROUP) k->pack(&p, t / GROUP, x + (int64_t)t * cols, cols);
    const struct type *t = type_of(type);
    k->matmul(type, w, cols / t->block * (int64_t)t->bytes, rows, &p, out, rows, scratch);
    float_env_leave(env);
    free(real.base);
    return LL_OK;
}
