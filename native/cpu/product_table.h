/* The products of every type, made of the drivers of products.h and the cores of a level. Before it includes this, the
 * level's file defines MATMUL, its driver for quantized types, ONE, its way with one token, and UNPACK, that of its
 * tiles. */
#ifndef PRODUCT_TABLE_H
#define PRODUCT_TABLE_H
#include "products.h"

#define BLOCKS(type, one, class, form, halves, code_offset, bytes)                                                     \
    static void matmul_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a,          \
                              float *out, int64_t ld_out, void *work) {                                                \
        static const struct format format = {fill_##type, one, class, form, halves, code_offset, bytes, UNPACK(type)}; \
        MATMUL(&format, w, row_bytes, rows, a, out, ld_out, work);                                                     \
    }
#define FLOATS(type)                                                                                          \
    static void matmul_##type(const uint8_t *w, int64_t row_bytes, int32_t rows, const struct activations *a, \
                              float *out, int64_t ld_out, void *work) {                                       \
        (void)work;                                                                                           \
        matmul_floats(LL_##type, w, row_bytes, rows, a, out, ld_out);                                         \
    }
BLOCKS(Q4_0, ONE(Q4_0), plain_cores_4, FORM_PLAIN, false, 8, CHUNK * sizeof(struct q4_0))
BLOCKS(Q4_1, NULL, min_cores_4, FORM_MIN, false, 0, CHUNK * sizeof(struct q4_1))
BLOCKS(Q5_0, ONE(Q5_0), plain_cores_5, FORM_PLAIN, false, 16, CHUNK * sizeof(struct q5_0))
BLOCKS(Q5_1, NULL, min_cores_5, FORM_MIN, false, 0, CHUNK * sizeof(struct q5_1))
BLOCKS(Q8_0, ONE(Q8_0), plain_cores_8, FORM_PLAIN, false, WIDE_OFFSET, CHUNK * sizeof(struct q8_0))
BLOCKS(IQ4_NL, ONE(IQ4_NL), plain_cores_8, FORM_PLAIN, false, WIDE_OFFSET, CHUNK * sizeof(struct iq4_nl))
BLOCKS(MXFP4, NULL, plain_cores_5, FORM_PLAIN, false, MXFP4_OFFSET, CHUNK * sizeof(struct mxfp4))
BLOCKS(Q2_K, NULL, halves_min_cores_2, FORM_SUPER_MIN, true, 0, sizeof(struct q2_k))
BLOCKS(Q3_K, ONE(Q3_K), halves_cores_3, FORM_SUPER, true, Q3_K_OFFSET, sizeof(struct q3_k))
BLOCKS(Q4_K, ONE(Q4_K), super_min_cores_4, FORM_SUPER_MIN, false, 0, sizeof(struct q4_k))
BLOCKS(Q5_K, ONE(Q5_K), super_min_cores_5, FORM_SUPER_MIN, false, 0, sizeof(struct q5_k))
BLOCKS(Q6_K, ONE(Q6_K), halves_cores_6, FORM_SUPER, true, Q6_K_OFFSET, sizeof(struct q6_k))
BLOCKS(IQ4_XS, NULL, super_cores_8, FORM_SUPER, false, WIDE_OFFSET, sizeof(struct iq4_xs))
FLOATS(F32)
FLOATS(F16)
FLOATS(BF16)

#define ENTRY(type) [LL_##type] = matmul_##type
#define PRODUCTS                                                                                                 \
    {ENTRY(F32),  ENTRY(F16),  ENTRY(BF16), ENTRY(Q4_0), ENTRY(Q4_1), ENTRY(Q5_0),   ENTRY(Q5_1),   ENTRY(Q8_0), \
     ENTRY(Q2_K), ENTRY(Q3_K), ENTRY(Q4_K), ENTRY(Q5_K), ENTRY(Q6_K), ENTRY(IQ4_NL), ENTRY(IQ4_XS), ENTRY(MXFP4)}

#endif
