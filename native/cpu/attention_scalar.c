/* Attention in plain C: the specification of the other exact levels. */
#include "attention_body.h"

const struct attend_kernels attend_scalar = ATTEND_KERNELS("scalar");
