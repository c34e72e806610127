/* Doors for the tests of single pieces of native/cuda: a row decoded, a product computed. */
#include <stdlib.h>

#include "cuda/decode.cuh"

#define DOOR extern "C" __attribute__((visibility("default")))

/* One row: n values of `type` to float32, by the functions that the kernels use. */
DOOR void emulated_decode(int32_t type, const uint8_t *row, int64_t n, float *out) {
    enum form form = form_of_type(type);
    for (int64_t c = 0; c < n && form == FORM_FLOAT; c++) out[c] = float_value(type, row, c);
    for (int64_t b = 0; b < n / 32 && form != FORM_FLOAT; b++) {
        struct codes codes;
        unpack(type, row, b, &codes);
        for (int32_t c = 0; c < 32; c++) out[32 * b + c] = value_of(form, &codes, c);
    }
}

static void *send(struct cuda *d, const void *from, size_t bytes) {
    void *to;
    note(d, cudaMalloc(&to, bytes), "allocation");
    if (from) note(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, d->stream), "copy");
    return to;
}

/* out (n, rows) = x (n, k) times the transpose of w (rows, k), plus bias (rows) unless it is NULL; twice that when
 * asked to add it to itself. Returns 0 or the error. */
DOOR int emulated_product(int32_t type, const uint8_t *w, int64_t row_bytes, int32_t rows, int32_t k, const float *x,
                          int32_t n, const float *bias, int32_t twice, float *out) {
    struct cuda d = {};
    cudaStreamCreateWithFlags(&d.stream, cudaStreamNonBlocking);
    size_t inputs = (size_t)n * (size_t)k, out_bytes = (size_t)n * (size_t)rows * sizeof(float);
    void *memory[] = {send(&d, w, (size_t)(row_bytes * rows)),
                      send(&d, x, inputs * sizeof(float)),
                      send(&d, bias, (size_t)rows * sizeof(float)),
                      send(&d, NULL, out_bytes),
                      send(&d, NULL, inputs),
                      send(&d, NULL, inputs / 8 + 4),
                      send(&d, NULL, inputs / 8 + 4)};
    d.input.blocks = {(int8_t *)memory[4], (float *)memory[5], (int16_t *)memory[6]};
    d.input.supers = d.input.blocks; /* a product needs one of them */
    struct linear linear = {{(const uint8_t *)memory[0], type, rows, k, row_bytes}, bias ? (float *)memory[2] : NULL};
    cuda_set_input(&d, (const float *)memory[1], n, k, cuda_widths(&linear));
    cuda_product(&d, &linear, (float *)memory[3], false);
    if (twice) cuda_product(&d, &linear, (float *)memory[3], true);
    note(&d, cudaMemcpyAsync(out, memory[3], out_bytes, cudaMemcpyDeviceToHost, d.stream), "copy");
    for (void *p : memory) cudaFree(p);
    cudaStreamDestroy(d.stream);
    return (int)d.error;
}
