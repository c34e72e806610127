/* Types with a scale per 32 columns times five to eight generated tokens at level amx. Tokens are a product's first
 * operand and panels (panel.h) its second, so sums are tokens by rows: a tile product and three operations for each
 * token take the place of eight products and three operations.
 *
 * What is behind the last token is multiplied, too, and left: memory there is padded to whole groups. */
#ifndef FEW_BLOCKS_AMX_H
#define FEW_BLOCKS_AMX_H
#include <stdbool.h>
#include <string.h>

#include "kernels.h"
#include "magic.h"
#include "panel.h"
#include "products.h"
#include "tiles.h"

enum { MOST_TOKENS = 8, PANEL_UNPACKING = 8 /* tokens take as long */ };

typedef int32_t few_sums[MOST_TOKENS][SIDE]; /* (tokens, rows) */

INLINE void multiply_panel(const struct panel *p, const struct tile *x, int b) {
#define PRODUCT(sum, weights, tokens)         \
    _tile_zero(sum);                          \
    _tile_loadd(weights, p->codes[b], 64);    \
    _tile_loadd(tokens, tile_q(x, 0, b), 64); \
    _tile_dpbsud(sum, tokens, weights);
    IN_TURN(b, PRODUCT)
#undef PRODUCT
}

/* Terms' starts have MAGIC in them. */
INLINE void add_panel(bool magic, bool min, const struct panel *p, const struct tile *x, int b, few_sums sums,
                      vf acc[MOST_TOKENS]) {
    const float *scale = x->scale + b * x->rows;
    const union term *term = x->term + b * x->rows;
    vf d = vf_load(p->d[b]), m = vf_load(p->m[b]), taken = vf_mul(d, vf_set(MAGIC_FLOAT));
    UNROLL for (int t = 0; t < MOST_TOKENS; t++) {
        vi n = vi_add32(vi_load(sums[t]), vi_set32(min ? MAGIC : term[t].start));
        vf product = magic ? _mm512_fmsub_ps(vf_bits(n), d, taken) : vf_mul(vf_of(vi_sub32(n, vi_set32(MAGIC))), d);
        acc[t] = vf_fma(product, vf_set(scale[t]), acc[t]);
        if (min) acc[t] = vf_fma(m, vf_set(term[t].min_scale), acc[t]);
    }
}

/* Sums are stored two blocks after their product began and added one later. */
INLINE void few_core(bool magic, bool min, const struct panel *p, const struct tile *x, int count, few_sums sums[CHUNK],
                     float (*to)[SIDE]) {
    vf acc[MOST_TOKENS];
    UNROLL for (int t = 0; t < MOST_TOKENS; t++) acc[t] = vf_load(to[t]);
    settle();
    UNROLL for (int b = 0; b < CHUNK + 3; b++) {
        if (b < CHUNK && b < count) {
            fetch_line(x->next);
            multiply_panel(p, x, b);
        }
        if (b >= 2 && b - 2 < CHUNK && b - 2 < count) store_tile(b - 2, sums[b - 2]);
        if (b >= 3 && b - 3 < count) add_panel(magic, min, p, x, b - 3, sums[b - 3], acc);
    }
    UNROLL for (int t = 0; t < MOST_TOKENS; t++) vf_store(to[t], acc[t]);
}

static void few_chunk(bool min, const struct panel *p, const struct tile *x, int count, few_sums sums[CHUNK],
                      float (*acc)[SIDE]) {
    bool magic = takes_magic(p->d, count);
    if (magic && min)
        few_core(true, true, p, x, count, sums, acc);
    else if (magic)
        few_core(true, false, p, x, count, sums, acc);
    else if (min)
        few_core(false, true, p, x, count, sums, acc);
    else
        few_core(false, false, p, x, count, sums, acc);
}

static void matmul_few_blocks(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows,
                              const struct activations *a, float *out, int64_t ld_out, struct work *work) {
    const int32_t blocks = a->k / 32;
    const int64_t bytes = (int64_t)SIDE * f->chunk_bytes;
    union term *terms = terms_of(work, a->n);
    float (*acc)[SIDE] = (float (*)[SIDE])work->acc;
    _Alignas(64) few_sums sums[CHUNK] = {0};
    set_terms(f, a, terms);
    for (int32_t i = 0; f->form == FORM_PLAIN && i < blocks * a->rows; i++) terms[i].start += MAGIC;
    work->next = paced(bytes, a->n, PANEL_UNPACKING, bytes / 64, CHUNK);
    enter_shapes((struct tile_shape){a->n, 64}, (struct tile_shape){8, 64}, (struct tile_shape){a->n, 32});
    for (int32_t r = 0; r < rows; r += SIDE) {
        int32_t here = rows - r < SIDE ? rows - r : SIDE;
        memset(acc, 0, MOST_TOKENS * sizeof *acc);
        for (int32_t first = 0; first < blocks; first += CHUNK) {
            int count = blocks - first < CHUNK ? blocks - first : CHUNK;
            start_stream(&work->next, (uintptr_t)w + (uintptr_t)((r + here) * row_bytes + first / CHUNK * bytes),
                         bytes);
            fill_panels(f, w + r * row_bytes, row_bytes, here, first, count, work);
            struct tile x = tile_at(f, a, terms, 0, first);
            x.next = &work->next;
            few_chunk(f->form == FORM_MIN, work->panels, &x, count, sums, acc);
            fetch_rest(&work->next);
        }
        __mmask16 mask = (__mmask16)((1u << here) - 1);
        for (int32_t t = 0; t < a->n; t++) _mm512_mask_storeu_ps(out + t * ld_out + r, mask, vf_load(acc[t]));
    }
    _tile_release();
}

#endif
