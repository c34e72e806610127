/* Attention at level avx512: the build gives this file the level's flags. */
#include "attention_body.h"

const struct attend_kernels attend_avx512 = ATTEND_KERNELS("avx512");
