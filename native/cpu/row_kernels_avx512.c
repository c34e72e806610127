/* The row kernels of level avx512: the build gives this file the level's flags. */
#include "row_kernels_body.h"

const struct row_kernels row_kernels_avx512 = ROW_KERNELS;
