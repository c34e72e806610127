/* The conversions of half precision that native/cuda uses, by those of native/quant/half.h. */
#ifndef CUDA_FP16_H
#define CUDA_FP16_H
#include "quant/half.h"

struct __half { uint16_t bits; };

static inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
static inline uint16_t __half_as_ushort(__half h) { return h.bits; }
static inline float __half2float(__half h) { return f16_to_f32(h.bits); }
static inline __half __float2half_rn(float f) { return {f32_to_f16(f)}; }

#endif
