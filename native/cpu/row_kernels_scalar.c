/* The row kernels in plain C: the specification of the other levels, and what an unknown machine runs. */
#include "row_kernels_body.h"

const struct row_kernels row_kernels_scalar = ROW_KERNELS;
