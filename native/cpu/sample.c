/* The sampler. The steps are those of ll_sampling, in its order: mask, bias, penalties, then either the largest logit
 * (temperature 0) or top_k, top_p, min_p, temperature and one draw. Equal logits rank by the lower id.
 *
 * Sums are doubles in a fixed order: of candidates from the best down where a cut needed them in order, otherwise by
 * id. A row that holds NaN or +inf, or in which nothing is left with a probability, is answered by the token -1; single
 * logits of -inf are tokens that cannot be drawn. Every id that comes from outside is checked before it is an index. */
#include "sample.h"

#include <math.h>
#include <string.h>

#include "status.h"

enum { REPEAT_WINDOW = 64, SCAN_BLOCK = 512 };

struct candidate {
    float logit;
    int32_t id;
};

/* ---- random numbers ---- */

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* Uniform in [0, 1), 53 bits of it. */
static double uniform(const ll_sampling *s) {
    const uint32_t counter[4] = {s->position, s->choice, 0, 0};
    const uint32_t key[2] = {(uint32_t)s->seed, (uint32_t)(s->seed >> 32)};
    uint32_t random[4];
    philox4x32(counter, key, random);
    const uint64_t bits = ((uint64_t)random[1] << 32 | random[0]) >> 11;
    return (double)bits * 0x1p-53;
}

/* ---- the largest logit ---- */

/* Integers that order as their floats do, so that the scan is a plain integer maximum that compilers vectorise. Adding
 * zero makes -0 equal to +0. NaNs fall outside [key(-inf), key(+inf)]. */
static inline int32_t order_key(float value) {
    int32_t bits;
    value += 0.0f;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

/* The id of the first largest logit, or -1 when the row holds NaN or +inf, or nothing above -inf. */
static int32_t find_largest(const float *logits, int32_t n) {
    const int32_t minus_inf = order_key(-INFINITY), plus_inf = order_key(INFINITY);
    int32_t best = minus_inf, lowest = minus_inf, best_block = -1;
    for (int32_t start = 0; start < n; start += SCAN_BLOCK) {
        const int32_t count = n - start < SCAN_BLOCK ? n - start : SCAN_BLOCK;
        int32_t high = INT32_MIN, low = INT32_MAX;
        for (int32_t i = 0; i < count; i++) {
            const int32_t key = order_key(logits[start + i]);
            high = key > high ? key : high;
            low = key < low ? key : low;
        }
        lowest = low < lowest ? low : lowest;
        if (high > best) best = high, best_block = start;
    }
    if (lowest < minus_inf || best >= plus_inf || best_block < 0) return -1;
    int32_t id = best_block;
    while (order_key(logits[id]) != best) id++;
    return id;
}

/* ---- the best few, in order ---- */

static inline int worse(struct candidate a, struct candidate b) {
    return a.logit < b.logit || (a.logit == b.logit && a.id > b.id);
}

/* Restores the heap below `at`: the root is the worst of n. */
static void sift_down(struct candidate *heap, int32_t n, int32_t at) {
    const struct candidate moved = heap[at];
    for (int64_t child = 2 * (int64_t)at + 1; child < n; child = 2 * (int64_t)at + 1) {
        if (child + 1 < n && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], moved)) break;
        heap[at] = heap[child];
        at = (int32_t)child;
    }
    heap[at] = moved;
}

static void make_heap(struct candidate *heap, int32_t n) {
    for (int32_t at = n / 2 - 1; at >= 0; at--) sift_down(heap, n, at);
}

/* A heap becomes a list from the best down. */
static void sort_heap(struct candidate *heap, int32_t n) {
    for (int32_t end = n - 1; end > 0; end--) {
        const struct candidate worst = heap[0];
        heap[0] = heap[end];
        heap[end] = worst;
        sift_down(heap, end, 0);
    }
}

/* The k best logits above -inf, from the best down; returns how many there are. */
static int32_t select_best(const float *logits, int32_t n, int32_t k, struct candidate *out) {
    int32_t count = 0, id = 0;
    for (; id < n && count < k; id++)
        if (logits[id] > -INFINITY) out[count++] = (struct candidate){logits[id], id};
    make_heap(out, count);
    if (count > 0)
        for (float threshold = out[0].logit; id < n; id++)
            if (logits[id] > threshold) { /* an equal one has the higher id and loses */
                out[0] = (struct candidate){logits[id], id};
                sift_down(out, count, 0);
                threshold = out[0].logit;
            }
    sort_heap(out, count);
    return count;
}

/* ---- mask, bias, penalties ---- */

static int adjusts(const ll_sampling *s) {
    return s->mask || s->n_bias > 0 || s->repeat_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0;
}

static void apply_mask(const uint32_t *mask, float *logits, int32_t n_vocab) {
    for (int32_t start = 0; start < n_vocab; start += 32) {
        const uint32_t word = mask[start / 32];
        if (word == UINT32_MAX) continue;
        const int32_t count = n_vocab - start < 32 ? n_vocab - start : 32;
        for (int32_t i = 0; i < count; i++)
            if (!(word >> i & 1)) logits[start + i] = -INFINITY;
    }
}

/* Every distinct token of the window once: positive logits are divided, negative ones multiplied. */
static void penalize_repeats(const ll_sampling *s, float *logits, int32_t *seen) {
    const int32_t first = s->n_history > REPEAT_WINDOW ? s->n_history - REPEAT_WINDOW : 0;
    for (int32_t i = first; i < s->n_history; i++) seen[s->history[i]] = 0;
    for (int32_t i = first; i < s->n_history; i++) {
        const int32_t id = s->history[i];
        if (seen[id]++) continue;
        logits[id] = logits[id] > 0 ? logits[id] / s->repeat_penalty : logits[id] * s->repeat_penalty;
    }
}

static void penalize_output(const ll_sampling *s, float *logits, int32_t *uses) {
    for (int32_t i = s->n_prompt; i < s->n_history; i++) uses[s->history[i]] = 0;
    for (int32_t i = s->n_prompt; i < s->n_history; i++) uses[s->history[i]]++;
    for (int32_t i = s->n_prompt; i < s->n_history; i++) {
        const int32_t id = s->history[i];
        if (uses[id] == 0) continue;
        logits[id] -= (float)uses[id] * s->frequency_penalty + s->presence_penalty;
        uses[id] = 0;
    }
}

/* `counts` holds one integer per token, in any state. */
static void adjust(const ll_sampling *s, float *logits, int32_t n_vocab, int32_t *counts) {
    if (s->mask) apply_mask(s->mask, logits, n_vocab);
    for (int32_t i = 0; i < s->n_bias; i++) logits[s->bias_ids[i]] += s->bias[i];
    if (s->repeat_penalty != 1) penalize_repeats(s, logits, counts);
    if (s->presence_penalty != 0 || s->frequency_penalty != 0) penalize_output(s, logits, counts);
}

/* ---- cuts and the draw ---- */

/* exp(logit - largest) summed by id. */
static double sum_weights(const float *logits, int32_t n, double largest) {
    double sum = 0;
    for (int32_t id = 0; id < n; id++) sum += exp((double)logits[id] - largest);
    return sum;
}

/* All that top_p and min_p can keep, from the best down. What has less than its n-th share of the mass that top_p drops
 * is in the dropped tail whatever the order, so only the rest is sorted; halving keeps clear of rounding. */
static int32_t select_likely(const ll_sampling *s, const float *logits, int32_t n, double largest, double total,
                             struct candidate *out) {
    const double tail = s->top_p < 1 ? 0.5 * (1.0 - (double)s->top_p) * total / n : 0;
    const double least = tail > (double)s->min_p ? tail : (double)s->min_p;
    const float bound = (float)(largest + log(least) - 1e-3 - 1e-6 * fabs(largest)); /* cheap, and below the true one */
    int32_t count = 0;
    for (int32_t id = 0; id < n; id++)
        if (logits[id] >= bound && logits[id] > -INFINITY) out[count++] = (struct candidate){logits[id], id};
    make_heap(out, count);
    sort_heap(out, count);
    return count;
}

/* How many of the sorted candidates top_p, then min_p keep; at least one. total is the mass top_p refers to. */
static int32_t cut(const ll_sampling *s, const struct candidate *c, int32_t count, double total) {
    int32_t kept = count;
    if (s->top_p < 1) {
        double mass = 0;
        for (kept = 0; kept < count;) {
            mass += exp((double)c[kept++].logit - (double)c[0].logit);
            if (mass >= (double)s->top_p * total) break;
        }
    }
    while (kept > 1 && exp((double)c[kept - 1].logit - (double)c[0].logit) < (double)s->min_p) kept--;
    return kept;
}

/* One of the candidates, by weights exp((logit - largest) / temperature) added from the first on. */
static int32_t draw_sorted(const ll_sampling *s, const struct candidate *c, int32_t count) {
    const double scale = 1.0 / (double)s->temperature, largest = (double)c[0].logit;
    double total = 0, mass = 0;
    for (int32_t i = 0; i < count; i++) total += exp(((double)c[i].logit - largest) * scale);
    const double target = uniform(s) * total;
    for (int32_t i = 0; i < count; i++) {
        mass += exp(((double)c[i].logit - largest) * scale);
        if (mass > target) return c[i].id;
    }
    return c[0].id;
}

/* The same over the whole vocabulary, by id. */
static int32_t draw_all(const ll_sampling *s, const float *logits, int32_t n, int32_t best) {
    const double scale = 1.0 / (double)s->temperature, largest = (double)logits[best];
    double total = 0, mass = 0;
    for (int32_t id = 0; id < n; id++) total += exp(((double)logits[id] - largest) * scale);
    const double target = uniform(s) * total;
    for (int32_t id = 0; id < n; id++) {
        mass += exp(((double)logits[id] - largest) * scale);
        if (mass > target) return id;
    }
    return best;
}

static int32_t draw(const ll_sampling *s, const float *logits, int32_t n, struct candidate *pool) {
    const int32_t best = find_largest(logits, n);
    if (best < 0 || s->temperature == 0) return best;
    int32_t count;
    double total = 0;
    if (s->top_k > 0 && s->top_k < n) {
        count = select_best(logits, n, s->top_k, pool);
        for (int32_t i = 0; i < count; i++) total += exp((double)pool[i].logit - (double)pool[0].logit);
    } else if (s->top_p < 1 || s->min_p > 0) {
        const double largest = (double)logits[best];
        total = s->top_p < 1 ? sum_weights(logits, n, largest) : 1;
        count = select_likely(s, logits, n, largest, total, pool);
    } else {
        return draw_all(s, logits, n, best);
    }
    return draw_sorted(s, pool, cut(s, pool, count, total));
}

/* ---- log probabilities ---- */

/* Of the model's own distribution: the logits as they came. `best` is the id of the largest. */
static void report(const ll_sampling *s, const float *logits, int32_t n, int32_t best, int32_t token, float *logprob,
                   int32_t *top_ids, float *top_logprobs, struct candidate *pool) {
    const double largest = (double)logits[best], log_sum = log(sum_weights(logits, n, largest));
    *logprob = (float)((double)logits[token] - largest - log_sum);
    const int32_t count = s->n_top > 0 ? select_best(logits, n, s->n_top < n ? s->n_top : n, pool) : 0;
    for (int32_t i = 0; i < count; i++) {
        top_ids[i] = pool[i].id;
        top_logprobs[i] = (float)((double)pool[i].logit - largest - log_sum);
    }
}

/* ---- the border ---- */

static int check_ids(const char *what, int32_t row, const int32_t *ids, int32_t n, int32_t n_vocab) {
    if (n < 0 || (n > 0 && !ids)) return fail(LL_EINVAL, "row %d: %s has %d entries", row, what, n);
    for (int32_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= n_vocab)
            return fail(LL_EINVAL, "row %d: %s[%d] is token %d, expected 0 to %d", row, what, i, ids[i], n_vocab - 1);
    return LL_OK;
}

static int check_number(const char *what, int32_t row, float value, float low, float high) {
    if (value >= low && value <= high) return LL_OK;
    return fail(LL_EINVAL, "row %d: %s is %g, expected %g to %g", row, what, (double)value, (double)low, (double)high);
}

static int check_row(const ll_sampling *s, int32_t row, int32_t n_vocab, int32_t max_top) {
    const float most = 1e30f;
    TRY(check_number("temperature", row, s->temperature, 0, most));
    TRY(check_number("top_p", row, s->top_p, 0, 1));
    TRY(check_number("min_p", row, s->min_p, 0, 1));
    TRY(check_number("repeat_penalty", row, s->repeat_penalty, 0, most));
    TRY(check_number("presence_penalty", row, s->presence_penalty, -most, most));
    TRY(check_number("frequency_penalty", row, s->frequency_penalty, -most, most));
    if (s->top_k < 0) return fail(LL_EINVAL, "row %d: top_k is %d, expected 0 or more", row, s->top_k);
    if (s->n_top < -1 || s->n_top > max_top)
        return fail(LL_EINVAL, "row %d: n_top is %d, expected -1 to %d", row, s->n_top, max_top);
    TRY(check_ids("history", row, s->history, s->n_history, n_vocab));
    if (s->n_prompt < 0 || s->n_prompt > s->n_history)
        return fail(LL_EINVAL, "row %d: n_prompt is %d, expected 0 to %d", row, s->n_prompt, s->n_history);
    TRY(check_ids("bias_ids", row, s->bias_ids, s->n_bias, n_vocab));
    if (s->n_bias > 0 && !s->bias) return fail(LL_EINVAL, "row %d: bias is missing", row);
    return LL_OK; /* a bias or penalty that makes the row NaN or +inf costs this row alone: it gets -1 */
}

static uint64_t pad_to_8(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

uint64_t sample_scratch(int32_t n_vocab) {
    return pad_to_8((uint64_t)n_vocab * sizeof(float)) + (uint64_t)n_vocab * sizeof(struct candidate);
}

static void draw_row(void *arg, int32_t row, int32_t worker) {
    const struct draws *d = arg;
    const ll_sampling *s = &d->rows[row];
    const int32_t n_vocab = d->n_vocab;
    const float *raw = d->logits + (int64_t)s->logits * n_vocab, *use = raw;
    int32_t *ids = d->top_ids + (int64_t)row * d->max_top;
    float *tops = d->top_logprobs + (int64_t)row * d->max_top;
    uint8_t *scratch = (uint8_t *)d->scratch + (uint64_t)worker * sample_scratch(n_vocab);
    float *adjusted = (float *)(void *)scratch;
    void *pool = scratch + pad_to_8((uint64_t)n_vocab * sizeof(float)); /* counts first, candidates later */
    d->tokens[row] = -1;
    d->logprobs[row] = -INFINITY;
    for (int32_t i = 0; i < d->max_top; i++) ids[i] = -1, tops[i] = -INFINITY;
    if (adjusts(s)) {
        if (find_largest(raw, n_vocab) < 0) return; /* judged before a mask can hide what is not finite */
        memcpy(adjusted, raw, (size_t)n_vocab * sizeof(float));
        adjust(s, adjusted, n_vocab, pool);
        use = adjusted;
    }
    d->tokens[row] = draw(s, use, n_vocab, pool);
    if (d->tokens[row] >= 0 && s->n_top >= 0)
        report(s, raw, n_vocab, find_largest(raw, n_vocab), d->tokens[row], &d->logprobs[row], ids, tops, pool);
}

int sample_rows(struct draws *d, struct team *team) {
    if (d->n < 0 || d->max_top < 0 || d->n_vocab < 1)
        return fail(LL_EINVAL, "%d rows, %d tops, %d tokens cannot be sampled", d->n, d->max_top, d->n_vocab);
    for (int32_t row = 0; row < d->n; row++) TRY(check_row(&d->rows[row], row, d->n_vocab, d->max_top));
    team_run(team, d->n, draw_row, d);
    return LL_OK;
}
