/* The border: arguments are checked here and nowhere further in, calls go inward, failures come back as a code and
 * a sentence. A batch that passes check_batch cannot make an operation read or write outside its buffers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "cpu/float_env.h"
#include "cpu/sample.h"
#include "runner.h"

const char *ll_version(void) { return LL_VERSION; }

const char *ll_abi_hash(void) { return LL_ABI_HASH; }

/* ---- opening ---- */

enum { MAX_THREADS = 1024, MAX_STEP = 1 << 20, MAX_BLOCKS = 1 << 26 };

static int check_range(const char *field, int32_t value, int32_t low, int32_t high) {
    if (value >= low && value <= high) return LL_OK;
    return fail(LL_EINVAL, "%s: expected %d to %d, found %d", field, low, high, value);
}

static int check_config(const ll_runner_config *c) {
    TRY(check_range("device", c->device, LL_CPU, LL_CUDA));
    TRY(check_range("threads", c->threads, 0, MAX_THREADS));
    TRY(check_range("n_blocks", c->n_blocks, 1, MAX_BLOCKS));
    TRY(check_range("max_tokens", c->max_tokens, 1, MAX_STEP));
    TRY(check_range("max_rows", c->max_rows, 1, c->max_tokens));
    TRY(check_range("profile", c->profile, 0, 1));
    return check_range("max_samples", c->max_samples, 1, c->max_tokens);
}

int ll_plan_runner(const ll_model *model, const ll_runner_config *config, ll_plan *out) {
    TRY(check_config(config));
    return config->device == LL_CUDA ? cuda_plan(model, config, out) : cpu_plan(model, config, out);
}

static int open_device(ll_runner *r, const ll_model *model, const ll_runner_config *config) {
    TRY(config->device == LL_CUDA ? cuda_open(&r->device, model, config) : cpu_open(&r->device, model, config));
    if (!config->profile) return LL_OK;
    int status = profile_open(&r->profile, &r->device, config);
    if (status) r->device.close(r->device.self);
    return status;
}

int ll_runner_open(ll_runner **out, const ll_model *model, const ll_runner_config *config) {
    *out = NULL;
    TRY(check_config(config));
    ll_runner *r = calloc(1, sizeof *r);
    if (!r) return fail(LL_ENOMEM, "no memory for a runner");
    r->model = model;
    r->config = *config;
    int status = open_device(r, model, config);
    if (status) {
        free(r);
        return status;
    }
    uint64_t drawing = r->device.team ? (uint64_t)team_threads(r->device.team) : 1;
    r->sample_scratch = malloc(drawing * sample_scratch(model->view.n_vocab));
    if (!r->sample_scratch) {
        ll_runner_close(r);
        return fail(LL_ENOMEM, "no memory for drawing tokens");
    }
    *out = r;
    return LL_OK;
}

void ll_runner_close(ll_runner *runner) {
    if (!runner) return;
    runner->device.close(runner->device.self);
    free(runner->sample_scratch);
    free(runner);
}

int32_t ll_runner_threads(const ll_runner *runner) { return runner->device.threads; }

int32_t ll_runner_prompts_apart(const ll_runner *runner) { return runner->device.prompts_apart; }

int ll_runner_work(const ll_runner *runner, ll_op_work *out) {
    if (!runner->profile) return fail(LL_EINVAL, "profile: this runner was opened without it");
    profile_get(runner->profile, out);
    return LL_OK;
}

/* ---- a step ---- */

static int check_row(const ll_runner *r, const ll_batch *b, int32_t row) {
    int32_t count = b->row_start[row + 1] - b->row_start[row], size = r->config.block_size;
    if (count < 1)
        return fail(LL_EINVAL, "batch.row_start: expected at least one token in row %d, found %d", row, count);
    if (b->row_pos[row] < 0 || b->row_pos[row] > INT32_MAX - count)
        return fail(LL_EINVAL, "batch.row_pos: row %d starts at %d", row, b->row_pos[row]);
    int32_t blocks = (b->row_pos[row] + count - 1) / size + 1;
    if (blocks > b->max_blocks)
        return fail(LL_EINVAL, "batch.blocks: row %d needs %d blocks, found %d", row, blocks, b->max_blocks);
    for (int32_t i = 0; i < blocks; i++) {
        int32_t block = b->blocks[(int64_t)row * b->max_blocks + i];
        if (block < 0 || block >= r->config.n_blocks)
            return fail(LL_EINVAL, "batch.blocks: row %d, entry %d: expected 0 to %d, found %d", row, i,
                        r->config.n_blocks - 1, block);
    }
    return LL_OK;
}

static int check_batch(const ll_runner *r, const ll_batch *b) {
    TRY(check_range("batch.n_rows", b->n_rows, 1, r->config.max_rows));
    TRY(check_range("batch.n_tokens", b->n_tokens, b->n_rows, r->config.max_tokens));
    TRY(check_range("batch.n_samples", b->n_samples, 0, r->config.max_samples));
    TRY(check_range("batch.n_generated", b->n_generated, 0, b->n_tokens));
    TRY(check_range("batch.max_blocks", b->max_blocks, 1, INT32_MAX));
    if (b->row_start[0] != 0 || b->row_start[b->n_rows] != b->n_tokens)
        return fail(LL_EINVAL, "batch.row_start: expected 0 to %d, found %d to %d", b->n_tokens, b->row_start[0],
                    b->row_start[b->n_rows]);
    for (int32_t i = 0; i < b->n_rows; i++) { /* rising, and so inside the batch, before any row is read */
        if (b->row_start[i + 1] <= b->row_start[i] || b->row_start[i + 1] > b->n_tokens)
            return fail(LL_EINVAL, "batch.row_start: expected rising numbers up to %d, found %d after %d", b->n_tokens,
                        b->row_start[i + 1], b->row_start[i]);
        if (b->row_start[i] < b->n_generated && b->row_start[i + 1] > b->n_generated)
            return fail(LL_EINVAL, "batch.n_generated: %d is inside row %d", b->n_generated, i);
        TRY(check_row(r, b, i));
    }
    for (int32_t i = 0; i < b->n_tokens; i++)
        TRY(check_range("batch.tokens", b->tokens[i], 0, r->model->view.n_vocab - 1));
    for (int32_t i = 0; i < b->n_samples; i++)
        TRY(check_range("batch.samples", b->samples[i], i ? b->samples[i - 1] + 1 : 0, b->n_tokens - 1));
    return LL_OK;
}

static int begin(ll_runner *r, enum track track, const ll_batch *batch, struct pass *out) {
    profile_start(r->profile);
    TRY(check_batch(r, batch));
    out->next = 0;
    uint32_t env = float_env_enter();
    int status = r->device.begin(r->device.self, track, batch, &out->step);
    float_env_leave(env);
    return status;
}

static int advance(ll_runner *r, struct pass *p, double seconds) {
    r->n_samples = 0;
    uint32_t env = float_env_enter();
    int status = forward(&r->device, p, seconds);
    float_env_leave(env);
    if (!status) status = ll_gguf_check(r->model->file);
    if (!status && forward_done(&r->device, p)) r->n_samples = p->step.batch.n_samples;
    return status;
}

int ll_forward(ll_runner *runner, const ll_batch *batch) {
    struct pass whole;
    runner->n_samples = 0;
    TRY(begin(runner, TRACK_WHOLE, batch, &whole));
    return advance(runner, &whole, INFINITY);
}

int ll_begin(ll_runner *runner, const ll_batch *batch) {
    runner->parts_left = false;
    TRY(begin(runner, TRACK_PARTS, batch, &runner->parts));
    runner->parts_left = true;
    return LL_OK;
}

int ll_advance(ll_runner *runner, double seconds, int32_t *done) {
    *done = 1;
    if (!runner->parts_left) return fail(LL_EINVAL, "advance: no batch has been begun");
    if (!(seconds >= 0)) return fail(LL_EINVAL, "seconds: expected 0 or more, found %g", seconds);
    profile_start(runner->profile);
    int status = advance(runner, &runner->parts, seconds);
    runner->parts_left = !status && !forward_done(&runner->device, &runner->parts);
    *done = !runner->parts_left;
    return status;
}

int ll_logits(ll_runner *runner, float *out) {
    const float *logits = runner->device.logits(runner->device.self);
    if (!logits) return LL_EDEVICE;
    memcpy(out, logits, (size_t)runner->n_samples * (size_t)runner->model->view.n_vocab * sizeof *out);
    return LL_OK;
}

/* ---- sampling ---- */

static int sample(struct draws *d, int32_t n_logits, struct team *team) {
    for (int32_t i = 0; i < d->n; i++) TRY(check_range("sampling.logits", d->rows[i].logits, 0, n_logits - 1));
    uint32_t env = float_env_enter();
    int status = sample_rows(d, team);
    float_env_leave(env);
    return status;
}

int ll_sample(ll_runner *runner, const ll_sampling *rows, int32_t n, int32_t max_top, int32_t *tokens, float *logprobs,
              int32_t *top_ids, float *top_logprobs) {
    profile_start(runner->profile);
    const float *logits = runner->device.logits(runner->device.self);
    if (!logits) return LL_EDEVICE;
    struct draws d = {logits,       runner->model->view.n_vocab, rows, n, max_top, tokens, logprobs, top_ids,
                      top_logprobs, runner->sample_scratch};
    int status = sample(&d, runner->n_samples, runner->device.team);
    profile_stop(runner->profile, LL_OP_SAMPLE);
    return status;
}

int ll_test_sample(const float *logits, int32_t n_vocab, const ll_sampling *rows, int32_t n, int32_t max_top,
                   int32_t *tokens, float *logprobs, int32_t *top_ids, float *top_logprobs) {
    TRY(check_range("n_vocab", n_vocab, 1, 1 << 24));
    void *scratch = malloc(sample_scratch(n_vocab));
    if (!scratch) return fail(LL_ENOMEM, "no memory for sampling");
    struct draws d = {logits, n_vocab, rows, n, max_top, tokens, logprobs, top_ids, top_logprobs, scratch};
    int status = sample(&d, INT32_MAX, NULL);
    free(scratch);
    return status;
}
