/* Level avx512: the products with VNNI. */
#include "one_token.h"
#include "vnni.h"

#define MATMUL matmul_lanes
#define ONE(type) one_##type
#define UNPACK(type) NULL
#include "product_table.h"

static const struct kernels table = {
    .name = "avx512",
    .scratch = scratch,
    .quantize_blocks = quantize_blocks,
    .quantize_supers = quantize_supers,
    .row = &row_kernels_avx512,
    .matmul = PRODUCTS,
};

const struct kernels *kernels_avx512(void) { return &table; }
