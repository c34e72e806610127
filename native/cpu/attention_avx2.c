/* Attention at level avx2: the build gives this file the level's flags. */
#include "attention_body.h"

const struct attend_kernels attend_avx2 = ATTEND_KERNELS("avx2");
