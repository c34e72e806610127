/* Level avx2 on processors with AVX-VNNI, whose products need no pair sums in 16 bits. */
#include "one_token.h"
#include "vnni.h"

#define MATMUL matmul_lanes
#define ONE(type) one_##type
#define UNPACK(type) NULL
#include "product_table.h"

static const struct kernels table = {
    .name = "avx2",
    .scratch = scratch,
    .quantize_blocks = quantize_blocks,
    .quantize_supers = quantize_supers,
    .row = &row_kernels_avx2,
    .matmul = PRODUCTS,
};

const struct kernels *kernels_avx_vnni(void) { return &table; }
