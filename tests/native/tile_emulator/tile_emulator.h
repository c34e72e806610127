/* Tile registers in plain memory, so that level amx runs on a processor that has none (-DLOCALLLM_EMULATE_TILES=ON).
 *
 * The build includes this before each file of level amx: its intrinsics become calls. Stricter than a processor's
 * compiler: memory is read and written when it is said. Slower by two orders of magnitude. */
#ifndef TILE_EMULATOR_H
#define TILE_EMULATOR_H
#include <immintrin.h>
#include <stdint.h>

enum emulated_product { SIGNED_SIGNED, SIGNED_UNSIGNED, UNSIGNED_SIGNED };

void emulate_loadconfig(const void *config);
void emulate_release(void);
void emulate_zero(int tile);
void emulate_loadd(int tile, const void *from, int64_t row_bytes);
void emulate_stored(int tile, void *to, int64_t row_bytes);
void emulate_int8_product(int sums, int a, int b, enum emulated_product signs);
void emulate_bf16_product(int sums, int a, int b);

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) emulate_loadconfig(config)
#define _tile_release() emulate_release()
#define _tile_zero(tile) emulate_zero(tile)
#define _tile_loadd(tile, from, row_bytes) emulate_loadd(tile, from, row_bytes)
#define _tile_stored(tile, to, row_bytes) emulate_stored(tile, to, row_bytes)
#define _tile_dpbssd(sums, a, b) emulate_int8_product(sums, a, b, SIGNED_SIGNED)
#define _tile_dpbsud(sums, a, b) emulate_int8_product(sums, a, b, SIGNED_UNSIGNED)
#define _tile_dpbusd(sums, a, b) emulate_int8_product(sums, a, b, UNSIGNED_SIGNED)
#define _tile_dpbf16ps(sums, a, b) emulate_bf16_product(sums, a, b)

#endif
