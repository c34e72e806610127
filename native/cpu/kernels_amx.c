/* Level amx: many tokens at a time go through tile products, few through VNNI; both give the same bits.
 *
 * The first operand of a tile product is sixteen tokens of a group by 32 or 64 columns, as the quantizer left them. The
 * second is a block of a panel as it lies: steps of sixteen rows by four columns. What comes out are the exact integer
 * sums of 16 x 16 outputs, which are then scaled and added like everywhere else.
 *
 * Two things bound this. Any tile instruction shuts one of the two ports that take 512-bit float arithmetic for some
 * 250 cycles, so each float operation counts twice; and sums leave the tiles through memory only. Types with a scale
 * per 256 columns therefore fold their sub-scales into the codes, as two bytes of 16-bit weights, and are scaled once
 * per 256 columns. Types with a scale per 32 columns turn sums into floats by an integer addition (see MAGIC), which
 * the other port takes.
 *
 * Pitfall: GCC 12 thinks that loading a tile configuration reads only the structure's first bytes. */
#include "one_token.h"
#include "vnni.h"

#include "products.h"

enum { FEW = 8 }; /* up to so many tokens, tiles do not pay */

/* Names of tile registers: the compiler wants literals. */
#define TOKENS_A 4
#define TOKENS_B 5
#define LOW 6
#define HIGH 7
#define WEIGHTS_A 6
#define WEIGHTS_B 7

static void enter_tiles(int column_bytes) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    config.row_bytes[TOKENS_A] = config.row_bytes[TOKENS_B] = (uint16_t)column_bytes;
    config.rows[WEIGHTS_A] = config.rows[WEIGHTS_B] = (uint8_t)(column_bytes / 4);
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

typedef int32_t tile_sums[GROUP][LANES]; /* (tokens, rows) */

/* GCC does not know that loading a tile reads memory: what was written to panels must be there by now. */
static inline void settle(void) { __asm__ volatile("" : : : "memory"); }

/* ---- a scale per 32 columns ---- */

/* Unsigned codes become the signed ones that they stand for. */
static void sign_codes(struct panel *p, int32_t offset) {
    vi minus = vi_set8(offset);
    for (int b = 0; b < CHUNK; b++) {
        UNROLL for (int j = 0; j < 8; j++) vi_store(p->codes[b][j], vi_sub8(vi_load(p->codes[b][j]), minus));
    }
}

/* A sum n of magnitude below 2^22, added to the bits of 1.5 * 2^23, makes the float 1.5 * 2^23 + n. So one fma gives
 * round(n * d), the bits of (float)n * d, as long as 1.5 * 2^23 * d is exact and finite. */
enum { MAGIC = 0x4b400000 };

static bool takes_magic(const struct panel *p, int count) {
    __mmask16 finite = 0xffff;
    for (int b = 0; b < count; b++) {
        vf size = _mm512_abs_ps(vf_load(p->d[b]));
        finite &= _mm512_cmp_ps_mask(size, vf_set(1e5f), _CMP_LT_OQ); /* half precision ends at 65504 */
    }
    return finite == 0xffff;
}

INLINE void multiply_block(const struct panel *p, const struct tile *x, int b) {
    switch (b % 4) { /* unrolled: one case remains */
#define CASE(sums, tokens, weights)               \
    case sums:                                    \
        _tile_loadd(tokens, tile_q(x, 0, b), 64); \
        _tile_loadd(weights, p->codes[b], 64);    \
        _tile_zero(sums);                         \
        _tile_dpbssd(sums, tokens, weights);      \
        break
        CASE(0, TOKENS_A, WEIGHTS_A);
        CASE(1, TOKENS_B, WEIGHTS_B);
        CASE(2, TOKENS_A, WEIGHTS_A);
        CASE(3, TOKENS_B, WEIGHTS_B);
    }
#undef CASE
}

INLINE void store_block(int b, tile_sums *to) {
    switch (b % 4) {
    case 0: _tile_stored(0, to, 64); break;
    case 1: _tile_stored(1, to, 64); break;
    case 2: _tile_stored(2, to, 64); break;
    default: _tile_stored(3, to, 64); break;
    }
}

INLINE void add_block(bool magic, bool min, const struct panel *p, const struct tile *x, int b, tile_sums *sums,
                      vf acc[GROUP]) {
    const float *scale = x->scale + b * x->rows;
    const union term *term = x->term + b * x->rows;
    vf d = vf_load(p->d[b]), m = vf_load(p->m[b]), minus = vf_mul(d, vf_set(-12582912.0f));
    UNROLL for (int t = 0; t < GROUP; t++) {
        vi n = vi_load((*sums)[t]);
        vf product = magic ? vf_fma(vf_bits(vi_add32(n, vi_set32(MAGIC))), d, minus) : vf_mul(vf_of(n), d);
        acc[t] = vf_fma(product, vf_set(scale[t]), acc[t]);
        if (min) acc[t] = vf_fma(m, vf_set(term[t].min_scale), acc[t]);
    }
}

/* Sixteen tokens times a panel. Sums are stored two blocks after their product began and added one later, so that no
 * step waits for another. */
INLINE void block_tile(bool magic, bool min, const struct panel *p, const struct tile *x, int count, struct work *work,
                       float *out, int64_t ld) {
    tile_sums *sums = work->sums;
    vf acc[GROUP];
    UNROLL for (int t = 0; t < GROUP; t++) acc[t] = vf_load(out + t * ld);
    UNROLL for (int b = 0; b < CHUNK + 3; b++) {
        if (b < CHUNK) fetch(&work->next);
        if (b < CHUNK && b < count) multiply_block(p, x, b);
        if (b >= 2 && b - 2 < CHUNK && b - 2 < count) store_block(b - 2, &sums[(b - 2) % 8]);
        if (b >= 3 && b - 3 < count) add_block(magic, min, p, x, b - 3, &sums[(b - 3) % 8], acc);
    }
    UNROLL for (int t = 0; t < GROUP; t++) vf_store(out + t * ld, acc[t]);
}

typedef void tile_fn(const struct panel *p, const struct tile *x, int count, struct work *work, float *out, int64_t ld);
#define TILE_FN(name, magic, min)                                                                           \
    static void name(const struct panel *p, const struct tile *x, int count, struct work *work, float *out, \
                     int64_t ld) {                                                                          \
        block_tile(magic, min, p, x, count, work, out, ld);                                                 \
    }
TILE_FN(magic_tile, true, false)
TILE_FN(magic_min_tile, true, true)
TILE_FN(usual_tile, false, false)
TILE_FN(usual_min_tile, false, true)

static void block_tiles(const struct format *f, const struct activations *a, const union term *terms, int32_t first,
                        int count, int32_t panels, struct work *work, float *acc) {
    bool min = f->form == FORM_MIN;
    tile_fn *core[PANELS];
    int64_t ld = panels * LANES;
    for (int32_t i = 0; i < panels; i++) {
        struct panel *p = &work->panels[i];
        bool magic = takes_magic(p, count);
        if (f->offset) sign_codes(p, f->offset);
        settle();
        core[i] = magic ? min ? magic_min_tile : magic_tile : min ? usual_min_tile : usual_tile;
    }
    for (int32_t t = 0; t < a->n; t += GROUP) {
        struct tile x = tile_at(f, a, terms, t, first);
        for (int32_t i = 0; i < panels; i++) core[i](&work->panels[i], &x, count, work, acc + t * ld + i * LANES, ld);
    }
}

/* ---- a scale per 256 columns ---- */

/* Codes times sub-scales, 16-bit numbers, as two planes of bytes in the place of the codes: weight = 256 * high + low,
 * low unsigned and high signed. */
INLINE void fold_subs(bool halves, int32_t offset, struct panel *p) {
    const vi even = vi_set32(0x00ff00ff), odd = vi_set32((int32_t)0xff00ff00u);
    for (int b = 0; b < CHUNK; b++) {
        vi first[2], second[2], minus[2];
        for (int i = 0; i < 2; i++) {
            vi sub = vi_load(p->sub[b][halves ? i : 0]);
            vi pair = vi_or(vi_and(sub, vi_set32(0xffff)), vi_shl32(sub, 16));
            first[i] = vi_and(pair, even);     /* bytes sub, 0, sub, 0 */
            second[i] = vi_shl32(first[i], 8); /* bytes 0, sub, 0, sub */
            minus[i] = vi_mul16(pair, vi_set16(offset));
        }
        UNROLL for (int j = 0; j < 8; j++) {
            vi codes = vi_load(p->codes[b][j]);
            vi w0 = _mm512_sub_epi16(_mm512_maddubs_epi16(codes, first[j / 4]), minus[j / 4]);
            vi w1 = _mm512_sub_epi16(_mm512_maddubs_epi16(codes, second[j / 4]), minus[j / 4]);
            vi_store(p->codes[b][j], vi_or(vi_and(w0, even), _mm512_slli_epi16(w1, 8)));
            vi_store(p->high[b][j], vi_or(_mm512_srli_epi16(w0, 8), vi_and(w1, odd)));
        }
    }
}

/* A group of tokens times a panel: the tokens, and where the sums and then the results go. */
struct part {
    struct tile x;
    tile_sums *low, *high;
    float *acc;
    int64_t ld;
};

/* A panel times one or two groups. */
struct unit {
    const struct panel *panel;
    struct part part[2];
};

/* Adds eight tokens of a group, from token `from`. Those that only pad the group are as good as any. */
INLINE void add_tokens(bool halves, bool min, const struct panel *panel, const struct part *p, int from) {
    const vi up = vi_repeat128(_mm_setr_epi8(-1, 0, 1, 2, -1, 4, 5, 6, -1, 8, 9, 10, -1, 12, 13, 14));
    const float *scales = p->x.scale + from;
    const int16_t *sums = p->x.sums + from * SUPER_SUMS + (halves ? 0 : 16);
    const int32_t *low = (*p->low)[from], *high = (*p->high)[from];
    vf d = vf_load(panel->d[0]), m = vf_load(panel->m[0]);
    float *out = p->acc + from * p->ld;
    int64_t ld = p->ld;
    UNROLL for (int t = 0; t < 8; t++) {
        vi isum = vi_add32(vi_shuffle8(vi_load(high + t * LANES), up), vi_load(low + t * LANES));
        vf scale = vf_set(scales[t]), acc = vf_fma(vf_mul(vf_of(isum), d), scale, vf_load(out + t * ld));
        if (min) {
            vi msum = vi_set32(0);
            for (int i = 0; i < (halves ? 8 : 4); i++)
                msum = _mm512_dpwssd_epi32(msum, vi_load(panel->pairs[i]),
                                           vi_set32(load_i32(sums + t * SUPER_SUMS + 2 * i)));
            acc = vf_fma(vf_mul(vf_of(msum), m), scale, acc);
        }
        vf_store(out + t * ld, acc);
    }
}

/* The sums of one unit, while those of the one before it, if any, are added. */
INLINE void run_unit(bool halves, bool min, bool two, const struct unit *u, const struct unit *before,
                     struct stream *next) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    UNROLL for (int i = 0; i < 4; i++) {
        fetch(next);
        _tile_loadd(LOW, u->panel->codes[2 * i], 64);
        _tile_loadd(TOKENS_A, tile_q(&u->part[0].x, 0, 2 * i), 64);
        _tile_dpbsud(0, TOKENS_A, LOW);
        _tile_loadd(HIGH, u->panel->high[2 * i], 64);
        _tile_dpbssd(1, TOKENS_A, HIGH);
        if (two) {
            _tile_loadd(TOKENS_B, tile_q(&u->part[1].x, 0, 2 * i), 64);
            _tile_dpbsud(2, TOKENS_B, LOW);
            _tile_dpbssd(3, TOKENS_B, HIGH);
        }
        if (before && (two || i < 2)) add_tokens(halves, min, before->panel, &before->part[i / 2], i % 2 * 8);
    }
    _tile_stored(0, u->part[0].low, 64);
    _tile_stored(1, u->part[0].high, 64);
    if (two) {
        _tile_stored(2, u->part[1].low, 64);
        _tile_stored(3, u->part[1].high, 64);
    }
}

/* Units of one kind: all of two groups, or all of one. */
INLINE void run_units(bool halves, bool min, bool two, const struct format *f, const struct activations *a,
                      int32_t first, int32_t panels, int32_t from, int32_t to, struct work *work, float *acc) {
    const int step = two ? 2 * GROUP : GROUP;
    struct unit units[2];
    const struct unit *before = NULL;
    int turn = 0;
    int64_t ld = panels * LANES;
    for (int32_t t = from; t < to; t += step) {
        struct tile x = tile_at(f, a, NULL, t, first), y = two ? tile_at(f, a, NULL, t + GROUP, first) : x;
        for (int32_t i = 0; i < panels; i++, turn ^= 1) {
            struct unit *u = &units[turn];
            tile_sums *sums = work->sums + 4 * turn;
            float *out = acc + t * ld + i * LANES;
            u->panel = &work->panels[i];
            u->part[0] = (struct part){x, sums, sums + 1, out, ld};
            if (two) u->part[1] = (struct part){y, sums + 2, sums + 3, out + GROUP * ld, ld};
            run_unit(halves, min, two, u, before, &work->next);
            before = u;
        }
    }
    for (int i = 0; before && i < (two ? 4 : 2); i++)
        add_tokens(halves, min, before->panel, &before->part[i / 2], i % 2 * 8);
}

INLINE void super_tiles(bool halves, bool min, const struct format *f, const struct activations *a, int32_t first,
                        int32_t panels, struct work *work, float *acc) {
    int32_t groups = (a->n + GROUP - 1) / GROUP, pairs = groups / 2 * 2 * GROUP;
    for (int32_t i = 0; i < panels; i++) fold_subs(halves, f->offset, &work->panels[i]);
    settle();
    run_units(halves, min, true, f, a, first, panels, 0, pairs, work, acc);
    run_units(halves, min, false, f, a, first, panels, pairs, a->n, work, acc);
}

static void super_tiles_of(const struct format *f, const struct activations *a, int32_t first, int32_t panels,
                           struct work *work, float *acc) {
    if (f->halves && f->form == FORM_SUPER_MIN)
        super_tiles(true, true, f, a, first, panels, work, acc);
    else if (f->halves)
        super_tiles(true, false, f, a, first, panels, work, acc);
    else if (f->form == FORM_SUPER_MIN)
        super_tiles(false, true, f, a, first, panels, work, acc);
    else
        super_tiles(false, false, f, a, first, panels, work, acc);
}

/* ---- the table ---- */

/* Blocks of 256 columns of a few panels times all tokens, added to acc (padded tokens, panels, LANES). */
static void add_chunk(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows,
                      const struct activations *a, const union term *terms, int32_t first, struct work *work,
                      float *acc) {
    int32_t blocks = a->k / 32, panels = (rows + LANES - 1) / LANES;
    int count = blocks - first < CHUNK ? blocks - first : CHUNK;
    bool super = is_super(f->form);
    int32_t groups = (a->n + GROUP - 1) / GROUP, steps = panels * (super ? (groups + 1) / 2 * 4 : groups * CHUNK);
    fetch_next(f, w, row_bytes, rows, first, steps, work);
    fill_panels(f, w, row_bytes, rows, first, count, false, work);
    if (super)
        super_tiles_of(f, a, first, panels, work, acc);
    else
        block_tiles(f, a, terms, first, count, panels, work, acc);
}

/* Many tokens do not fit the second-level cache with all their columns: then several turns of rows share what of them
 * is near. Weights are read once either way. */
static void matmul_tiles(const struct format *f, const uint8_t *w, int64_t row_bytes, int32_t rows,
                         const struct activations *a, float *out, int64_t ld_out, struct work *work) {
    enum { ROWS = PANELS * LANES, MANY = 128 };
    int32_t most = (a->n > MANY ? TURNS : 1) * ROWS, turn_floats = padded_tokens(a->n) * ROWS;
    if (a->n <= FEW) {
        matmul_lanes(f, w, row_bytes, rows, a, out, ld_out, work);
        return;
    }
    union term *terms = terms_of(work, a->n);
    set_terms(f, a, terms);
    enter_tiles(is_super(f->form) ? 64 : 32);
    for (int32_t r = 0; r < rows; r += most) {
        int32_t end = rows - r < most ? rows : r + most;
        memset(work->acc, 0, sizeof(float) * (size_t)turn_floats * (size_t)((end - r + ROWS - 1) / ROWS));
        for (int32_t first = 0; first < a->k / 32; first += CHUNK) {
            for (int32_t i = r; i < end; i += ROWS)
                add_chunk(f, w + i * row_bytes, row_bytes, end - i < ROWS ? end - i : ROWS, a, terms, first, work,
                          work->acc + (int64_t)(i - r) / ROWS * turn_floats);
        }
        for (int32_t i = r; i < end; i += ROWS) {
            int32_t here = end - i < ROWS ? end - i : ROWS, ld = (here + LANES - 1) / LANES * LANES;
            store_sums(work->acc + (int64_t)(i - r) / ROWS * turn_floats, here, ld, a->n, out + i, ld_out);
        }
    }
    _tile_release();
}

#define MATMUL matmul_tiles
#define ONE(type) one_##type
#include "product_table.h"

static const struct kernels table = {
    .name = "amx",
    .scratch = scratch,
    .quantize_blocks = quantize_blocks,
    .quantize_supers = quantize_supers,
    .prompts = &prompt_kernels_amx,
    .row = &row_kernels_avx512,
    .matmul = PRODUCTS,
};

const struct kernels *kernels_amx(void) { return &table; }
