/* What the tile instructions do, after the operation sections of the Intel 64 manual (LDTILECFG, TILELOADD, TDPBSSD,
 * TDPBF16PS). What a processor answers with #UD or #GP ends the process with a sentence: it is a test's finding. */
#include "tile_emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuinfo.h"

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, NOTHING_CONFIGURED = 0, PALETTE = 1 };

struct configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static _Thread_local struct configuration now;
static _Thread_local _Alignas(64) uint8_t tiles[TILES][ROWS][ROW_BYTES];

static void demand(int holds, const char *what, int tile) {
    if (holds) return;
    fprintf(stderr, "tile emulator: %s (tile %d)\n", what, tile);
    abort();
}

static void check(int tile) {
    demand(now.palette == PALETTE, "no tiles are configured", tile);
    demand(tile >= 0 && tile < TILES, "no such tile", tile);
    demand(now.rows[tile] > 0 && now.row_bytes[tile] > 0, "this tile is not configured", tile);
}

static void check_product(int sums, int a, int b) {
    check(sums);
    check(a);
    check(b);
    demand(sums != a && sums != b && a != b, "a product of a tile with itself", sums);
    demand(now.row_bytes[sums] % 4 == 0 && now.row_bytes[a] % 4 == 0, "rows are not of 32-bit elements", sums);
    demand(now.rows[sums] == now.rows[a], "the first operand has another number of rows", a);
    demand(now.row_bytes[sums] == now.row_bytes[b], "the second operand has rows of another size", b);
    demand(now.row_bytes[a] / 4 == now.rows[b], "the operands differ in depth", b);
}

void emulate_loadconfig(const void *config) {
    memcpy(&now, config, sizeof now);
    demand(now.palette == NOTHING_CONFIGURED || now.palette == PALETTE, "no such palette", now.palette);
    for (size_t i = 0; i < sizeof now.reserved; i++) demand(now.reserved[i] == 0, "a reserved byte is not zero", -1);
    for (int t = 0; t < 16; t++) {
        demand(t < TILES || (now.rows[t] == 0 && now.row_bytes[t] == 0), "a tile beyond the last is configured", t);
        demand(now.rows[t] <= ROWS && now.row_bytes[t] <= ROW_BYTES, "a tile is too big", t);
        demand((now.rows[t] == 0) == (now.row_bytes[t] == 0), "a tile has rows or bytes, but not both", t);
    }
    memset(tiles, 0, sizeof tiles);
}

void emulate_release(void) {
    memset(&now, 0, sizeof now);
    memset(tiles, 0, sizeof tiles);
}

void emulate_zero(int tile) {
    check(tile);
    memset(tiles[tile], 0, sizeof tiles[tile]);
}

void emulate_loadd(int tile, const void *from, int64_t row_bytes) {
    emulate_zero(tile);
    for (int r = 0; r < now.rows[tile]; r++)
        memcpy(tiles[tile][r], (const uint8_t *)from + r * row_bytes, now.row_bytes[tile]);
}

void emulate_stored(int tile, void *to, int64_t row_bytes) {
    check(tile);
    for (int r = 0; r < now.rows[tile]; r++) memcpy((uint8_t *)to + r * row_bytes, tiles[tile][r], now.row_bytes[tile]);
}

/* Rows of A by columns of B, whose rows hold four (two) neighbouring elements of each column. */
void emulate_int8_product(int sums, int a, int b, enum emulated_product signs) {
    check_product(sums, a, b);
    for (int m = 0; m < now.rows[a]; m++) {
        int32_t *sum = (int32_t *)tiles[sums][m];
        for (int k = 0; k < now.rows[b]; k++)
            for (int n = 0; n < now.row_bytes[b] / 4; n++)
                for (int i = 0; i < 4; i++) {
                    uint8_t x = tiles[a][m][4 * k + i], y = tiles[b][k][4 * n + i];
                    int32_t left = signs != UNSIGNED_SIGNED ? (int8_t)x : x;
                    int32_t right = signs != SIGNED_UNSIGNED ? (int8_t)y : y;
                    sum[n] = (int32_t)((uint32_t)sum[n] + (uint32_t)(left * right));
                }
    }
}

static __m512 even(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
static __m512 odd(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

/* Even and odd elements have sums of their own, which begin at zero: fused, to nearest, subnormals are zero. All
 * sixteen columns are computed, and those that are not configured cleared. */
void emulate_bf16_product(int sums, int a, int b) {
    enum { MASKED_NEAREST = 0x1f80, FLUSH_TO_ZERO = 0x8000, DENORMALS_ARE_ZERO = 0x40 };
    check_product(sums, a, b);
    unsigned before = _mm_getcsr();
    _mm_setcsr(MASKED_NEAREST | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO);
    for (int m = 0; m < now.rows[a]; m++) {
        __m512 sum_even = _mm512_setzero_ps(), sum_odd = _mm512_setzero_ps();
        for (int k = 0; k < now.rows[b]; k++) {
            int32_t pair;
            memcpy(&pair, tiles[a][m] + 4 * k, sizeof pair);
            __m512i left = _mm512_set1_epi32(pair), right = _mm512_load_si512(tiles[b][k]);
            sum_even = _mm512_fmadd_ps(even(left), even(right), sum_even);
            sum_odd = _mm512_fmadd_ps(odd(left), odd(right), sum_odd);
        }
        __m512 sum = _mm512_add_ps(_mm512_load_ps(tiles[sums][m]), _mm512_add_ps(sum_even, sum_odd));
        __mmask16 columns = (__mmask16)((1u << now.row_bytes[b] / 4) - 1);
        _mm512_store_ps(tiles[sums][m], _mm512_maskz_mov_ps(columns, sum));
    }
    _mm_setcsr(before);
}

/* The linker gives every caller of cpu_ask() this (--wrap). */
void __real_cpu_ask(struct cpu_answers *out);
void __wrap_cpu_ask(struct cpu_answers *out);
void __wrap_cpu_ask(struct cpu_answers *out) {
    enum { AMX_BF16 = 22, AMX_TILE = 24, AMX_INT8 = 25, TILE_STATES = 0x60000 };
    __real_cpu_ask(out);
    out->leaf7_edx |= 1u << AMX_BF16 | 1u << AMX_TILE | 1u << AMX_INT8;
    out->xcr0 |= TILE_STATES;
    out->tiles_granted = true;
}
