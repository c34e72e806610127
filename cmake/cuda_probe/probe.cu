/* The smallest use of the toolkit that touches its headers, its compiler and its static runtime. */
#include <cuda_fp16.h>
#include <cuda_runtime.h>

static __global__ void probe_kernel(__half *x) { x[threadIdx.x] = __float2half(1.0f); }

extern "C" int probe(void) {
    probe_kernel<<<1, 1>>>(nullptr);
    return (int)cudaGetLastError();
}
