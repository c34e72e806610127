/* The row kernels of level avx2: the build gives this file the level's flags. */
#include "row_kernels_body.h"

const struct row_kernels row_kernels_avx2 = ROW_KERNELS;
