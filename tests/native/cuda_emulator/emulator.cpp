/* The runtime behind cuda_runtime.h: coroutines, barriers, and memory that only kernels may touch. One thread of the
 * host at a time. */
#include "cuda_runtime.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

[[noreturn]] void stop(const char *what, const char *name) {
    fprintf(stderr, "CUDA emulator: %s: %s (block %u, %u, thread %u)\n", name, what, blockIdx.x, blockIdx.y,
            threadIdx.x);
    abort();
}

/* ---- memory ---- */

struct allocation {
    char *start;
    size_t bytes;
};
std::vector<allocation> device_memory;
cudaError_t last_error;

size_t whole_pages(size_t bytes) { return (bytes / 4096 + 1) * 4096; }

void open_memory(bool open) {
    for (const allocation &a : device_memory)
        mprotect(a.start, whole_pages(a.bytes), open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

bool on_device(const void *p, size_t bytes) {
    for (const allocation &a : device_memory)
        if ((const char *)p >= a.start && (const char *)p + bytes <= a.start + a.bytes) return true;
    return false;
}

/* Whether a word is the address of memory here; two small numbers side by side are not, nor a sanitizer's shadow. */
bool mapped(uintptr_t address) {
    unsigned char resident;
    if (address >> 45 == 0 || address >> 48 != 0) return false;
    return mincore((void *)(address & ~(uintptr_t)4095), 1, &resident) == 0;
}

/* ---- coroutines ---- */

enum state { RUNNING, AT_WARP, AT_BLOCK, DONE };
enum { STACK = 1 << 18, MAX_THREADS = 1024 };

struct coroutine {
    jmp_buf point; /* where it goes on; jumps are ten times as fast as swapcontext() */
    char *stack;
    enum state state;
    uint32_t slot; /* what it offers in an exchange */
};
coroutine threads[MAX_THREADS];
jmp_buf scheduler;
const std::function<void()> *body;
const char *running_kernel;
unsigned n_threads;

void wait_in(enum state state) {
    coroutine *c = &threads[threadIdx.x];
    c->state = state;
    if (_setjmp(c->point) == 0) _longjmp(scheduler, 1);
}

/* A coroutine lives across blocks and launches: it runs the body, then waits to be asked again. */
void run_thread() {
    for (;;) {
        (*body)();
        wait_in(DONE);
    }
}

void start(coroutine *c) {
    ucontext_t context;
    c->stack = (char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    getcontext(&context);
    context.uc_stack.ss_sp = c->stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = NULL;
    makecontext(&context, run_thread, 0);
    setcontext(&context);
}

void resume(unsigned i) {
    threadIdx = dim3(i, 0, 0);
    if (_setjmp(scheduler)) return;
    if (!threads[i].stack) start(&threads[i]);
    _longjmp(threads[i].point, 1);
}

/* Lets threads [first, end) go on if all of them wait in `state`; some waiting and others done is a fault. */
bool release(unsigned first, unsigned end, enum state state) {
    unsigned waiting = 0, done = 0;
    for (unsigned i = first; i < end; i++) {
        waiting += threads[i].state == state;
        done += threads[i].state == DONE;
    }
    if (waiting && waiting + done == end - first && done)
        stop("a thread left before a barrier of others", running_kernel);
    if (waiting != end - first) return false;
    for (unsigned i = first; i < end; i++) threads[i].state = RUNNING;
    return true;
}

/* One block of threads to its end, threads in the order given. `random` holds back some warps for some rounds, so that
 * others run ahead of them as far as barriers let them; NULL holds none. */
void run_block(const std::vector<unsigned> &order, std::mt19937 *random) {
    for (unsigned i = 0; i < n_threads; i++) threads[i].state = RUNNING;
    uint32_t awake = UINT32_MAX; /* warps by number */
    for (;;) {
        bool progress = false, held = false;
        for (unsigned i : order) {
            if (threads[i].state != RUNNING) continue;
            bool runs = awake >> (i / 32) & 1;
            if (runs) resume(i);
            progress |= runs;
            held |= !runs;
        }
        for (unsigned first = 0; first < n_threads; first += 32)
            progress |= release(first, std::min(first + 32, n_threads), AT_WARP);
        progress |= release(0, n_threads, AT_BLOCK);
        if (random && (!progress || (*random)() % 16 == 0)) awake = (uint32_t)(*random)();
        if (progress || held) continue;
        for (unsigned i = 0; i < n_threads; i++)
            if (threads[i].state != DONE) stop("threads wait in different barriers", running_kernel);
        return;
    }
}

unsigned seed() {
    const char *text = getenv("CUDA_EMULATOR_SEED");
    return text ? (unsigned)atoi(text) : 0;
}

} // namespace

void emulator_block_barrier() { wait_in(AT_BLOCK); }
void emulator_warp_barrier() { wait_in(AT_WARP); }

uint32_t emulator_exchange(uint32_t mask, uint32_t value, int other_lane) {
    unsigned self = threadIdx.x;
    if (mask != 0xffffffffu) stop("a shuffle of part of a warp", running_kernel);
    threads[self].slot = value;
    wait_in(AT_WARP);
    uint32_t result = threads[self / 32 * 32 + (unsigned)other_lane].slot;
    wait_in(AT_WARP);
    return result;
}

/* Every aligned word of an argument that is the address of host memory is a fault. */
void emulator_check_argument(const char *name, const void *bytes, size_t size) {
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uintptr_t word;
        memcpy(&word, (const char *)bytes + i, 8);
        if (mapped(word) && !on_device((const void *)word, 0)) {
            fprintf(stderr, "word at %zu of an argument is %p\n", i, (void *)word);
            stop("a kernel is handed a pointer to host memory", name);
        }
    }
}

void emulate(const char *name, dim3 grid, dim3 block, const std::function<void()> &thread) {
    if (grid.x - 1 > 0x7ffffffeu || grid.y - 1 > 65534u || grid.z != 1 || block.x - 1 > 1023u || block.x % 32 ||
        block.y != 1) {
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    std::mt19937 random(seed());
    std::vector<unsigned> order(block.x), block_order(grid.x);
    for (unsigned i = 0; i < block.x; i++) order[i] = i;
    for (unsigned i = 0; i < grid.x; i++) block_order[i] = i;
    if (seed()) std::shuffle(block_order.begin(), block_order.end(), random);
    body = &thread;
    running_kernel = name;
    n_threads = block.x;
    blockDim = block;
    gridDim = grid;
    open_memory(true);
    for (unsigned y = 0; y < grid.y; y++) {
        for (unsigned x : block_order) {
            if (seed()) std::shuffle(order.begin(), order.end(), random);
            blockIdx = dim3(x, y, 0);
            run_block(order, seed() ? &random : NULL);
        }
    }
    open_memory(false);
}

/* ---- the runtime ---- */

static bool absent() { return getenv("CUDA_EMULATOR_ABSENT") != NULL; }

cudaError_t cudaDriverGetVersion(int *version) {
    *version = absent() ? 0 : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = absent() ? 0 : 1;
    return absent() ? cudaErrorInsufficientDriver : cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
    if (absent() || device) return cudaErrorInvalidValue;
    *out = {"emulated by the CPU", 9, 0, (size_t)1 << 33};
    return cudaSuccess;
}

/* The end of the allocation touches a page that is never readable; its bytes are NaNs as floats and as halves. */
cudaError_t cudaMalloc(void **out, size_t bytes) {
    if (bytes > (size_t)1 << 33) return last_error = cudaErrorMemoryAllocation;
    char *p = (char *)mmap(NULL, whole_pages(bytes) + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return cudaErrorMemoryAllocation;
    memset(p, 0xff, bytes);
    mprotect(p, whole_pages(bytes) + 4096, PROT_NONE);
    device_memory.push_back({p, bytes});
    *out = p;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p) {
    for (size_t i = 0; i < device_memory.size(); i++) {
        if (device_memory[i].start != p) continue;
        munmap(p, whole_pages(device_memory[i].bytes) + 4096);
        device_memory.erase(device_memory.begin() + (long)i);
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaMallocHost(void **out, size_t bytes) {
    *out = aligned_alloc(64, (bytes / 64 + 1) * 64);
    return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *p) {
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *all) {
    *available = *all = (size_t)1 << 33;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    const void *device = kind == cudaMemcpyHostToDevice ? to : from;
    if (!stream || !on_device(device, bytes)) return cudaErrorInvalidValue;
    open_memory(true);
    memcpy(to, from, bytes);
    open_memory(false);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
    *out = (cudaStream_t)malloc(1);
    return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGetLastError() {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : "an emulated error";
}

const char *cudaGetErrorName(cudaError_t) { return "emulated"; }
