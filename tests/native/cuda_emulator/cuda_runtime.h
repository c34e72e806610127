/* Runs native/cuda on the CPU, for tests on machines without a GPU: enough of the CUDA language and runtime for those
 * files to compile as C++, with every thread of a block a coroutine that switches at barriers and shuffles.
 *
 * It is stricter than a GPU: a barrier that some thread of the block never reaches, a shuffle without its whole warp,
 * a grid past the limits and a host pointer handed to a kernel end the program with a message; device memory can
 * only be touched from kernels and copies, and starts as NaNs. CUDA_EMULATOR_SEED runs blocks and threads in another
 * order and lets warps run ahead of each other, which a missing barrier would show as other results. Timing, memory
 * ordering inside a warp, limits of registers and the compiler's own faults it cannot show. */
#ifndef CUDA_RUNTIME_H
#define CUDA_RUNTIME_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

/* ---- kernels ---- */

void emulate(const char *name, dim3 grid, dim3 threads, const std::function<void()> &thread);
void emulator_check_argument(const char *name, const void *bytes, size_t size);
void emulator_block_barrier();
void emulator_warp_barrier();
uint32_t emulator_exchange(uint32_t mask, uint32_t value, int other_lane);

template <typename Kernel, typename... Args>
void emulator_launch(const char *name, dim3 grid, dim3 threads, Kernel kernel, Args... args) {
    (emulator_check_argument(name, &args, sizeof args), ...);
    emulate(name, grid, threads, [=] { kernel(args...); });
}

#define LAUNCH(kernel, grid, threads, stream, ...) \
    emulator_launch(#kernel, grid, threads, [](auto... args) { kernel(args...); }, __VA_ARGS__)

static inline void __syncthreads() { emulator_block_barrier(); }
static inline void __syncwarp() { emulator_warp_barrier(); }

template <typename T> static inline T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
    static_assert(sizeof(T) == 4, "shuffles of four bytes");
    uint32_t bits;
    memcpy(&bits, &value, 4);
    bits = emulator_exchange(mask, bits, (int)(threadIdx.x % 32) ^ lanes);
    memcpy(&value, &bits, 4);
    return value;
}

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }

static inline int __dp4a(int a, int b, int c) {
    int8_t x[4], y[4];
    memcpy(x, &a, 4);
    memcpy(y, &b, 4);
    for (int i = 0; i < 4; i++) c += x[i] * y[i];
    return c;
}

static inline float __int_as_float(int bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline int __float_as_int(float f) {
    int bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* ---- the runtime ---- */

typedef enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100
} cudaError_t;
typedef struct emulated_stream *cudaStream_t;
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum { cudaStreamNonBlocking = 1 };
struct cudaDeviceProp {
    char name[256];
    int major, minor;
    size_t totalGlobalMem;
};

#define CUDART_VERSION 13000
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device);
cudaError_t cudaMalloc(void **out, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **out, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemGetInfo(size_t *available, size_t *all);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);

#endif
