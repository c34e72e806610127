/* Drawing tokens from logits, on the host whatever the device. A token is a function of its own logits and its own
 * ll_sampling: never of the batch, the thread count or what was drawn before. */
#ifndef SAMPLE_H
#define SAMPLE_H
#include "localllm.h"
#include "team.h"

/* What is drawn from, by what rules and to where; rows[i].logits names a row of logits, which the caller has checked.
 * Entries of the tops beyond n_top or beyond the vocabulary are -1 and -inf. A row that cannot be drawn: token -1. */
struct draws {
    const float *logits; /* (..., n_vocab) */
    int32_t n_vocab;
    const ll_sampling *rows; /* (n) */
    int32_t n, max_top;
    int32_t *tokens;     /* (n) */
    float *logprobs;     /* (n) */
    int32_t *top_ids;    /* (n, max_top) */
    float *top_logprobs; /* (n, max_top) */
    void *scratch;       /* (threads, sample_scratch(n_vocab)) */
};

/* Bytes of scratch that a thread needs, at any alignment of 8. */
uint64_t sample_scratch(int32_t n_vocab);

/* Draws n tokens, rows shared out over the team; without one (NULL) the caller draws them all. Everything else in
 * `rows` is checked here, before the first draw. */
int sample_rows(struct draws *d, struct team *team);

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011). */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
