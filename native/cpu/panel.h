/* A panel: LANES rows by up to 256 columns of a quantized tensor, unpacked so that a row is a lane. One function per
 * type makes it; the products know panels only. Codes are unsigned bytes, offset by what the type's format says.
 * Reads only bytes that belong to the rows' own blocks. */
#ifndef PANEL_H
#define PANEL_H
#include <stdbool.h>

#include "kernels.h"
#include "lanes.h"
#include "quant/formats.h"

enum {
    CHUNK = 8,   /* blocks of 32 columns in a panel: one block of the K types */
    ABREAST = 2, /* panels that a core takes at once, so that a q that was loaded serves both, */
    TILE = LANES == 16 ? 6 : 4 /* and tokens: 32 registers hold twelve sums of a block and twelve of all blocks */
};

/* d and m of types with a scale per 256 columns are those of block 0. */
struct panel {
    uint8_t codes[CHUNK][8][LANES][4]; /* [block][step] four columns of every row */
    float d[CHUNK][LANES], m[CHUNK][LANES];
    int32_t sub[CHUNK][2][LANES];      /* integer scales of the block's halves; the first where it has one */
    /* What sums of q are multiplied by, two at a time, to take back the offset of the codes or to give the sum of the
     * minima: pairs[b] for the halves of block b where these have sub-scales of their own, else pairs[i] for blocks
     * 2 i and 2 i + 1. */
    int16_t pairs[CHUNK][LANES][2];
};

/* Blocks [first, first + count) of the rows; count <= CHUNK, and CHUNK for the K types. */
typedef void fill_fn(struct rows p, int64_t first, int count, struct panel *out);

/* What every row needs of a token's block besides its codes; it depends on the form and the offset of the codes. */
union term {
    int32_t start; /* -offset * sum of q: where an integer sum starts */
    float min_scale; /* scale * sum of q */
};

/* A few tokens of one group at the columns of a panel. From one block of 32 to the next, scale and term move by
 * `rows`; q does so every other block, by 64 * rows, and by 32 in between. Tokens are 1, 64 and SUPER_SUMS apart. */
struct tile {
    int32_t rows;
    const int8_t *q;
    const float *scale;
    const union term *term;
    const int16_t *sums; /* of 256 columns */
    struct stream *next;
};

INLINE const int8_t *tile_q(const struct tile *x, int token, int block) {
    return x->q + (block / 2 * x->rows + token) * 64 + block % 2 * 32;
}

/* Adds pairs [from, to) of sums of q times what `width` panels have for them: the minima, or what takes back the codes'
 * offset. */
INLINE void add_pairs(int tokens, int width, bool halves, int from, int to, const struct panel *p, const struct tile *x,
                      vi (*sum)[TILE]) {
    for (int pair = from; pair < to; pair++) {
        UNROLL for (int t = 0; t < tokens; t++) {
            vi two = vi_set32(load_i32(x->sums + t * SUPER_SUMS + (halves ? 0 : 16) + 2 * pair));
            UNROLL for (int i = 0; i < width; i++) sum[i][t] = vi_dot16(sum[i][t], vi_load(p[i].pairs[pair]), two);
        }
    }
}

/* Adds the tokens' sums of a super, and of its minima, to acc. */
INLINE void add_super(int tokens, bool min, const struct panel *p, const struct tile *x, const vi *isum, const vi *msum,
                      float *acc, int64_t ld) {
    vf d = vf_load(p->d[0]), m = vf_load(p->m[0]);
    UNROLL for (int t = 0; t < tokens; t++) {
        vf scale = vf_set(x->scale[t]), sum = vf_load(acc + t * ld);
        sum = vf_fma(vf_mul(vf_of(isum[t]), d), scale, sum);
        if (min) sum = vf_fma(vf_mul(vf_of(msum[t]), m), scale, sum);
        vf_store(acc + t * ld, sum);
    }
}

/* Adds `count` blocks of ABREAST panels times the tile's tokens to acc: LANES floats of each panel, one after the
 * other, for every token, ld floats apart. */
typedef void core_fn(const struct panel *p, const struct tile *x, int count, float *acc, int64_t ld);

/* Codes that need all eight bits are signed in the file. The VNNI dot product wants them offset by 128, the AVX2 one
 * takes them as they are. */
#if defined(HAS_DOT8)
enum { WIDE_OFFSET = 128 };
#else
enum { WIDE_OFFSET = 0 };
#endif

INLINE vi low_nibbles(vi x) { return vi_and(x, vi_set8(15)); }
INLINE vi high_nibbles(vi x) { return vi_and(vi_shr32(x, 4), vi_set8(15)); }

/* Bits n and up of every byte, moved to bit `to` and cut to those of `mask`. */
INLINE vi move_bits(vi x, int n, int to, int mask) {
    return vi_and(n > to ? vi_shr32(x, n - to) : vi_shl32(x, to - n), vi_set8(mask));
}

/* ---- types whose own block is 32 columns ---- */

enum high { LOW_ONLY, HIGH_FIFTH };

/* The fifth bits of columns 4 step to 4 step + 3: bits of a 32-bit word, spread to bit 4 of the lane's bytes. */
INLINE vi fifth_bits(vi word, int step) {
    char b = (char)(step / 2);
    vi spread = vi_repeat128(_mm_setr_epi8(b, b, b, b, (char)(b + 4), (char)(b + 4), (char)(b + 4), (char)(b + 4),
                                           (char)(b + 8), (char)(b + 8), (char)(b + 8), (char)(b + 8), (char)(b + 12),
                                           (char)(b + 12), (char)(b + 12), (char)(b + 12)));
    vi mask = vi_set32(step % 2 ? (int32_t)0x80402010u : 0x08040201);
    return vi_where8(vi_shuffle8(word, spread), mask, vi_set8(16));
}

/* Half-precision scales in the low halves of words, and perhaps minima in the high ones. */
INLINE void put_scales(uint32_t (*head)[LANES], int count, int has_min, struct panel *out) {
    for (int b = 0; b < count; b++) {
        vi words = vi_load(head[b]);
        vf_store(out->d[b], vf_of_half(words));
        if (has_min) vf_store(out->m[b], vf_of_half(vi_shr32(words, 16)));
    }
}

/* Q4_0, Q4_1, Q5_0 and Q5_1: a scale, perhaps a minimum, perhaps fifth bits, nibbles. */
INLINE void fill_legacy(struct rows p, int64_t first, int count, struct panel *out, int bytes, int has_min,
                        enum high high) {
    _Alignas(64) uint32_t head[CHUNK][LANES];
    int at = has_min ? 4 : 2;
    for (int b = 0; b < count; b++) {
        int64_t block = (first + b) * bytes;
        vi t[4];
        copy_words(p, block, head[b]);
        load_columns(p, block + at + (high == HIGH_FIFTH ? 4 : 0), t);
        vi fifth = high == HIGH_FIFTH ? load_words(p, block + at) : t[0];
        UNROLL for (int j = 0; j < 4; j++) {
            vi low = low_nibbles(t[j]), top = high_nibbles(t[j]);
            if (high == HIGH_FIFTH) {
                low = vi_or(low, fifth_bits(fifth, j));
                top = vi_or(top, fifth_bits(fifth, j + 4));
            }
            vi_store(out->codes[b][j], low);
            vi_store(out->codes[b][j + 4], top);
        }
    }
    put_scales(head, count, has_min, out);
}

static inline void fill_Q4_0(struct rows p, int64_t first, int count, struct panel *out) {
    fill_legacy(p, first, count, out, sizeof(struct q4_0), 0, LOW_ONLY);
}
static inline void fill_Q4_1(struct rows p, int64_t first, int count, struct panel *out) {
    fill_legacy(p, first, count, out, sizeof(struct q4_1), 1, LOW_ONLY);
}
static inline void fill_Q5_0(struct rows p, int64_t first, int count, struct panel *out) {
    fill_legacy(p, first, count, out, sizeof(struct q5_0), 0, HIGH_FIFTH);
}
static inline void fill_Q5_1(struct rows p, int64_t first, int count, struct panel *out) {
    fill_legacy(p, first, count, out, sizeof(struct q5_1), 1, HIGH_FIFTH);
}

static inline void fill_Q8_0(struct rows p, int64_t first, int count, struct panel *out) {
    _Alignas(64) uint32_t head[CHUNK][LANES];
    for (int b = 0; b < count; b++) {
        int64_t block = (first + b) * (int64_t)sizeof(struct q8_0);
        copy_words(p, block, head[b]);
        UNROLL for (int half = 0; half < 2; half++) {
            vi t[4];
            load_columns(p, block + 2 + 16 * half, t);
            for (int j = 0; j < 4; j++) vi_store(out->codes[b][4 * half + j], vi_sub8(t[j], vi_set8(WIDE_OFFSET)));
        }
    }
    put_scales(head, count, 0, out);
}

/* What the sixteen indexes of a four-bit type stand for, plus the type's offset. */
INLINE vi code_table(const int8_t *codes, int offset) {
    return vi_sub8(vi_repeat128(_mm_loadu_si128((const __m128i *)codes)), vi_set8(-offset));
}

INLINE void put_looked_up(struct rows p, int64_t at, vi table, uint8_t (*codes)[LANES][4]) {
    vi t[4];
    load_columns(p, at, t);
    for (int j = 0; j < 4; j++) {
        vi_store(codes[j], vi_shuffle8(table, low_nibbles(t[j])));
        vi_store(codes[j + 4], vi_shuffle8(table, high_nibbles(t[j])));
    }
}

static inline void fill_IQ4_NL(struct rows p, int64_t first, int count, struct panel *out) {
    _Alignas(64) uint32_t head[CHUNK][LANES];
    vi table = code_table(iq4_codes, WIDE_OFFSET);
    for (int b = 0; b < count; b++) {
        int64_t block = (first + b) * (int64_t)sizeof(struct iq4_nl);
        copy_words(p, block, head[b]);
        put_looked_up(p, block + 2, table, out->codes[b]);
    }
    put_scales(head, count, 0, out);
}

enum { MXFP4_OFFSET = 12 };

static inline void fill_MXFP4(struct rows p, int64_t first, int count, struct panel *out) {
    _Alignas(64) uint32_t head[CHUNK][LANES];
    vi table = code_table(mxfp4_codes, MXFP4_OFFSET);
    for (int b = 0; b < count; b++) {
        int64_t block = (first + b) * (int64_t)sizeof(struct mxfp4);
        copy_words(p, block, head[b]);
        put_looked_up(p, block + 1, table, out->codes[b]);
    }
    for (int b = 0; b < count; b++) {
        vi e = vi_and(vi_load(head[b]), vi_set32(255)), two = vi_set32(2);
        vi tiny = vi_shlv32(vi_set32(0x00200000), e), usual = vi_shl32(vi_sub32(e, vi_set32(1)), 23);
        vf_store(out->d[b], vf_bits(vi_if_less32(e, two, tiny, usual)));
    }
}

/* ---- types whose own block is 256 columns ---- */

/* Signed bytes 2 (b % 2) and the next of each lane, as two 16-bit numbers. */
INLINE vi sub_pair(const vi s[4], int b) {
    const __m128i first = _mm_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13);
    const __m128i second = _mm_setr_epi8(-1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15);
    return vi_sar16(vi_shuffle8(s[b / 2], vi_repeat128(b % 2 ? second : first)), 8);
}

/* A sub-scale as the level's core multiplies by it: sums of 32 bits with VNNI, else pairs of 16. */
INLINE vi sub_factor(vi s) {
#if defined(HAS_DOT8)
    return s;
#else
    return vi_or(vi_and(s, vi_set32(0xffff)), vi_shl32(s, 16));
#endif
}

/* The sub-scales of a block's halves, and for codes with an offset what takes it back. */
INLINE void put_subs(vi pair, int b, int offset, struct panel *out) {
    vi_store(out->sub[b][0], sub_factor(vi_sar32(vi_shl32(pair, 16), 16)));
    vi_store(out->sub[b][1], sub_factor(vi_sar32(pair, 16)));
    if (offset) vi_store(out->pairs[b], vi_mul16(pair, vi_set16(-offset)));
}

/* 32 bytes of every row: the eight steps of a block. */
INLINE void load_steps(struct rows p, int64_t at, vi t[8]) {
    load_columns(p, at, t);
    load_columns(p, at + 16, t + 4);
}

static inline void fill_Q2_K(struct rows p, int64_t first, int count, struct panel *out) {
    int64_t at = first / CHUNK * (int64_t)sizeof(struct q2_k);
    vi head = load_words(p, at + 80), s[4], low[4], high[4];
    vf d = vf_of_half(head), m = vf_negate(vf_of_half(vi_shr32(head, 16)));
    load_columns(p, at, s);
    for (int i = 0; i < 4; i++) {
        low[i] = low_nibbles(s[i]);
        high[i] = high_nibbles(s[i]);
    }
    for (int half = 0; half < 2; half++) {
        vi q[8];
        load_steps(p, at + 16 + 32 * half, q);
        UNROLL for (int i = 0; i < 4; i++) UNROLL for (int j = 0; j < 8; j++)
            vi_store(out->codes[4 * half + i][j], move_bits(q[j], 2 * i, 0, 3));
    }
    vf_store(out->d[0], d);
    vf_store(out->m[0], m);
    for (int b = 0; b < count; b++) {
        put_subs(sub_pair(low, b), b, 0, out);
        vi_store(out->pairs[b], sub_pair(high, b));
    }
}

enum { Q3_K_OFFSET = 4, Q6_K_OFFSET = 32 };

static inline void fill_Q3_K(struct rows p, int64_t first, int count, struct panel *out) {
    int64_t at = first / CHUNK * (int64_t)sizeof(struct q3_k);
    vf d = vf_of_half(vi_shr32(load_words(p, at + 106), 16));
    vi l0 = load_words(p, at + 96), l1 = load_words(p, at + 100), top = load_words(p, at + 104), s[4], h[8];
    for (int i = 0; i < 4; i++) {
        vi low = move_bits(i % 2 ? l1 : l0, 4 * (i / 2), 0, 15);
        s[i] = vi_sub8(vi_or(low, move_bits(top, 2 * i, 4, 48)), vi_set8(32));
    }
    load_steps(p, at, h);
    for (int half = 0; half < 2; half++) {
        vi q[8];
        load_steps(p, at + 32 + 32 * half, q);
        UNROLL for (int i = 0; i < 4; i++) UNROLL for (int j = 0; j < 8; j++) {
            vi code = vi_or(move_bits(q[j], 2 * i, 0, 3), move_bits(h[j], 4 * half + i, 2, 4));
            vi_store(out->codes[4 * half + i][j], code);
        }
    }
    vf_store(out->d[0], d);
    for (int b = 0; b < count; b++) put_subs(sub_pair(s, b), b, Q3_K_OFFSET, out);
}

/* The heads of Q4_K and Q5_K: two half-precision factors and twelve bytes of six-bit scales and minima. Each byte of a
 * lane is one of eight then, four in each of two registers. */
INLINE void k_scales(const vi head[4], vi scale[2], vi min[2]) {
    scale[0] = vi_and(head[1], vi_set8(63));
    min[0] = vi_and(head[2], vi_set8(63));
    scale[1] = vi_or(low_nibbles(head[3]), move_bits(head[1], 6, 4, 48));
    min[1] = vi_or(high_nibbles(head[3]), move_bits(head[2], 6, 4, 48));
}

INLINE void put_k_scales(struct rows p, int64_t at, int count, struct panel *out) {
    vi t[4], scale[2], min[2];
    load_columns(p, at, t);
    k_scales(t, scale, min);
    vf_store(out->d[0], vf_of_half(t[0]));
    vf_store(out->m[0], vf_negate(vf_of_half(vi_shr32(t[0], 16))));
    for (int b = 0; b < count; b++)
        vi_store(out->sub[b][0], sub_factor(vi_and(vi_shr32(scale[b / 4], 8 * (b % 4)), vi_set32(255))));
    for (int i = 0; i < count / 2; i++) {
        vi two = vi_shr32(min[i / 2], 16 * (i % 2));
        vi_store(out->pairs[i], vi_or(vi_and(two, vi_set32(255)), vi_and(vi_shl32(two, 8), vi_set32(255 << 16))));
    }
}

static inline void fill_Q4_K(struct rows p, int64_t first, int count, struct panel *out) {
    int64_t at = first / CHUNK * (int64_t)sizeof(struct q4_k);
    put_k_scales(p, at, count, out);
    for (int pair = 0; pair < 4; pair++) {
        vi q[8];
        load_steps(p, at + 16 + 32 * pair, q);
        UNROLL for (int j = 0; j < 8; j++) {
            vi_store(out->codes[2 * pair][j], low_nibbles(q[j]));
            vi_store(out->codes[2 * pair + 1][j], high_nibbles(q[j]));
        }
    }
}

static inline void fill_Q5_K(struct rows p, int64_t first, int count, struct panel *out) {
    int64_t at = first / CHUNK * (int64_t)sizeof(struct q5_k);
    vi h[8];
    put_k_scales(p, at, count, out);
    load_steps(p, at + 16, h);
    for (int pair = 0; pair < 4; pair++) {
        vi q[8];
        load_steps(p, at + 48 + 32 * pair, q);
        UNROLL for (int j = 0; j < 8; j++) {
            vi_store(out->codes[2 * pair][j], vi_or(low_nibbles(q[j]), move_bits(h[j], 2 * pair, 4, 16)));
            vi_store(out->codes[2 * pair + 1][j], vi_or(high_nibbles(q[j]), move_bits(h[j], 2 * pair + 1, 4, 16)));
        }
    }
}

static inline void fill_Q6_K(struct rows p, int64_t first, int count, struct panel *out) {
    int64_t at = first / CHUNK * (int64_t)sizeof(struct q6_k);
    vf d = vf_of_half(vi_shr32(load_words(p, at + 206), 16));
    vi s[4];
    load_columns(p, at + 192, s);
    for (int half = 0; half < 2; half++) {
        vi h[8];
        load_steps(p, at + 128 + 32 * half, h);
        for (int i = 0; i < 2; i++) {
            vi q[8];
            load_steps(p, at + 64 * half + 32 * i, q);
            UNROLL for (int j = 0; j < 8; j++) {
                vi low = vi_or(low_nibbles(q[j]), move_bits(h[j], 2 * i, 4, 48));
                vi top = vi_or(high_nibbles(q[j]), move_bits(h[j], 2 * i + 4, 4, 48));
                vi_store(out->codes[4 * half + i][j], low);
                vi_store(out->codes[4 * half + i + 2][j], top);
            }
        }
    }
    vf_store(out->d[0], d);
    for (int b = 0; b < count; b++) put_subs(sub_pair(s, b), b, Q6_K_OFFSET, out);
}

static inline void fill_IQ4_XS(struct rows p, int64_t first, int count, struct panel *out) {
    int64_t at = first / CHUNK * (int64_t)sizeof(struct iq4_xs);
    vi head = load_words(p, at), low = load_words(p, at + 4), table = code_table(iq4_codes, WIDE_OFFSET);
    vf_store(out->d[0], vf_of_half(head));
    for (int b = 0; b < count; b += 2) {
        vi scale[2];
        for (int i = 0; i < 2; i++) {
            vi four = vi_and(vi_shr32(low, 4 * (b + i)), vi_set32(15));
            vi two = vi_and(vi_shr32(head, 16 + 2 * (b + i)), vi_set32(3));
            scale[i] = vi_sub32(vi_or(four, vi_shl32(two, 4)), vi_set32(32));
            vi_store(out->sub[b + i][0], sub_factor(scale[i]));
            put_looked_up(p, at + 8 + 16 * (b + i), table, out->codes[b + i]);
        }
        vi both = vi_or(vi_and(scale[0], vi_set32(0xffff)), vi_shl32(scale[1], 16));
        vi_store(out->pairs[b / 2], vi_mul16(both, vi_set16(-WIDE_OFFSET)));
    }
}

/* One token by another way than lanes of rows; `room` holds ONE_TOKEN_ROOM(k) bytes. Blocks of 32 columns come in
 * sixteens. */
typedef void one_fn(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,
                    const union term *terms, float *out, int8_t *room);
#define ONE_TOKEN_ROOM(k) (4 * (int64_t)(k) + 2048)

#endif
