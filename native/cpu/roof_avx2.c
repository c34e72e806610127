/* The roof's units of the level avx2. Twelve independent accumulators hide the latency of every unit there is. */
#include <immintrin.h>

#include "roof.h"

enum { ROUNDS = 1 << 14, SUMS = 12 };

uint64_t roof_read_avx2(const uint8_t *p, size_t bytes) {
    __m256i sum[8] = {0};
    uint64_t lanes[4];
    for (const uint8_t *end = p + bytes; p < end; p += 256) {
        for (int i = 0; i < 8; i++)
            sum[i] = _mm256_add_epi64(sum[i], _mm256_load_si256((const __m256i *)(const void *)(p + 32 * i)));
    }
    for (int i = 1; i < 8; i++) sum[0] = _mm256_add_epi64(sum[0], sum[i]);
    _mm256_storeu_si256((__m256i *)(void *)lanes, sum[0]);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

/* The barriers keep the compiler from seeing that all sums are equal, that their inputs never change and that nobody
 * reads them: it would leave the work out. */
int64_t roof_int8_avx2(void) {
    __m256i sum[SUMS] = {0}, a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" : "+x"(sum[i]));
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+x"(a));
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" ::"x"(sum[i]));
    return (int64_t)ROUNDS * SUMS * 32;
}

__attribute__((target("avxvnni"))) int64_t roof_int8_avx_vnni(void) {
    __m256i sum[SUMS] = {0}, a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" : "+x"(sum[i]));
    for (int round = 0; round < ROUNDS; round++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
        for (int i = 0; i < SUMS; i++) sum[i] = _mm256_dpbusd_avx_epi32(sum[i], a, b);
    }
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" ::"x"(sum[i]));
    return (int64_t)ROUNDS * SUMS * 32;
}
