/* Drawing tokens from logits, on the host whatever the device. A token is a function of its own logits and its own
 * ll_sampling: never of the batch, the thread count or what was drawn before. */
#ifndef SAMPLE_H
#define SAMPLE_H
#include "localllm.h"

/* Bytes of scratch that sample_rows needs, at any alignment of 8. */
uint64_t sample_scratch(int32_t n_vocab);

/* Draws n tokens; rows[i].logits names a row of logits (..., n_vocab), which the caller has checked. Everything else in
 * `rows` is checked here, before the first draw. tokens and logprobs are (n), top_ids and top_logprobs (n, max_top);
 * entries beyond n_top or beyond the vocabulary are -1 and -inf. A row that cannot be drawn gets the token -1. */
int sample_rows(const float *logits, int32_t n_vocab, const ll_sampling *rows, int32_t n, int32_t max_top,
                int32_t *tokens, float *logprobs, int32_t *top_ids, float *top_logprobs, void *scratch);

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011). */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
