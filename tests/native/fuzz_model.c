/* Fuzz target of everything behind the parser: a file that opens as a model must run. Mutants of whole tiny models
 * are opened, planned, given a small KV pool, and put through prefill and decode with sampling; what the weights have
 * become may make nonsense of the numbers, never of the memory. Linked against the library built with
 * -DLOCALLLM_SANITIZE=ON:
 *
 *     cc -g -fsanitize=address,undefined -I native/include tests/native/fuzz_model.c BUILD/liblocalllm.so */
#define _POSIX_C_SOURCE 200809L
#include "fuzz_main.h"

#include "localllm.h"

static uint64_t n_ran, n_refused;

enum { BLOCKS = 4, BLOCK_SIZE = 16, STEP = 16 };

/* One step of a single sequence whose last token is sampled. */
static int32_t step(ll_runner *runner, int32_t position, int32_t count, const int32_t *tokens) {
    const int32_t blocks[BLOCKS] = {2, 0, 3, 1}, row_start[2] = {0, count}, sample = count - 1;
    ll_batch batch = {.n_rows = 1,
                      .n_tokens = count,
                      .n_samples = 1,
                      .max_blocks = BLOCKS,
                      .tokens = tokens,
                      .row_start = row_start,
                      .row_pos = &position,
                      .blocks = blocks,
                      .samples = &sample};
    ll_sampling how = {.temperature = 1,
                       .top_k = 40,
                       .top_p = 0.9f,
                       .min_p = 0.05f,
                       .repeat_penalty = 1.1f,
                       .seed = 1,
                       .history = tokens,
                       .n_history = count,
                       .n_prompt = count,
                       .n_top = 2};
    int32_t token, top_ids[2];
    float logprob, top[2];
    CHECK(ll_forward(runner, &batch) == LL_OK);
    CHECK(ll_sample(runner, &how, 1, 2, &token, &logprob, top_ids, top) == LL_OK);
    return token;
}

static void run(const ll_model *model) {
    ll_runner_config config = {.device = LL_CPU,
                               .threads = 1,
                               .kv_type = LL_F16,
                               .block_size = BLOCK_SIZE,
                               .n_blocks = BLOCKS,
                               .max_tokens = STEP,
                               .max_rows = 1,
                               .max_samples = 1};
    ll_model_info info;
    ll_plan plan;
    ll_runner *runner;
    ll_model_get_info(model, &info);
    CHECK(ll_plan_runner(model, &config, &plan) == LL_OK);
    if (plan.scratch_bytes + plan.kv_bytes > 1u << 30) return; /* the plan was printed; a user would decline */
    CHECK(ll_runner_open(&runner, model, &config) == LL_OK);
    int32_t tokens[STEP];
    for (int32_t i = 0; i < STEP; i++) tokens[i] = i * 7 % info.n_vocab;
    step(runner, 0, 8, tokens);
    for (int32_t position = 8; position < 12; position++) {
        int32_t token = step(runner, position, 1, tokens);
        CHECK(token >= -1 && token < info.n_vocab);
        tokens[0] = token < 0 ? 0 : token;
    }
    ll_runner_close(runner);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ll_gguf *file;
    ll_model *model = NULL;
    fuzz_write(data, size);
    int status = ll_gguf_open(&file, fuzz_path);
    if (!status) status = ll_model_open(&model, file);
    CHECK((model != NULL) == (status == LL_OK));
    if (status)
        CHECK(strlen(ll_error()) > 10);
    else
        run(model);
    ll_model_close(model);
    ll_gguf_close(file);
    status ? n_refused++ : n_ran++;
    return 0;
}

#ifndef LIBFUZZER
static void fuzz_report(void) {
    printf("ran %llu, refused %llu\n", (unsigned long long)n_ran, (unsigned long long)n_refused);
}
#endif
