#include "formats.h"

#include <string.h>

#include "half.h"

_Static_assert(sizeof(struct q4_0) == 18 && sizeof(struct q4_1) == 20, "4-bit blocks");
_Static_assert(sizeof(struct q5_0) == 22 && sizeof(struct q5_1) == 24, "5-bit blocks");
_Static_assert(sizeof(struct q8_0) == 34 && sizeof(struct q2_k) == 84, "8-bit and 2-bit blocks");
_Static_assert(sizeof(struct q3_k) == 110 && sizeof(struct q4_k) == 144, "3-bit and 4-bit K blocks");
_Static_assert(sizeof(struct q5_k) == 176 && sizeof(struct q6_k) == 210, "5-bit and 6-bit K blocks");
_Static_assert(sizeof(struct iq4_nl) == 18 && sizeof(struct iq4_xs) == 136, "non-linear blocks");
_Static_assert(sizeof(struct mxfp4) == 17, "microscaling blocks");

const int8_t iq4_codes[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t mxfp4_codes[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

enum form form_of(int32_t type) {
    switch (type) {
    case LL_Q4_1:
    case LL_Q5_1: return FORM_MIN;
    case LL_Q3_K:
    case LL_Q6_K:
    case LL_IQ4_XS: return FORM_SUPER;
    case LL_Q2_K:
    case LL_Q4_K:
    case LL_Q5_K: return FORM_SUPER_MIN;
    case LL_F32:
    case LL_F16:
    case LL_BF16: return FORM_FLOAT;
    default: return FORM_PLAIN;
    }
}

float e8m0_half(uint8_t e) { return float_of_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23); }

/* Sixteen bytes hold 32 codes: the first half of the columns in the low nibbles, the second in the high ones. */
static void split_nibbles(const uint8_t *qs, uint8_t *code) {
    for (int c = 0; c < 16; c++) {
        code[c] = qs[c] & 15;
        code[c + 16] = qs[c] >> 4;
    }
}

static void offset_codes(const uint8_t *code, int offset, struct block32 *out) {
    for (int c = 0; c < 32; c++) out->code[c] = (int8_t)(code[c] - offset);
}

static void lookup_codes(const uint8_t *qs, const int8_t *table, struct block32 *out) {
    uint8_t code[32];
    split_nibbles(qs, code);
    for (int c = 0; c < 32; c++) out->code[c] = table[code[c]];
}

/* Four or five bits with one scale; high holds the fifth bits or is NULL. */
static void unpack_legacy(const uint8_t *qs, const uint8_t *high, int offset, struct block32 *out) {
    uint8_t code[32];
    uint32_t fifth = high ? load_u32(high) : 0;
    split_nibbles(qs, code);
    for (int c = 0; c < 32; c++) code[c] = (uint8_t)(code[c] | ((fifth >> c) & 1u) << 4);
    offset_codes(code, offset, out);
}

static void unpack_q2_k(const struct q2_k *s, int j, struct block32 *out) {
    for (int c = 0; c < 32; c++) out->code[c] = (s->qs[32 * (j / 4) + c] >> (2 * (j % 4))) & 3;
    for (int i = 0; i < 2; i++) {
        out->sub[i] = s->scales[2 * j + i] & 15;
        out->submin[i] = s->scales[2 * j + i] >> 4;
    }
    out->d = load_f16(s->d);
    out->m = -load_f16(s->dmin);
}

static void unpack_q3_k(const struct q3_k *s, int j, struct block32 *out) {
    for (int c = 0; c < 32; c++) {
        int low = (s->qs[32 * (j / 4) + c] >> (2 * (j % 4))) & 3, high = (s->hmask[c] >> j) & 1;
        out->code[c] = (int8_t)(low + 4 * high - 4);
    }
    for (int i = 0; i < 2; i++) {
        int n = 2 * j + i, low = (s->scales[n % 8] >> (4 * (n / 8))) & 15;
        int high = (s->scales[8 + n % 4] >> (2 * (n / 4))) & 3;
        out->sub[i] = (int16_t)((low | high << 4) - 32);
    }
    out->d = load_f16(s->d);
}

/* Scale and minimum j of Q4_K and Q5_K: eight pairs of six bits in twelve bytes. */
static void k_scale_min(const uint8_t *s, int j, const uint8_t *d, const uint8_t *dmin, struct block32 *out) {
    int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
    out->sub[0] = out->sub[1] = (int16_t)scale;
    out->submin[0] = out->submin[1] = (int16_t)min;
    out->d = load_f16(d);
    out->m = -load_f16(dmin);
}

static void unpack_q4_k(const struct q4_k *s, int j, struct block32 *out) {
    for (int c = 0; c < 32; c++) out->code[c] = (s->qs[32 * (j / 2) + c] >> (4 * (j % 2))) & 15;
    k_scale_min(s->scales, j, s->d, s->dmin, out);
}

static void unpack_q5_k(const struct q5_k *s, int j, struct block32 *out) {
    for (int c = 0; c < 32; c++) {
        int low = (s->qs[32 * (j / 2) + c] >> (4 * (j % 2))) & 15, high = (s->qh[c] >> j) & 1;
        out->code[c] = (int8_t)(low | high << 4);
    }
    k_scale_min(s->scales, j, s->d, s->dmin, out);
}

static void unpack_q6_k(const struct q6_k *s, int j, struct block32 *out) {
    const uint8_t *low = s->ql + 64 * (j / 4) + 32 * (j % 2), *high = s->qh + 32 * (j / 4);
    for (int c = 0; c < 32; c++) {
        int code = ((low[c] >> (4 * (j % 4 / 2))) & 15) | ((high[c] >> (2 * (j % 4))) & 3) << 4;
        out->code[c] = (int8_t)(code - 32);
    }
    for (int i = 0; i < 2; i++) out->sub[i] = s->scales[2 * j + i];
    out->d = load_f16(s->d);
}

static void unpack_iq4_xs(const struct iq4_xs *s, int j, struct block32 *out) {
    int low = (s->scales_l[j / 2] >> (4 * (j % 2))) & 15, high = (load_u16(s->scales_h) >> (2 * j)) & 3;
    lookup_codes(s->qs + 16 * j, iq4_codes, out);
    out->sub[0] = out->sub[1] = (int16_t)((low | high << 4) - 32);
    out->d = load_f16(s->d);
}

/* Types whose own block is 32 columns. */
static void unpack_small(int32_t type, const void *block, struct block32 *out) {
    switch (type) {
    case LL_Q4_0: {
        const struct q4_0 *s = block;
        unpack_legacy(s->qs, NULL, 8, out);
        out->d = load_f16(s->d);
        break;
    }
    case LL_Q4_1: {
        const struct q4_1 *s = block;
        unpack_legacy(s->qs, NULL, 0, out);
        out->d = load_f16(s->d);
        out->m = load_f16(s->m);
        break;
    }
    case LL_Q5_0: {
        const struct q5_0 *s = block;
        unpack_legacy(s->qs, s->qh, 16, out);
        out->d = load_f16(s->d);
        break;
    }
    case LL_Q5_1: {
        const struct q5_1 *s = block;
        unpack_legacy(s->qs, s->qh, 0, out);
        out->d = load_f16(s->d);
        out->m = load_f16(s->m);
        break;
    }
    case LL_Q8_0: {
        const struct q8_0 *s = block;
        memcpy(out->code, s->qs, 32);
        out->d = load_f16(s->d);
        break;
    }
    case LL_IQ4_NL: {
        const struct iq4_nl *s = block;
        lookup_codes(s->qs, iq4_codes, out);
        out->d = load_f16(s->d);
        break;
    }
    default: { /* LL_MXFP4 */
        const struct mxfp4 *s = block;
        lookup_codes(s->qs, mxfp4_codes, out);
        out->d = e8m0_half(s->e);
        break;
    }
    }
}

void unpack_block(int32_t type, const void *row, int64_t b, struct block32 *out) {
    const struct type *t = type_of(type);
    int64_t per = t->block / 32;
    const void *block = (const uint8_t *)row + b / per * t->bytes;
    int j = (int)(b % per);
    *out = (struct block32){.sub = {1, 1}, .submin = {1, 1}};
    switch (type) {
    case LL_Q2_K: unpack_q2_k(block, j, out); break;
    case LL_Q3_K: unpack_q3_k(block, j, out); break;
    case LL_Q4_K: unpack_q4_k(block, j, out); break;
    case LL_Q5_K: unpack_q5_k(block, j, out); break;
    case LL_Q6_K: unpack_q6_k(block, j, out); break;
    case LL_IQ4_XS: unpack_iq4_xs(block, j, out); break;
    default: unpack_small(type, block, out); break;
    }
}

static void decode_floats(int32_t type, const uint8_t *src, int64_t n, float *dst) {
    for (int64_t i = 0; i < n; i++) {
        if (type == LL_F32)
            dst[i] = float_of_bits(load_u32(src + 4 * i));
        else
            dst[i] = type == LL_F16 ? load_f16(src + 2 * i) : bf16_to_f32(load_u16(src + 2 * i));
    }
}

void decode_row(int32_t type, const void *src, int64_t n, float *dst) {
    enum form form = form_of(type);
    if (form == FORM_FLOAT) {
        decode_floats(type, src, n, dst);
        return;
    }
    for (int64_t b = 0; b < n / 32; b++) {
        struct block32 block;
        unpack_block(type, src, b, &block);
        for (int c = 0; c < 32; c++) {
            float d = block.d * (float)block.sub[c / 16], value = d * (float)block.code[c];
            if (form == FORM_MIN || form == FORM_SUPER_MIN) value += block.m * (float)block.submin[c / 16];
            dst[32 * b + c] = value;
        }
    }
}
