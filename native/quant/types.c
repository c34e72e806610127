#include "types.h"

#include <stddef.h>

static const struct type types[LL_TYPE_LIMIT] = {
    [LL_F32] = {"F32", 1, 4},       [LL_F16] = {"F16", 1, 2},         [LL_BF16] = {"BF16", 1, 2},
    [LL_Q4_0] = {"Q4_0", 32, 18},   [LL_Q4_1] = {"Q4_1", 32, 20},     [LL_Q5_0] = {"Q5_0", 32, 22},
    [LL_Q5_1] = {"Q5_1", 32, 24},   [LL_Q8_0] = {"Q8_0", 32, 34},     [LL_Q2_K] = {"Q2_K", 256, 84},
    [LL_Q3_K] = {"Q3_K", 256, 110}, [LL_Q4_K] = {"Q4_K", 256, 144},   [LL_Q5_K] = {"Q5_K", 256, 176},
    [LL_Q6_K] = {"Q6_K", 256, 210}, [LL_IQ4_NL] = {"IQ4_NL", 32, 18}, [LL_IQ4_XS] = {"IQ4_XS", 256, 136},
    [LL_MXFP4] = {"MXFP4", 32, 17},
};

const struct type *type_of(int32_t number) {
    if (number < 0 || number >= LL_TYPE_LIMIT || !types[number].name) return NULL;
    return &types[number];
}
