/* What the products in tiles share. Mostly sixteen rows of weights are a product's first operand, sixteen tokens its
 * second, so that weights are unpacked in the order of their columns and sums come out as rows by tokens. */
#ifndef TILES_H
#define TILES_H
#include "lanes.h"

enum { SIDE = 16 };

/* Names of tile registers: the compiler wants literals. */
#define WEIGHTS_A 4
#define WEIGHTS_B 5
#define TOKENS_A 6
#define TOKENS_B 7

struct tile_shape { int32_t rows, bytes; };

/* Registers 0 to 3 take sums, the others operands.
 * Pitfall: GCC 12 thinks that loading a configuration reads only the structure's first bytes. */
INLINE void enter_shapes(struct tile_shape sums, struct tile_shape weights, struct tile_shape tokens) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        struct tile_shape shape = t < WEIGHTS_A ? sums : t < TOKENS_A ? weights : tokens;
        config.rows[t] = (uint8_t)shape.rows;
        config.row_bytes[t] = (uint16_t)shape.bytes;
    }
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

/* Sums of sixteen rows by up to sixteen tokens; a product is `bytes` of a row of weights deep. */
INLINE void enter_tiles(int32_t tokens, int bytes) {
    int columns = 4 * (tokens < SIDE ? tokens : SIDE);
    enter_shapes((struct tile_shape){SIDE, columns}, (struct tile_shape){SIDE, bytes},
                 (struct tile_shape){bytes / 4, columns});
}

/* Product i by the registers whose turn it is: product(sums, weights, tokens); i is known when this is compiled. */
#define IN_TURN(i, product)                          \
    switch ((i) % 4) {                               \
    case 0: product(0, WEIGHTS_A, TOKENS_A); break;  \
    case 1: product(1, WEIGHTS_B, TOKENS_B); break;  \
    case 2: product(2, WEIGHTS_A, TOKENS_A); break;  \
    default: product(3, WEIGHTS_B, TOKENS_B); break; \
    }

/* One of the four registers of sums, in turn; i is known when this is compiled. */
INLINE void store_tile(int i, void *to) {
    switch (i % 4) {
    case 0: _tile_stored(0, to, 64); break;
    case 1: _tile_stored(1, to, 64); break;
    case 2: _tile_stored(2, to, 64); break;
    default: _tile_stored(3, to, 64); break;
    }
}

/* GCC does not know that loading a tile reads memory: what was written must be there by now. */
INLINE void settle(void) { __asm__ volatile("" : : : "memory"); }

/* Sixteen registers of sixteen 32-bit lanes: rows become columns. */
INLINE void transpose(vi r[SIDE]) {
    vi t[SIDE];
    UNROLL for (int i = 0; i < SIDE; i += 4) {
        vi a = vi_low32(r[i], r[i + 1]), b = vi_high32(r[i], r[i + 1]);
        vi c = vi_low32(r[i + 2], r[i + 3]), d = vi_high32(r[i + 2], r[i + 3]);
        t[i] = vi_low64(a, c);
        t[i + 1] = vi_high64(a, c);
        t[i + 2] = vi_low64(b, d);
        t[i + 3] = vi_high64(b, d);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        vi a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x44), b = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xee);
        vi c = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x44), d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xee);
        r[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(a, c, 0xdd);
        r[i + 8] = _mm512_shuffle_i32x4(b, d, 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

/* A tile of sums (16 rows by 16 tokens) to out (tokens, ld), of which it has `rows` columns and `tokens` rows. */
INLINE void store_transposed(const void *sums, int rows, int tokens, float *out, int64_t ld) {
    __mmask16 mask = rows >= SIDE ? 0xffff : (__mmask16)((1u << rows) - 1);
    vi r[SIDE];
    UNROLL for (int i = 0; i < SIDE; i++) r[i] = vi_load((const int32_t *)sums + i * SIDE);
    transpose(r);
    UNROLL for (int t = 0; t < SIDE; t++) {
        if (t < tokens) _mm512_mask_storeu_epi32(out + t * ld, mask, r[t]);
    }
}

#endif
