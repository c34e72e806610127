/* The roof's units of the level avx512, and bf16 where the processor has it. For the barriers see roof_avx2.c. */
#include <immintrin.h>

#include "roof.h"

enum { ROUNDS = 1 << 14, SUMS = 16 };

uint64_t roof_read_avx512(const uint8_t *p, size_t bytes) {
    __m512i sum[8] = {0};
    for (const uint8_t *end = p + bytes; p < end; p += 512) {
        for (int i = 0; i < 8; i++) sum[i] = _mm512_add_epi64(sum[i], _mm512_load_si512(p + 64 * i));
    }
    for (int i = 1; i < 8; i++) sum[0] = _mm512_add_epi64(sum[0], sum[i]);
    return (uint64_t)_mm512_reduce_add_epi64(sum[0]);
}

int64_t roof_int8_avx512(void) {
    __m512i sum[SUMS] = {0}, a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" : "+v"(sum[i]));
    for (int round = 0; round < ROUNDS; round++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
        for (int i = 0; i < SUMS; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
    }
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" ::"v"(sum[i]));
    return (int64_t)ROUNDS * SUMS * 64;
}

__attribute__((target("avx512bf16"))) int64_t roof_bf16_avx512(void) {
    __m512 sum[SUMS] = {0};
    __m512i ones = _mm512_set1_epi16(0x3f80); /* 1.0 */
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" : "+v"(sum[i]));
    for (int round = 0; round < ROUNDS; round++) {
        __asm__ volatile("" : "+v"(ones));
        for (int i = 0; i < SUMS; i++) sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)ones, (__m512bh)ones);
    }
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" ::"v"(sum[i]));
    return (int64_t)ROUNDS * SUMS * 32;
}
