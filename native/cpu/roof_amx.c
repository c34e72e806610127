/* The roof's units of the level amx: products of whole tiles, 16 x 64 bytes each, into four that take turns. */
#include <immintrin.h>

#include "roof.h"

enum { ROUNDS = 1 << 12, TILES = 8, ROWS = 16, ROW_BYTES = 64 };

/* Palette 1 (Intel's manual, volume 1, chapter 18). */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void open_tiles(void) {
    _Alignas(64) struct tile_config config = {.palette = 1};
    for (int i = 0; i < TILES; i++) {
        config.row_bytes[i] = ROW_BYTES;
        config.rows[i] = ROWS;
    }
    __asm__ volatile("" ::"r"(&config) : "memory"); /* GCC 12 believes that only 8 of its bytes are read */
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
}

int64_t roof_int8_amx(void) {
    open_tiles();
    for (int round = 0; round < ROUNDS; round++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
    return (int64_t)ROUNDS * 4 * ROWS * ROWS * ROW_BYTES;
}

int64_t roof_bf16_amx(void) {
    open_tiles();
    for (int round = 0; round < ROUNDS; round++) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 5);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_release();
    return (int64_t)ROUNDS * 4 * ROWS * ROWS * ROW_BYTES / 2;
}
