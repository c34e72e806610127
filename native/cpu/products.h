/* Products of weights and activations, written once for the vector levels. A level's file brings the cores that
 * multiply a panel by a tile of tokens, one for each class of formats, includes this, says which of the drivers its
 * quantized types take, and then includes product_table.h.
 *
 * Rows of weights are lanes: a panel of LANES rows by 256 columns is unpacked into the first-level cache and then
 * serves every token, one or a thousand, and no sum ever crosses lanes. Each (row, token) has one accumulator, which
 * follows the blocks in order, so neither the panel's width nor the tile's height shows in the bits. */
#ifndef PRODUCTS_H
#define PRODUCTS_H
#include <math.h>
#include <stdbool.h>

#include "float_products.h"
#include "kernels.h"
#include "panel.h"
#include "quantize.h"
#include "row_kernels.h"

static const int32_t tile_sizes[] = {1, 2, 4, 6}; /* SIZES of them, up to TILE */

/* Unpacked side by side when there are tokens enough to reuse a tile: as many as the first-level cache holds. */
enum { PANELS = 4, UNPACKING = 5 /* tokens take as long */ };

/* Blocks [first, first + count) of 32 columns of up to sixteen rows, as kernels_amx.c multiplies them. */
struct weights;
struct scales;
typedef void unpack_fn(const uint8_t *w, int64_t row_bytes, int rows, int64_t first, int count, struct weights *out,
                       struct scales *scales, struct stream *next);

struct format {
    fill_fn *fill;
    one_fn *one; /* or NULL */
    core_fn *const *cores; /* for as many tokens as tile_sizes says */
    enum form form;
    bool halves; /* sub-scales per sixteen columns */
    int32_t offset; /* of the panel's codes */
    int32_t chunk_bytes; /* of a row's 256 columns */
    unpack_fn *unpack;   /* for tiles; or NULL: codes go into them as they are, or there are none */
};

struct work {
    struct panel panels[PANELS];
    uint8_t staged[LANES][CHUNK * sizeof(struct q8_0)]; /* the widest */
    struct stream next;
    _Alignas(64) float acc[]; /* (padded tokens, panels, LANES), then terms (groups, k / 32, rows) */
};

static int64_t acc_floats(int32_t n) { return (int64_t)padded_tokens(n) * PANELS * LANES; }

static int64_t scratch(int32_t k, int32_t n) {
    int64_t terms = (int64_t)padded_tokens(n) * (k / 32);
    return (int64_t)sizeof(struct work) + (acc_floats(n) + terms) * (int64_t)sizeof(float) + ONE_TOKEN_ROOM(k) + 64;
}

static union term *terms_of(struct work *work, int32_t n) { return (union term *)(void *)(work->acc + acc_floats(n)); }

/* What the cores need of the tokens' blocks of 32 columns, made once for all rows. */
static void set_terms(const struct format *f, const struct activations *a, union term *terms) {
    int64_t count = (int64_t)groups_of(a->n) * (a->k / 32) * a->rows;
    const struct quants *x = &a->blocks;
    if (f->form == FORM_MIN) {
        for (int64_t i = 0; i < count; i++) terms[i].min_scale = x->scale[i] * (float)x->sums[i];
    } else if (f->form == FORM_PLAIN) {
        for (int64_t i = 0; i < count; i++) terms[i].start = -f->offset * x->sums[i];
    }
}

/* The tile that begins at a token and a block of 32 columns; `block` is a multiple of CHUNK. */
static struct tile tile_at(const struct format *f, const struct activations *a, const union term *terms, int32_t token,
                           int32_t block) {
    if (is_super(f->form)) {
        int64_t at = scale_at(a, 256, token, block / 8);
        return (struct tile){.rows = a->rows,
                             .q = a->supers.q + q_at(a, token, block / 2),
                             .scale = a->supers.scale + at,
                             .sums = a->supers.sums + at * SUPER_SUMS};
    }
    int64_t at = scale_at(a, 32, token, block);
    return (struct tile){.rows = a->rows,
                         .q = a->blocks.q + q_at(a, token, block / 2),
                         .scale = a->blocks.scale + at,
                         .term = terms + at};
}

/* The last rows, when they are fewer than the lanes, are copied to where reading LANES rows is allowed. */
static struct rows stage_rows(const uint8_t *w, int64_t row_bytes, int32_t rows, int64_t bytes, struct work *work) {
    for (int32_t i = 0; i < rows; i++) memcpy(work->staged[i], w + i * row_bytes, (size_t)bytes);
    return (struct rows){work->staged[0], (int64_t)sizeof work->staged[0], NULL};
}

static void fill_panels(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows, int64_t first,
                        int count, struct work *work) {
    struct panel *panel = work->panels;
    for (int32_t r = 0; r < rows; r += LANES, panel++) {
        const uint8_t *from = w + r * row_bytes;
        if (rows - r >= LANES) {
            f->fill((struct rows){from, row_bytes, &work->next}, first, count, panel);
            continue;
        }
        from += first * f->chunk_bytes / CHUNK;
        f->fill(stage_rows(from, row_bytes, rows - r, (int64_t)count * f->chunk_bytes / CHUNK, work), 0, count, panel);
    }
    for (; (panel - work->panels) % ABREAST; panel++) *panel = panel[-1]; /* its products are not stored */
}

static void store_sums(const float *acc, int32_t rows, int32_t ld, int32_t n, float *out, int64_t ld_out) {
    for (int32_t t = 0; t < n; t++, acc += ld, out += ld_out) {
        int32_t r = 0;
        for (; r + LANES <= rows; r += LANES) memcpy(out + r, acc + r, LANES * sizeof(float));
        memcpy(out + r, acc + r, sizeof(float) * (size_t)(rows - r));
    }
}

/* Which of tile_sizes comes next: the largest, but twice four instead of six and what is left of eight or nine. */
static int next_size(int32_t token, int32_t n) {
    int32_t end = (token / GROUP + 1) * GROUP, left = (end < n ? end : n) - token;
    int size = left == 8 || left == 9 ? 2 : SIZES - 1;
    while (tile_sizes[size] > left) size--;
    return size;
}

/* The driver of quantized types where rows are lanes. */
static void matmul_lanes(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows,
                         const struct activations *a, float *out, int64_t ld_out, struct work *work) {
    int32_t blocks = a->k / 32, most = (a->n > TILE ? PANELS : ABREAST) * LANES;
    union term *terms = terms_of(work, a->n);
    set_terms(f, a, terms);
    if (a->n == 1 && f->one && (is_super(f->form) || blocks % 16 == 0)) {
        uintptr_t room = (uintptr_t)(terms + blocks);
        f->one(w, row_bytes, rows, a, terms, out, (int8_t *)((room + 63) / 64 * 64));
        return;
    }
    int64_t panel_bytes = (int64_t)LANES * f->chunk_bytes;
    work->next = paced(panel_bytes, a->n, UNPACKING, panel_bytes / 64, CHUNK * a->n); /* whatever the panels */
    for (int32_t r = 0; r < rows; r += most) {
        int32_t here = rows - r < most ? rows - r : most;
        int32_t panels = (here + ABREAST * LANES - 1) / (ABREAST * LANES) * ABREAST, ld = panels * LANES;
        memset(work->acc, 0, sizeof(float) * (size_t)a->n * (size_t)ld);
        for (int32_t first = 0; first < blocks; first += CHUNK) {
            int count = blocks - first < CHUNK ? blocks - first : CHUNK;
            int64_t bytes = (int64_t)here * f->chunk_bytes;
            start_stream(&work->next, (uintptr_t)w + (uintptr_t)((r + here) * row_bytes + first / CHUNK * bytes),
                         bytes);
            fill_panels(f, w + r * row_bytes, row_bytes, here, first, count, work);
            for (int32_t t = 0, size; t < a->n; t += tile_sizes[size]) {
                size = next_size(t, a->n);
                struct tile x = tile_at(f, a, terms, t, first);
                x.next = &work->next;
                float *acc = work->acc + (int64_t)t * ld;
                for (int32_t p = 0; p < panels; p += ABREAST)
                    f->cores[size](&work->panels[p], &x, count, acc + p * LANES, ld);
            }
            fetch_rest(&work->next);
        }
        store_sums(work->acc, here, ld, a->n, out + r, ld_out);
    }
}

#endif
