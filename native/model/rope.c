#include "rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "quant/formats.h"

enum scaling { SCALING_NONE, SCALING_LINEAR, SCALING_YARN };

struct rope_keys {
    enum scaling scaling;
    float base, factor, attn_factor, beta_fast, beta_slow;
    uint32_t dims, trained_ctx; /* trained_ctx: the context before YaRN stretched it */
};

static const char *key_of(char *buffer, size_t size, const char *arch, const char *name) {
    snprintf(buffer, size, "%s.rope.%s", arch, name);
    return buffer;
}

static int read_scaling(const ll_gguf *file, const char *arch, struct rope_keys *k) {
    char key[128], kind[32];
    float old_linear;
    TRY(gguf_string(file, key_of(key, sizeof key, arch, "scaling.type"), false, kind, sizeof kind));
    if (!kind[0] || !strcmp(kind, "none")) {
        k->scaling = SCALING_NONE;
    } else if (!strcmp(kind, "linear")) {
        k->scaling = SCALING_LINEAR;
    } else if (!strcmp(kind, "yarn")) {
        k->scaling = SCALING_YARN;
    } else {
        return fail(LL_EUNSUPPORTED, "%s: key %s: expected none, linear or yarn, found a scaling that is not built",
                    gguf_path(file), key);
    }
    TRY(gguf_f32(file, key_of(key, sizeof key, arch, "scale_linear"), false, 1.0f, &old_linear));
    TRY(gguf_f32(file, key_of(key, sizeof key, arch, "scaling.factor"), false, old_linear, &k->factor));
    if (!kind[0] && k->factor != 1.0f) k->scaling = SCALING_LINEAR; /* files older than the key scaling.type */
    if (k->scaling != SCALING_NONE && !(k->factor > 0.0f && isfinite(k->factor)))
        return fail(LL_EFORMAT, "%s: key %s: expected a positive number, found %g", gguf_path(file), key,
                    (double)k->factor);
    return LL_OK;
}

static int read_keys(const ll_gguf *file, const char *arch, const struct model *m, struct rope_keys *k) {
    char key[128];
    TRY(gguf_u32(file, key_of(key, sizeof key, arch, "dimension_count"), false, (uint32_t)m->head_dim, &k->dims));
    if (k->dims == 0 || k->dims % 2 || k->dims > (uint32_t)m->head_dim)
        return fail(LL_EFORMAT, "%s: key %s: expected an even number up to the head's %d dimensions, found %u",
                    gguf_path(file), key, m->head_dim, k->dims);
    TRY(gguf_f32(file, key_of(key, sizeof key, arch, "freq_base"), false, 10000.0f, &k->base));
    if (!(k->base > 1.0f && isfinite(k->base)))
        return fail(LL_EFORMAT, "%s: key %s: expected a number above 1, found %g", gguf_path(file), key,
                    (double)k->base);
    TRY(read_scaling(file, arch, k));
    TRY(gguf_u32(file, key_of(key, sizeof key, arch, "scaling.original_context_length"), false, (uint32_t)m->n_ctx,
                 &k->trained_ctx));
    TRY(gguf_f32(file, key_of(key, sizeof key, arch, "scaling.attn_factor"), false, 1.0f, &k->attn_factor));
    TRY(gguf_f32(file, key_of(key, sizeof key, arch, "scaling.yarn_beta_fast"), false, 32.0f, &k->beta_fast));
    return gguf_f32(file, key_of(key, sizeof key, arch, "scaling.yarn_beta_slow"), false, 1.0f, &k->beta_slow);
}

/* The pair that turns `turns` times over the trained context (YaRN, section 3.2). */
static double pair_of_turns(const struct rope_keys *k, double turns) {
    const double pi = 3.14159265358979323846;
    return k->dims * log(k->trained_ctx / (turns * 2 * pi)) / (2 * log((double)k->base));
}

/* Fast pairs keep their frequency, slow ones are stretched by the factor, those between are blended. */
static void scale_yarn(const struct rope_keys *k, float *freqs) {
    double low = floor(pair_of_turns(k, k->beta_fast)), high = ceil(pair_of_turns(k, k->beta_slow));
    low = fmax(low, 0);
    high = fmin(high, (double)k->dims - 1);
    if (high == low) high += 0.001;
    for (uint32_t i = 0; i < k->dims / 2; i++) {
        double stretched = fmin(fmax((i - low) / (high - low), 0), 1);
        double f = freqs[i];
        freqs[i] = (float)(f / k->factor * stretched + f * (1 - stretched));
    }
}

/* Llama 3.1 and later store one divisor per frequency in a tensor. */
static int divide_by_factors(const ll_gguf *file, const struct rope_keys *k, float *freqs) {
    ll_tensor t;
    float factor;
    if (!gguf_find_tensor(file, "rope_freqs.weight", &t)) return LL_OK;
    if (t.type != LL_F32 || t.n_dims != 1 || t.dims[0] != k->dims / 2)
        return fail(LL_EFORMAT, "%s: tensor rope_freqs.weight: expected %u values of F32, found %llu of type %d",
                    gguf_path(file), k->dims / 2, (unsigned long long)t.dims[0], t.type);
    for (uint32_t i = 0; i < k->dims / 2; i++) {
        memcpy(&factor, (const uint8_t *)t.data + 4 * (size_t)i, 4);
        if (!(factor > 0.0f && isfinite(factor)))
            return fail(LL_EFORMAT, "%s: tensor rope_freqs.weight: expected positive factors, found %g at %u",
                        gguf_path(file), (double)factor, i);
        freqs[i] /= factor;
    }
    return LL_OK;
}

int rope_init(struct model *m, const ll_gguf *file, const char *arch, float *freqs) {
    struct rope_keys k;
    TRY(read_keys(file, arch, m, &k));
    m->rope_dims = (int32_t)k.dims;
    m->rope_magnitude = k.attn_factor;
    m->rope_freqs = freqs;
    for (uint32_t i = 0; i < k.dims / 2; i++) freqs[i] = (float)(1.0 / pow(k.base, 2.0 * i / k.dims));
    if (k.scaling == SCALING_LINEAR) {
        for (uint32_t i = 0; i < k.dims / 2; i++) freqs[i] /= k.factor;
    } else if (k.scaling == SCALING_YARN) {
        scale_yarn(&k, freqs);
        if (k.factor > 1.0f) m->rope_magnitude *= (float)(1.0 + 0.1 * log(k.factor));
    }
    return divide_by_factors(file, &k, freqs);
}

void rope_rotation(const struct model *m, int32_t position, float *out) {
    for (int32_t i = 0; i < m->rope_dims / 2; i++) {
        double angle = (double)position * m->rope_freqs[i];
        out[2 * i] = (float)cos(angle) * m->rope_magnitude;
        out[2 * i + 1] = (float)sin(angle) * m->rope_magnitude;
    }
}
