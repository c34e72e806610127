#include "kernels.h"

#include <stddef.h>

const struct kernels *kernels_avx2(void) { return NULL; }
