/* Life of a CUDA device: one allocation on the GPU for weights, KV pool and buffers, one of pinned host memory for
 * what travels, one stream. The first GPU that is visible is used; others are chosen by CUDA_VISIBLE_DEVICES.
 *
 * A step: begin() derives rows and positions on the host and sends them, the operations queue up behind, finish()
 * waits. Sampling is the host's, so logits() brings them there. */
#include <stdio.h>
#include <stdlib.h>

#include "common.cuh"

extern "C" {
#include "base/arena.h"
#include "model/rope.h"
}

enum { MAX_TOKENS = 65535 * 8 }; /* of one step: what a grid's y can count in tiles of eight */

/* ---- memory ---- */

/* Hands out device memory; with a stream it also fills it. */
struct placer {
    struct arena arena;
    cudaStream_t stream;
    cudaError_t error;
};

static void *take(struct arena *a, uint64_t count, uint64_t size) { return arena_take(a, count, size); }

static const void *place(struct placer *p, const void *data, uint64_t bytes) {
    if (!data) return NULL;
    void *to = take(&p->arena, bytes, 1);
    if (p->arena.base && p->error == cudaSuccess)
        p->error = cudaMemcpyAsync(to, data, bytes, cudaMemcpyHostToDevice, p->stream);
    return to;
}

static void place_vector(struct placer *p, const float **vector, int32_t n) {
    *vector = (const float *)place(p, *vector, (uint64_t)n * sizeof(float));
}

static void place_tensor(struct placer *p, struct tensor *t) {
    t->data = (const uint8_t *)place(p, t->data, (uint64_t)t->rows * (uint64_t)t->row_bytes);
}

static void place_linear(struct placer *p, struct linear *l) {
    place_tensor(p, &l->w);
    place_vector(p, &l->bias, l->w.rows);
}

static void place_layer(struct placer *p, const struct model *m, struct layer *l) {
    struct linear *products[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    place_vector(p, &l->attn_norm, m->n_embd);
    place_vector(p, &l->ffn_norm, m->n_embd);
    place_vector(p, &l->q_norm, m->head_dim);
    place_vector(p, &l->k_norm, m->head_dim);
    for (struct linear *product : products) place_linear(p, product);
}

/* Every weight once: a tied head is the embedding. `layers` receives the device's pointers, or is NULL to count. */
static void place_model(struct placer *p, struct model *m, struct layer *layers) {
    bool tied = m->head.w.data == m->embed.data;
    place_tensor(p, &m->embed);
    place_vector(p, &m->out_norm, m->n_embd);
    if (tied) {
        m->head.w.data = m->embed.data;
        place_vector(p, &m->head.bias, m->n_vocab);
    } else {
        place_linear(p, &m->head);
    }
    for (int32_t i = 0; i < m->n_layers; i++) {
        struct layer l = m->layers[i];
        place_layer(p, m, &l);
        if (layers) layers[i] = l;
    }
    m->layers = layers;
}

static uint64_t widest_input(const struct model *m) {
    int32_t q = m->n_heads * m->head_dim, widest = m->n_embd > m->n_ff ? m->n_embd : m->n_ff;
    return (uint64_t)(q > widest ? q : widest) + 31; /* quantized rows come in blocks of 32 */
}

static void lay_out_quants(struct quants *out, uint64_t n, uint64_t k, uint64_t width, struct arena *a) {
    out->q = (int8_t *)take(a, n * k, 1);
    out->scale = (float *)take(a, n * (k / width), sizeof(float));
    out->sums = (int16_t *)take(a, n * (k / 16), sizeof(int16_t));
}

static void lay_out_buffers(struct cuda *d, const ll_runner_config *c, struct arena *a) {
    const struct model *m = &d->model;
    uint64_t n = (uint64_t)c->max_tokens, f = sizeof(float), wide = widest_input(m);
    uint64_t q = (uint64_t)m->n_heads * (uint64_t)m->head_dim, kv = (uint64_t)m->n_kv_heads * (uint64_t)m->head_dim;
    d->normed = (float *)take(a, n * (uint64_t)m->n_embd, f);
    d->up = (float *)take(a, n * (uint64_t)m->n_ff, f);
    lay_out_quants(&d->input.blocks, n, wide, 32, a);
    lay_out_quants(&d->input.supers, n, wide, 256, a);
    for (float *&x : d->x) x = (float *)take(a, n * (uint64_t)m->n_embd, f);
    d->work.q = (float *)take(a, n * q, f);
    d->work.a = (float *)take(a, n * q, f);
    d->work.k = (float *)take(a, n * kv, f);
    d->work.v = (float *)take(a, n * kv, f);
    d->work.h = (float *)take(a, n * (uint64_t)m->n_ff, f);
    d->work.logits = (float *)take(a, (uint64_t)c->max_samples * (uint64_t)m->n_vocab, f);
}

static void lay_out_step(const struct cuda *d, const ll_runner_config *c, struct step_arrays *s, struct arena *a) {
    uint64_t n = (uint64_t)c->max_tokens, rows = (uint64_t)c->max_rows, i = sizeof(int32_t);
    s->tokens = (int32_t *)take(a, n, i);
    s->row_start = (int32_t *)take(a, rows + 1, i);
    s->row_pos = (int32_t *)take(a, rows, i);
    s->blocks = (int32_t *)take(a, rows * (uint64_t)d->table_columns, i);
    s->samples = (int32_t *)take(a, (uint64_t)c->max_samples, i);
    s->row_of = (int32_t *)take(a, n, i);
    s->position = (int32_t *)take(a, n, i);
    s->rotation = (float *)take(a, n * (uint64_t)d->model.rope_dims, sizeof(float));
}

/* Lays out everything; with no bases it only counts, so that the plan is the allocation. */
static void lay_out(struct cuda *d, const ll_runner_config *c, struct placer *device, struct arena *pinned,
                    ll_plan *plan) {
    place_model(device, &d->model, d->layers);
    plan->weight_bytes = device->arena.used;
    plan->block_bytes = (uint64_t)d->kv.block_bytes;
    plan->kv_bytes = plan->block_bytes * (uint64_t)c->n_blocks;
    d->pool = (uint8_t *)take(&device->arena, plan->kv_bytes, 1);
    lay_out_buffers(d, c, &device->arena);
    for (int track = 0; track < TRACKS; track++) {
        lay_out_step(d, c, &d->device[track], &device->arena);
        lay_out_step(d, c, &d->host[track], pinned);
    }
    d->host_logits = (float *)take(pinned, (uint64_t)c->max_samples * (uint64_t)d->model.n_vocab, sizeof(float));
    plan->scratch_bytes = device->arena.used + pinned->used - plan->weight_bytes - plan->kv_bytes;
}

/* Everything about a device that needs no memory. */
static int configure(struct cuda *d, const struct ll_model *model, const ll_runner_config *c) {
    const struct model *m = &model->view;
    uint64_t bytes;
    d->model = *m;
    TRY(kv_layout_init(&d->kv, m, c->kv_type, c->block_size));
    if (c->max_tokens > MAX_TOKENS)
        return fail(LL_EINVAL, "max_tokens: expected at most %d on device cuda, found %d", MAX_TOKENS, c->max_tokens);
    int64_t longest = ((int64_t)m->n_ctx + c->block_size - 1) / c->block_size;
    d->table_columns = longest < c->n_blocks ? (int32_t)longest : c->n_blocks;
    if (__builtin_mul_overflow((uint64_t)d->kv.block_bytes, (uint64_t)c->n_blocks, &bytes) ||
        __builtin_mul_overflow((uint64_t)d->table_columns * sizeof(int32_t), (uint64_t)c->max_rows, &bytes))
        return fail(LL_ENOMEM, "n_blocks: %d KV blocks of %lld bytes in %d rows are more than memory can hold",
                    c->n_blocks, (long long)d->kv.block_bytes, c->max_rows);
    return LL_OK;
}

extern "C" int cuda_plan(const struct ll_model *model, const ll_runner_config *config, ll_plan *plan) {
    struct cuda d = {};
    struct placer device = {};
    struct arena pinned = {};
    TRY(configure(&d, model, config));
    lay_out(&d, config, &device, &pinned, plan);
    return LL_OK;
}

/* ---- a step ---- */

static void send(struct cuda *d, void *to, const void *from, uint64_t count, uint64_t size) {
    if (count) note(d, cudaMemcpyAsync(to, from, count * size, cudaMemcpyHostToDevice, d->stream), "sending the batch");
}

/* Rows of the block table, `columns` wide: only the entries in use, the rest 0. */
static void fill_blocks(const struct cuda *d, const struct step_arrays *h, const ll_batch *b, int32_t columns) {
    for (int32_t r = 0; r < b->n_rows; r++) {
        int32_t end = b->row_pos[r] + b->row_start[r + 1] - b->row_start[r];
        int32_t used = (int32_t)tiles(end, d->kv.block_size);
        for (int32_t i = 0; i < columns; i++)
            h->blocks[(int64_t)r * columns + i] = i < used ? b->blocks[(int64_t)r * b->max_blocks + i] : 0;
    }
}

/* Fills the host's arrays; returns how many columns the block table needs. */
static int32_t derive(const struct cuda *d, const struct step_arrays *h, const ll_batch *b) {
    int32_t columns = 0;
    for (int32_t i = 0; i < b->n_tokens; i++) h->tokens[i] = b->tokens[i];
    for (int32_t i = 0; i < b->n_samples; i++) h->samples[i] = b->samples[i];
    for (int32_t r = 0; r < b->n_rows; r++) {
        int32_t start = b->row_start[r], end = b->row_start[r + 1];
        h->row_start[r] = start;
        h->row_start[r + 1] = end;
        h->row_pos[r] = b->row_pos[r];
        for (int32_t t = start; t < end; t++) {
            h->row_of[t] = r;
            h->position[t] = b->row_pos[r] + (t - start);
            rope_rotation(&d->model, h->position[t], h->rotation + (int64_t)t * d->model.rope_dims);
        }
        int32_t used = (int32_t)tiles(b->row_pos[r] + (end - start), d->kv.block_size);
        if (used > columns) columns = used;
    }
    return columns;
}

/* Tells the error that was kept, if there is one: what comes next on the other track may succeed. */
static int told(struct cuda *d) {
    cudaError_t error = d->error;
    d->error = cudaSuccess;
    if (error == cudaSuccess) return LL_OK;
    return fail(LL_EDEVICE, "device cuda: %s (%s) in %s", cudaGetErrorString(error), cudaGetErrorName(error), d->where);
}

static int cuda_begin(void *self, enum track track, const ll_batch *b, struct step *out) {
    struct cuda *d = (struct cuda *)self;
    const struct step_arrays *h = &d->host[track], *s = &d->device[track];
    uint64_t n = (uint64_t)b->n_tokens, rows = (uint64_t)b->n_rows, i = sizeof(int32_t);
    int32_t columns = derive(d, h, b);
    if (columns > d->table_columns)
        return fail(LL_EINVAL, "blocks: a row of this batch needs %d KV blocks, the device holds tables of %d", columns,
                    d->table_columns);
    fill_blocks(d, h, b, columns);
    cudaGetLastError(); /* an open that failed for want of memory leaves its error behind */
    send(d, s->tokens, h->tokens, n, i);
    send(d, s->row_start, h->row_start, rows + 1, i);
    send(d, s->row_pos, h->row_pos, rows, i);
    send(d, s->blocks, h->blocks, rows * (uint64_t)columns, i);
    send(d, s->samples, h->samples, (uint64_t)b->n_samples, i);
    send(d, s->row_of, h->row_of, n, i);
    send(d, s->position, h->position, n, i);
    send(d, s->rotation, h->rotation, n * (uint64_t)d->model.rope_dims, sizeof(float));
    out->track = track;
    out->x = d->x[track];
    out->batch = {b->n_rows, b->n_tokens,  b->n_samples, columns,   b->n_generated,
                  s->tokens, s->row_start, s->row_pos,   s->blocks, s->samples};
    out->row_of = s->row_of;
    out->position = s->position;
    out->rotation = s->rotation;
    return told(d);
}

static int cuda_finish(void *dev) {
    struct cuda *d = (struct cuda *)dev;
    note(d, cudaStreamSynchronize(d->stream), "the step");
    return told(d);
}

static const float *cuda_logits(void *self) {
    struct cuda *d = (struct cuda *)self;
    uint64_t bytes = (uint64_t)d->n_samples * (uint64_t)d->model.n_vocab * sizeof(float);
    note(d, cudaMemcpyAsync(d->host_logits, d->work.logits, bytes, cudaMemcpyDeviceToHost, d->stream), "the logits");
    return cuda_finish(d) ? NULL : d->host_logits;
}

/* ---- operations around products ---- */

static void cuda_norm_qkv(void *dev, const struct model *m, const struct layer *l, const struct step *s, const float *x,
                          float *q, float *k, float *v) {
    struct cuda *d = (struct cuda *)dev;
    int widths = cuda_widths(&l->q) | cuda_widths(&l->k) | cuda_widths(&l->v);
    cuda_norm(d, x, s->batch.n_tokens, m->n_embd, l->attn_norm, d->normed);
    cuda_set_input(d, d->normed, s->batch.n_tokens, m->n_embd, widths);
    cuda_product(d, &l->q, q, false);
    cuda_product(d, &l->k, k, false);
    cuda_product(d, &l->v, v, false);
}

static void cuda_keep_sampled(void *dev, const struct model *m, const struct step *s, float *x, float *a) {
    struct cuda *d = (struct cuda *)dev;
    cuda_move_rows(d, s->batch.samples, s->batch.n_samples, m->n_embd, x);
    cuda_move_rows(d, s->batch.samples, s->batch.n_samples, m->n_heads * m->head_dim, a);
}

static void cuda_linear_add(void *dev, const struct linear *w, const struct step *s, const float *in, float *x) {
    struct cuda *d = (struct cuda *)dev;
    cuda_set_input(d, in, s->batch.n_tokens, w->w.cols, cuda_widths(w));
    cuda_product(d, w, x, true);
}

static void cuda_norm_glu(void *dev, const struct model *m, const struct layer *l, const struct step *s, const float *x,
                          float *h) {
    struct cuda *d = (struct cuda *)dev;
    cuda_norm(d, x, s->batch.n_tokens, m->n_embd, l->ffn_norm, d->normed);
    cuda_set_input(d, d->normed, s->batch.n_tokens, m->n_embd, cuda_widths(&l->gate) | cuda_widths(&l->up));
    cuda_product(d, &l->gate, h, false);
    cuda_product(d, &l->up, d->up, false);
    cuda_swiglu(d, h, d->up, s->batch.n_tokens, m->n_ff);
}

static void cuda_head(void *dev, const struct model *m, const struct step *s, const float *x, float *logits) {
    struct cuda *d = (struct cuda *)dev;
    d->n_samples = s->batch.n_samples;
    cuda_norm(d, x, s->batch.n_samples, m->n_embd, m->out_norm, d->normed);
    cuda_set_input(d, d->normed, s->batch.n_samples, m->n_embd, cuda_widths(&m->head));
    cuda_product(d, &m->head, logits, false);
}

static const struct ops cuda_ops = {
    "cuda",          cuda_embed,    cuda_norm_qkv, cuda_rotate_store, cuda_attend, cuda_keep_sampled,
    cuda_linear_add, cuda_norm_glu, cuda_head,     cuda_finish,
};

/* ---- life ---- */

static void cuda_close(void *self) {
    struct cuda *d = (struct cuda *)self;
    if (!d) return;
    if (d->stream) cudaStreamSynchronize(d->stream);
    if (d->memory) cudaFree(d->memory);
    if (d->pinned) cudaFreeHost(d->pinned);
    if (d->stream) cudaStreamDestroy(d->stream);
    free(d->layers);
    free(d);
}

/* Why the runtime finds no GPU. It calls a driver that is not there one that is too old. */
static int no_device(cudaError_t error) {
    int driver = 0;
    if (error != cudaErrorInsufficientDriver || cudaDriverGetVersion(&driver) != cudaSuccess)
        return fail(LL_EDEVICE, "device cuda: %s", cudaGetErrorString(error));
    if (driver == 0) return fail(LL_EDEVICE, "device cuda: this machine has no NVIDIA driver");
    return fail(LL_EDEVICE, "device cuda: expected a driver for CUDA %d.%d or newer, found one for %d.%d",
                CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, driver / 1000, driver % 1000 / 10);
}

/* The first GPU, or why there is none that can run this. */
static int find_device(struct cudaDeviceProp *found) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count == 0) error = cudaErrorNoDevice;
    if (error == cudaSuccess) error = cudaGetDeviceProperties(found, 0);
    if (error != cudaSuccess) return no_device(error);
    if (found->major < 8)
        return fail(LL_EDEVICE, "device cuda: expected compute capability 8.0 or newer, %s has %d.%d", found->name,
                    found->major, found->minor);
    return LL_OK;
}

static int allocate(struct cuda *d, uint64_t device_bytes, uint64_t pinned_bytes) {
    size_t available = 0, all = 0;
    cudaError_t error = cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking);
    if (error != cudaSuccess) return fail(LL_EDEVICE, "device cuda: %s", cudaGetErrorString(error));
    error = cudaMalloc(&d->memory, device_bytes);
    if (error == cudaErrorMemoryAllocation && cudaMemGetInfo(&available, &all) == cudaSuccess)
        return fail(LL_ENOMEM, "device cuda: %llu bytes are needed, %llu of %llu are free",
                    (unsigned long long)device_bytes, (unsigned long long)available, (unsigned long long)all);
    if (error != cudaSuccess) return fail(LL_EDEVICE, "device cuda: %s", cudaGetErrorString(error));
    error = cudaMallocHost(&d->pinned, pinned_bytes);
    if (error != cudaSuccess)
        return fail(LL_ENOMEM, "device cuda: %llu bytes of pinned host memory: %s", (unsigned long long)pinned_bytes,
                    cudaGetErrorString(error));
    return LL_OK;
}

static int open_device(struct cuda *d, const struct ll_model *model, const ll_runner_config *config) {
    struct cuda counted = {};
    struct placer device = {};
    struct arena pinned = {};
    struct cudaDeviceProp gpu;
    ll_plan plan;
    TRY(find_device(&gpu));
    TRY(configure(&counted, model, config));
    TRY(configure(d, model, config));
    lay_out(&counted, config, &device, &pinned, &plan);
    TRY(allocate(d, device.arena.used, pinned.used));
    d->layers = (struct layer *)calloc((size_t)model->view.n_layers, sizeof *d->layers);
    if (!d->layers) return fail(LL_ENOMEM, "no memory for %d layers", model->view.n_layers);

    device = {{(uint8_t *)d->memory, 0}, d->stream, cudaSuccess};
    pinned = {(uint8_t *)d->pinned, 0};
    lay_out(d, config, &device, &pinned, &plan);
    if (device.error == cudaSuccess) device.error = cudaStreamSynchronize(d->stream);
    if (device.error != cudaSuccess)
        return fail(LL_EDEVICE, "device cuda: copying the weights: %s", cudaGetErrorString(device.error));
    return LL_OK;
}

extern "C" int cuda_open(struct device *out, const struct ll_model *model, const ll_runner_config *config) {
    struct cuda *d = (struct cuda *)calloc(1, sizeof *d);
    if (!d) return fail(LL_ENOMEM, "no memory for a device");
    int status = open_device(d, model, config);
    if (status != LL_OK) {
        cuda_close(d);
        return status;
    }
    *out = {&cuda_ops, d, &d->model, d->work, 1, nullptr, cuda_begin, cuda_logits, cuda_close, false};
    return LL_OK;
}

/* GPUs that are there but too old count as none, so that "auto" means the CPU. */
extern "C" int32_t ll_cuda_devices(void) {
    struct cudaDeviceProp gpu;
    int count = 0;
    return find_device(&gpu) == LL_OK && cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

extern "C" const char *ll_cuda_status(void) {
    static thread_local char sentence[512];
    struct cudaDeviceProp gpu;
    if (find_device(&gpu) != LL_OK) return ll_error();
    snprintf(sentence, sizeof sentence, "%s, compute capability %d.%d, %.1f GiB", gpu.name, gpu.major, gpu.minor,
             (double)gpu.totalGlobalMem / (1 << 30));
    return sentence;
}
