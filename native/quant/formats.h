/* Layouts of the quantized blocks, byte for byte as GGUF files hold them, and the plain C that reads them. Every
 * field is made of bytes: a mapped file promises no alignment. Machines are little-endian, as the format is.
 *
 * Every quantized type, whatever its own block is, unpacks to blocks of 32 columns of one common form:
 *     value(c) = (d * sub[c / 16]) * code[c]                       types with sub-scales
 *              =  d * code[c]                                      the others
 *   followed by + m * submin[c / 16] or + m where the type has minima (m of the K types is negated here).
 * What a kernel must know of a type beside unpacking is which of these four forms it has: its `form`. Types whose own
 * block is 256 columns are super forms: their d and m belong to all 256, and what differs inside are integers. */
#ifndef FORMATS_H
#define FORMATS_H
#include <stdbool.h>
#include <stdint.h>
#include "types.h"

struct q4_0 { uint8_t d[2], qs[16]; };
struct q4_1 { uint8_t d[2], m[2], qs[16]; };
struct q5_0 { uint8_t d[2], qh[4], qs[16]; };
struct q5_1 { uint8_t d[2], m[2], qh[4], qs[16]; };
struct q8_0 {
    uint8_t d[2];
    int8_t qs[32];
};
struct q2_k { uint8_t scales[16], qs[64], d[2], dmin[2]; };
struct q3_k { uint8_t hmask[32], qs[64], scales[12], d[2]; };
struct q4_k { uint8_t d[2], dmin[2], scales[12], qs[128]; };
struct q5_k { uint8_t d[2], dmin[2], scales[12], qh[32], qs[128]; };
struct q6_k {
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint8_t d[2];
};
struct iq4_nl { uint8_t d[2], qs[16]; };
struct iq4_xs { uint8_t d[2], scales_h[2], scales_l[4], qs[128]; };
struct mxfp4 { uint8_t e, qs[16]; };

enum form { FORM_FLOAT, FORM_PLAIN, FORM_MIN, FORM_SUPER, FORM_SUPER_MIN };

/* 32 columns of a row. sub and submin are 1 where the type has none, m is 0. */
struct block32 {
    int8_t code[32];
    int16_t sub[2], submin[2];
    float d, m;
};

extern const int8_t iq4_codes[16], mxfp4_codes[16]; /* what the four-bit indexes of these types stand for */

enum form form_of(int32_t type); /* of a known type */
static inline bool is_super(enum form form) { return form == FORM_SUPER || form == FORM_SUPER_MIN; }

/* Block b (columns 32 b to 32 b + 31) of a row of a quantized type. */
void unpack_block(int32_t type, const void *row, int64_t b, struct block32 *out);

/* n values of a known type; n is a multiple of the type's block. Bit-equal with the gguf package's dequantize. */
void decode_row(int32_t type, const void *src, int64_t n, float *dst);

/* 2^(e - 128): the scale of an MXFP4 block, halved because its codes are doubled. */
float e8m0_half(uint8_t e);

#endif
