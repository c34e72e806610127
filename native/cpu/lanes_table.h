/* The table of a level whose products all take rows as lanes, or one token by its own way. Before it includes this, the
 * level's file brings its cores and defines KERNELS, the function that gives the table, LEVEL, its name, and ROWS, its
 * operations on rows. */
#ifndef LANES_TABLE_H
#define LANES_TABLE_H
#define MATMUL matmul_lanes
#define ONE(type) one_##type
#define UNPACK(type) NULL
#include "product_table.h"

static const struct kernels table = {
    .name = LEVEL,
    .scratch = scratch,
    .quantize_blocks = quantize_blocks,
    .quantize_supers = quantize_supers,
    .row = &ROWS,
    .matmul = PRODUCTS,
};

const struct kernels *KERNELS(void) { return &table; }

#endif
