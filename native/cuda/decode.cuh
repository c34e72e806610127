/* The device side of quant/formats.h: rows of every tensor type to codes and scales, or to floats.
 *
 * Thirty-two columns become eight words of four int8 codes each, lowest column in the lowest byte, ready for __dp4a.
 * The blocks of every type but MXFP4 have an even size, and weights start at multiples of 64, so 16-bit loads are
 * aligned; nothing wider is assumed. */
#ifndef DECODE_CUH
#define DECODE_CUH
#include "common.cuh"

struct codes {
    uint32_t word[8];
    int32_t sub[2], submin[2]; /* integer factors of each half's sums; 1 where the type has none */
    float d, m;
};

static __device__ inline uint32_t load_16(const void *p) { return *(const uint16_t *)p; }
static __device__ inline uint32_t load_32(const uint8_t *p) { return load_16(p) | load_16(p + 2) << 16; }
static __device__ inline float half_value(uint32_t bits) { return __half2float(__ushort_as_half((uint16_t)bits)); }
static __device__ inline float load_half(const void *p) { return half_value(load_16(p)); }
static __device__ inline float bf16_value(uint32_t bits) { return __int_as_float((int32_t)(bits << 16)); }

/* Every byte below 128 less the same small number, as int8. The top bit keeps bytes from borrowing. */
static __device__ inline uint32_t less_each(uint32_t bytes, uint32_t number) {
    return ((bytes | 0x80808080u) - number * 0x01010101u) ^ 0x80808080u;
}

/* Bit i of four goes to the lowest bit of byte i. */
static __device__ inline uint32_t spread_bits(uint32_t four) { return ((four & 15) * 0x00204081u) & 0x01010101u; }

/* Byte `index` of a table of sixteen, given as two words of eight. */
static __device__ inline uint32_t look_up(uint64_t low, uint64_t high, uint32_t index) {
    return (uint32_t)((index < 8 ? low : high) >> (8 * (index & 7))) & 255;
}

static __device__ inline uint32_t look_up_each(uint64_t low, uint64_t high, uint32_t nibbles) {
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) word |= look_up(low, high, (nibbles >> (8 * i)) & 15) << (8 * i);
    return word;
}

/* iq4_codes and mxfp4_codes of quant/formats.c, first code in the lowest byte. */
#define IQ4_LOW 0xf6eaddcfbfad9881ull
#define IQ4_HIGH 0x7159453526190d01ull
#define MXFP4_LOW 0x0c08060403020100ull
#define MXFP4_HIGH 0xf4f8fafcfdfeff00ull

/* Sixteen bytes of nibbles: columns 0 to 15 low, 16 to 31 high. */
static __device__ inline void unpack_nibbles(const uint8_t *qs, struct codes *out) {
    for (int w = 0; w < 4; w++) {
        uint32_t bytes = load_32(qs + 4 * w);
        out->word[w] = bytes & 0x0f0f0f0fu;
        out->word[w + 4] = (bytes >> 4) & 0x0f0f0f0fu;
    }
}

static __device__ inline void add_fifth_bits(uint32_t bits, struct codes *out) {
    for (int w = 0; w < 8; w++) out->word[w] |= spread_bits(bits >> (4 * w)) << 4;
}

static __device__ inline void subtract(uint32_t number, struct codes *out) {
    for (int w = 0; w < 8; w++) out->word[w] = less_each(out->word[w], number);
}

static __device__ inline void look_up_all(uint64_t low, uint64_t high, struct codes *out) {
    for (int w = 0; w < 8; w++) out->word[w] = look_up_each(low, high, out->word[w]);
}

static __device__ inline void unpack_q8_0(const struct q8_0 *s, struct codes *out) {
    for (int w = 0; w < 8; w++) out->word[w] = load_32((const uint8_t *)s->qs + 4 * w);
    out->d = load_half(s->d);
}

static __device__ inline void unpack_mxfp4(const struct mxfp4 *s, struct codes *out) {
    for (int w = 0; w < 4; w++) {
        const uint8_t *p = s->qs + 4 * w;
        uint32_t bytes = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        out->word[w] = bytes & 0x0f0f0f0fu;
        out->word[w + 4] = (bytes >> 4) & 0x0f0f0f0fu;
    }
    look_up_all(MXFP4_LOW, MXFP4_HIGH, out);
    uint32_t e = s->e;
    out->d = __int_as_float((int32_t)(e < 2 ? 0x00200000u << e : (e - 1) << 23));
}

static __device__ inline void unpack_q2_k(const struct q2_k *s, int32_t j, struct codes *out) {
    for (int w = 0; w < 8; w++) out->word[w] = (load_32(s->qs + 32 * (j / 4) + 4 * w) >> (2 * (j % 4))) & 0x03030303u;
    for (int i = 0; i < 2; i++) {
        out->sub[i] = s->scales[2 * j + i] & 15;
        out->submin[i] = s->scales[2 * j + i] >> 4;
    }
    out->d = load_half(s->d);
    out->m = -load_half(s->dmin);
}

static __device__ inline void unpack_q3_k(const struct q3_k *s, int32_t j, struct codes *out) {
    for (int w = 0; w < 8; w++) {
        uint32_t low = (load_32(s->qs + 32 * (j / 4) + 4 * w) >> (2 * (j % 4))) & 0x03030303u;
        uint32_t high = (load_32(s->hmask + 4 * w) >> j) & 0x01010101u;
        out->word[w] = less_each(low | high << 2, 4);
    }
    for (int i = 0; i < 2; i++) {
        int n = 2 * j + i, low = (s->scales[n % 8] >> (4 * (n / 8))) & 15;
        int high = (s->scales[8 + n % 4] >> (2 * (n / 4))) & 3;
        out->sub[i] = (low | high << 4) - 32;
    }
    out->d = load_half(s->d);
}

/* Scale and minimum j of Q4_K and Q5_K: eight pairs of six bits in twelve bytes. */
static __device__ inline void unpack_scale_min(const uint8_t *s, int32_t j, const uint8_t *d, const uint8_t *dmin,
                                               struct codes *out) {
    int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
    out->sub[0] = out->sub[1] = scale;
    out->submin[0] = out->submin[1] = min;
    out->d = load_half(d);
    out->m = -load_half(dmin);
}

static __device__ inline void unpack_q4_k(const struct q4_k *s, int32_t j, struct codes *out) {
    for (int w = 0; w < 8; w++) out->word[w] = (load_32(s->qs + 32 * (j / 2) + 4 * w) >> (4 * (j % 2))) & 0x0f0f0f0fu;
    unpack_scale_min(s->scales, j, s->d, s->dmin, out);
}

static __device__ inline void unpack_q5_k(const struct q5_k *s, int32_t j, struct codes *out) {
    for (int w = 0; w < 8; w++) {
        uint32_t low = (load_32(s->qs + 32 * (j / 2) + 4 * w) >> (4 * (j % 2))) & 0x0f0f0f0fu;
        uint32_t high = (load_32(s->qh + 4 * w) >> j) & 0x01010101u;
        out->word[w] = low | high << 4;
    }
    unpack_scale_min(s->scales, j, s->d, s->dmin, out);
}

static __device__ inline void unpack_q6_k(const struct q6_k *s, int32_t j, struct codes *out) {
    const uint8_t *low_bits = s->ql + 64 * (j / 4) + 32 * (j % 2), *high_bits = s->qh + 32 * (j / 4);
    for (int w = 0; w < 8; w++) {
        uint32_t low = (load_32(low_bits + 4 * w) >> (4 * (j % 4 / 2))) & 0x0f0f0f0fu;
        uint32_t high = (load_32(high_bits + 4 * w) >> (2 * (j % 4))) & 0x03030303u;
        out->word[w] = less_each(low | high << 4, 32);
    }
    for (int i = 0; i < 2; i++) out->sub[i] = s->scales[2 * j + i];
    out->d = load_half(s->d);
}

static __device__ inline void unpack_iq4_xs(const struct iq4_xs *s, int32_t j, struct codes *out) {
    int low = (s->scales_l[j / 2] >> (4 * (j % 2))) & 15, high = (load_16(s->scales_h) >> (2 * j)) & 3;
    unpack_nibbles(s->qs + 16 * j, out);
    look_up_all(IQ4_LOW, IQ4_HIGH, out);
    out->sub[0] = out->sub[1] = (low | high << 4) - 32;
    out->d = load_half(s->d);
}

/* Types whose own block is 32 columns and begins with its scale. */
static __device__ inline void unpack_small(int32_t type, const uint8_t *block, struct codes *out) {
    bool minimum = type == LL_Q4_1 || type == LL_Q5_1, fifth = type == LL_Q5_0 || type == LL_Q5_1;
    const uint8_t *high = block + (minimum ? 4 : 2), *qs = high + (fifth ? 4 : 0);
    out->d = load_half(block);
    if (minimum) out->m = load_half(block + 2);
    unpack_nibbles(qs, out);
    if (fifth) add_fifth_bits(load_32(high), out);
    if (type == LL_Q4_0) subtract(8, out);
    if (type == LL_Q5_0) subtract(16, out);
    if (type == LL_IQ4_NL) look_up_all(IQ4_LOW, IQ4_HIGH, out);
}

/* Block b (columns 32 b to 32 b + 31) of a row of a quantized type. With a constant type one case remains. */
static __device__ __forceinline__ void unpack(int32_t type, const uint8_t *row, int64_t b, struct codes *out) {
    int32_t j = (int32_t)(b % 8); /* within a block of 256 */
    out->sub[0] = out->sub[1] = out->submin[0] = out->submin[1] = 1;
    out->d = out->m = 0;
    switch (type) {
    case LL_Q2_K: unpack_q2_k((const struct q2_k *)row + b / 8, j, out); break;
    case LL_Q3_K: unpack_q3_k((const struct q3_k *)row + b / 8, j, out); break;
    case LL_Q4_K: unpack_q4_k((const struct q4_k *)row + b / 8, j, out); break;
    case LL_Q5_K: unpack_q5_k((const struct q5_k *)row + b / 8, j, out); break;
    case LL_Q6_K: unpack_q6_k((const struct q6_k *)row + b / 8, j, out); break;
    case LL_IQ4_XS: unpack_iq4_xs((const struct iq4_xs *)row + b / 8, j, out); break;
    case LL_Q8_0: unpack_q8_0((const struct q8_0 *)row + b, out); break;
    case LL_MXFP4: unpack_mxfp4((const struct mxfp4 *)row + b, out); break;
    case LL_Q4_1: unpack_small(type, row + b * (int64_t)sizeof(struct q4_1), out); break;
    case LL_Q5_0: unpack_small(type, row + b * (int64_t)sizeof(struct q5_0), out); break;
    case LL_Q5_1: unpack_small(type, row + b * (int64_t)sizeof(struct q5_1), out); break;
    default: unpack_small(type, row + b * (int64_t)sizeof(struct q4_0), out); break; /* Q4_0 and IQ4_NL */
    }
}

/* Which of the four forms of quant/formats.h a quantized type has, or that it is a float. */
static __host__ __device__ constexpr enum form form_of_type(int32_t type) {
    return type == LL_F32 || type == LL_F16 || type == LL_BF16       ? FORM_FLOAT
           : type == LL_Q4_1 || type == LL_Q5_1                      ? FORM_MIN
           : type == LL_Q3_K || type == LL_Q6_K || type == LL_IQ4_XS ? FORM_SUPER
           : type == LL_Q2_K || type == LL_Q4_K || type == LL_Q5_K   ? FORM_SUPER_MIN
                                                                     : FORM_PLAIN;
}

/* Column c, of 32, as a float: the order of quant/formats.c's decode_row. */
static __device__ inline float value_of(enum form form, const struct codes *w, int32_t c) {
    float code = (float)(int8_t)(w->word[c / 4] >> (8 * (c % 4)));
    float value = w->d * (float)w->sub[c / 16] * code;
    return form == FORM_MIN || form == FORM_SUPER_MIN ? value + w->m * (float)w->submin[c / 16] : value;
}

/* Column c of a row of floats. */
static __device__ __forceinline__ float float_value(int32_t type, const uint8_t *row, int64_t c) {
    if (type == LL_F32) return ((const float *)row)[c];
    uint32_t bits = ((const uint16_t *)row)[c];
    return type == LL_F16 ? half_value(bits) : bf16_value(bits);
}

#endif
