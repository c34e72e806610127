/* From a GGUF file and a row of the architecture table to a model: numbers are read and checked as a set, then every
 * weight is bound by name and its shape compared with the numbers. A weight in the file that nothing would use is
 * refused, because leaving it out would run a different model from the one in the file. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch.h"
#include "base/printable.h"
#include "base/status.h"
#include "gguf/gguf.h"
#include "quant/formats.h"
#include "quant/types.h"
#include "rope.h"

enum { MAX_LAYERS = 1024, MAX_WIDTH = 1 << 20, MAX_VOCAB = 1 << 24, NAME = 128 };

struct binder {
    struct ll_model *m;
    const ll_gguf *file;
    const struct arch *arch;
    uint64_t used_floats, max_floats; /* of m->vectors */
    const void **bound;               /* (n_bound) data of the tensors that have found their use: no two share it */
    int64_t n_bound;
    uint64_t bytes_of[LL_TYPE_LIMIT]; /* per type, to tell which one dominates */
};

/* ---- numbers ---- */

static int read_number(const ll_gguf *file, const char *arch, const char *name, bool required, uint32_t fallback,
                       uint32_t limit, int32_t *out) {
    char key[NAME];
    uint32_t value;
    snprintf(key, sizeof key, "%s.%s", arch, name);
    TRY(gguf_u32(file, key, required, fallback, &value));
    if (value == 0 || value > limit)
        return fail(LL_EFORMAT, "%s: key %s: expected 1 to %u, found %u", gguf_path(file), key, limit, value);
    *out = (int32_t)value;
    return LL_OK;
}

/* Keys whose presence means a block that is not built. */
static int refuse_features(const ll_gguf *file, const char *arch) {
    static const char *const counts[] = {"expert_count", "attention.sliding_window_pattern"};
    char key[NAME];
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        ll_kv kv;
        uint32_t value = 1;
        snprintf(key, sizeof key, "%s.%s", arch, counts[i]);
        if (!gguf_find_kv(file, key, &kv)) continue;
        if (kv.type != LL_KV_ARRAY) TRY(gguf_u32(file, key, true, 0, &value));
        if (value) return fail(LL_EUNSUPPORTED, "%s: key %s: this feature is not built", gguf_path(file), key);
    }
    bool causal;
    snprintf(key, sizeof key, "%s.attention.causal", arch);
    TRY(gguf_bool(file, key, true, &causal));
    if (!causal) return fail(LL_EUNSUPPORTED, "%s: key %s: only causal attention is built", gguf_path(file), key);
    return LL_OK;
}

static int read_numbers(struct model *v, const ll_gguf *file, const char *arch) {
    int32_t value_length = 0;
    char key[NAME];
    TRY(read_number(file, arch, "block_count", true, 0, MAX_LAYERS, &v->n_layers));
    TRY(read_number(file, arch, "context_length", true, 0, INT32_MAX, &v->n_ctx));
    TRY(read_number(file, arch, "embedding_length", true, 0, MAX_WIDTH, &v->n_embd));
    TRY(read_number(file, arch, "feed_forward_length", true, 0, MAX_WIDTH, &v->n_ff));
    TRY(read_number(file, arch, "attention.head_count", true, 0, 4096, &v->n_heads));
    TRY(read_number(file, arch, "attention.head_count_kv", false, (uint32_t)v->n_heads, 4096, &v->n_kv_heads));
    if (v->n_heads % v->n_kv_heads)
        return fail(LL_EFORMAT, "%s: key %s.attention.head_count_kv: expected a divisor of %d heads, found %d",
                    gguf_path(file), arch, v->n_heads, v->n_kv_heads);
    uint32_t head_dim = (uint32_t)(v->n_embd / v->n_heads);
    TRY(read_number(file, arch, "attention.key_length", false, head_dim, 4096, &v->head_dim));
    TRY(read_number(file, arch, "attention.value_length", false, (uint32_t)v->head_dim, 4096, &value_length));
    if (value_length != v->head_dim)
        return fail(LL_EUNSUPPORTED, "%s: key %s.attention.value_length: expected the key length %d, found %d",
                    gguf_path(file), arch, v->head_dim, value_length);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    TRY(gguf_f32(file, key, true, 0, &v->norm_eps));
    if (!(v->norm_eps >= 0 && v->norm_eps < 1))
        return fail(LL_EFORMAT, "%s: key %s: expected 0 to 1, found %g", gguf_path(file), key, (double)v->norm_eps);
    v->attn_scale = (float)(1.0 / sqrt(v->head_dim));
    return refuse_features(file, arch);
}

/* ---- weights ---- */

static int find(struct binder *b, const char *name, bool required, ll_tensor *t) {
    if (gguf_find_tensor(b->file, name, t)) {
        if (!t->data && t->bytes == 0)
            return fail(LL_EUNSUPPORTED, "%s: tensor %s: type %d is not built", gguf_path(b->file), name, t->type);
        b->bound[b->n_bound++] = t->data;
        b->m->weight_bytes += t->bytes;
        b->m->n_params += t->dims[0] * t->dims[1];
        b->bytes_of[t->type] += t->bytes;
        return LL_OK;
    }
    t->data = NULL;
    return required ? fail(LL_EFORMAT, "%s: tensor %s is missing", gguf_path(b->file), name) : LL_OK;
}

static int bind_matrix(struct binder *b, const char *name, bool required, int32_t rows, int32_t cols,
                       struct tensor *out) {
    ll_tensor t;
    memset(out, 0, sizeof *out);
    TRY(find(b, name, required, &t));
    if (!t.data) return LL_OK;
    if (t.n_dims != 2 || t.dims[0] != (uint64_t)cols || t.dims[1] != (uint64_t)rows)
        return fail(LL_EFORMAT, "%s: tensor %s: expected %d x %d, found %llu x %llu in %d dimensions",
                    gguf_path(b->file), name, cols, rows, (unsigned long long)t.dims[0], (unsigned long long)t.dims[1],
                    t.n_dims);
    *out = (struct tensor){t.data, t.type, rows, cols, (int64_t)(t.bytes / (uint64_t)rows)};
    return LL_OK;
}

/* A norm or a bias: copied as float32, so that neither its type nor its alignment matters later. */
static int bind_vector(struct binder *b, const char *name, bool required, int32_t count, const float **out) {
    ll_tensor t;
    *out = NULL;
    TRY(find(b, name, required, &t));
    if (!t.data) return LL_OK;
    if (t.n_dims != 1 || t.dims[0] != (uint64_t)count)
        return fail(LL_EFORMAT, "%s: tensor %s: expected %d values, found %llu in %d dimensions", gguf_path(b->file),
                    name, count, (unsigned long long)t.dims[0], t.n_dims);
    float *to = b->m->vectors + b->used_floats;
    b->used_floats += (uint64_t)count;
    decode_row(t.type, t.data, count, to);
    *out = to;
    return LL_OK;
}

enum bias { BIAS_OPTIONAL, BIAS_REQUIRED };

static int bind_linear(struct binder *b, int32_t layer, const char *name, enum bias bias, int32_t rows, int32_t cols,
                       struct linear *out) {
    char full[NAME];
    snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    TRY(bind_matrix(b, full, true, rows, cols, &out->w));
    snprintf(full, sizeof full, "blk.%d.%s.bias", layer, name);
    return bind_vector(b, full, bias == BIAS_REQUIRED, rows, &out->bias);
}

static int bind_norm(struct binder *b, int32_t layer, const char *name, bool required, int32_t count,
                     const float **out) {
    char full[NAME];
    snprintf(full, sizeof full, "blk.%d.%s.weight", layer, name);
    return bind_vector(b, full, required, count, out);
}

static int bind_layer(struct binder *b, int32_t i, struct layer *l) {
    const struct model *v = &b->m->view;
    const struct arch *a = b->arch;
    int32_t embd = v->n_embd, q_rows = v->n_heads * v->head_dim, kv_rows = v->n_kv_heads * v->head_dim;
    enum bias qkv = a->qkv_bias ? BIAS_REQUIRED : BIAS_OPTIONAL;
    TRY(bind_norm(b, i, "attn_norm", true, embd, &l->attn_norm));
    TRY(bind_norm(b, i, "ffn_norm", true, embd, &l->ffn_norm));
    if (a->head_norm) {
        TRY(bind_norm(b, i, "attn_q_norm", true, v->head_dim, &l->q_norm));
        TRY(bind_norm(b, i, "attn_k_norm", true, v->head_dim, &l->k_norm));
    }
    TRY(bind_linear(b, i, "attn_q", qkv, q_rows, embd, &l->q));
    TRY(bind_linear(b, i, "attn_k", qkv, kv_rows, embd, &l->k));
    TRY(bind_linear(b, i, "attn_v", qkv, kv_rows, embd, &l->v));
    TRY(bind_linear(b, i, "attn_output", BIAS_OPTIONAL, embd, q_rows, &l->o));
    TRY(bind_linear(b, i, "ffn_gate", BIAS_OPTIONAL, v->n_ff, embd, &l->gate));
    TRY(bind_linear(b, i, "ffn_up", BIAS_OPTIONAL, v->n_ff, embd, &l->up));
    return bind_linear(b, i, "ffn_down", BIAS_OPTIONAL, embd, v->n_ff, &l->down);
}

static int bind_ends(struct binder *b) {
    struct model *v = &b->m->view;
    ll_tensor t;
    if (!gguf_find_tensor(b->file, "token_embd.weight", &t))
        return fail(LL_EFORMAT, "%s: tensor token_embd.weight is missing", gguf_path(b->file));
    if (t.dims[1] == 0 || t.dims[1] > MAX_VOCAB)
        return fail(LL_EFORMAT, "%s: tensor token_embd.weight: expected 1 to %d rows, found %llu", gguf_path(b->file),
                    MAX_VOCAB, (unsigned long long)t.dims[1]);
    v->n_vocab = (int32_t)t.dims[1];
    TRY(bind_matrix(b, "token_embd.weight", true, v->n_vocab, v->n_embd, &v->embed));
    TRY(bind_vector(b, "output_norm.weight", true, v->n_embd, &v->out_norm));
    TRY(bind_matrix(b, "output.weight", false, v->n_vocab, v->n_embd, &v->head.w));
    if (!v->head.w.data) v->head.w = v->embed;
    return bind_vector(b, "output.bias", false, v->n_vocab, &v->head.bias);
}

/* Known tensors that carry no weight: rope.c reads the first, nobody reads the second. */
static bool is_harmless(const ll_tensor *t) {
    static const char freqs[] = "rope_freqs.weight", rotations[] = "attn_rot_embd.weight";
    size_t n = sizeof rotations - 1;
    if (t->name_len == sizeof freqs - 1 && !memcmp(t->name, freqs, sizeof freqs - 1)) return true;
    return t->name_len > n && !memcmp(t->name + t->name_len - n, rotations, n);
}

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)*(const void *const *)a, y = (uintptr_t)*(const void *const *)b;
    return (x > y) - (x < y);
}

static int refuse_unused(const struct binder *b) {
    qsort(b->bound, (size_t)b->n_bound, sizeof *b->bound, by_address);
    for (int64_t i = 0; i < ll_gguf_tensor_count(b->file); i++) {
        ll_tensor t;
        TRY(ll_gguf_tensor(b->file, i, &t));
        if (is_harmless(&t) || bsearch(&t.data, b->bound, (size_t)b->n_bound, sizeof *b->bound, by_address)) continue;
        char name[NAME];
        return fail(LL_EUNSUPPORTED,
                    "%s: tensor %s: architecture %s has no use for it, so this file needs a feature that is not built",
                    gguf_path(b->file), printable(name, sizeof name, t.name, t.name_len), b->arch->name);
    }
    return LL_OK;
}

/* Every 1-D tensor of the file could become a vector; the rope frequencies come on top. */
static int take_vectors(struct binder *b) {
    b->max_floats = (uint64_t)b->m->view.head_dim;
    for (int64_t i = 0; i < ll_gguf_tensor_count(b->file); i++) {
        ll_tensor t;
        TRY(ll_gguf_tensor(b->file, i, &t));
        if (t.n_dims == 1 && t.data) b->max_floats += t.dims[0];
    }
    b->m->vectors = calloc(b->max_floats, sizeof(float));
    b->m->layers = calloc((size_t)b->m->view.n_layers, sizeof *b->m->layers);
    b->bound = calloc((size_t)ll_gguf_tensor_count(b->file) + 1, sizeof *b->bound);
    if (!b->m->vectors || !b->m->layers || !b->bound)
        return fail(LL_ENOMEM, "%s: no memory for %llu values of norms and biases", gguf_path(b->file),
                    (unsigned long long)b->max_floats);
    b->m->view.layers = b->m->layers;
    return LL_OK;
}

static int bind_all(struct binder *b) {
    struct ll_model *m = b->m;
    int32_t window = 0;
    char key[NAME];
    ll_kv kv;
    TRY(read_numbers(&m->view, b->file, b->arch->name));
    TRY(take_vectors(b));
    b->used_floats = (uint64_t)m->view.head_dim;
    TRY(rope_init(&m->view, b->file, b->arch->name, m->vectors));
    m->view.rope_style = b->arch->rope;
    snprintf(key, sizeof key, "%s.attention.sliding_window", b->arch->name);
    if (gguf_find_kv(b->file, key, &kv)) {
        uint32_t value;
        TRY(gguf_u32(b->file, key, true, 0, &value));
        window = value > INT32_MAX ? 0 : (int32_t)value;
    }
    TRY(bind_ends(b));
    for (int32_t i = 0; i < m->view.n_layers; i++) {
        m->layers[i].window = window;
        TRY(bind_layer(b, i, &m->layers[i]));
    }
    return refuse_unused(b);
}

/* ---- the border ---- */

int ll_model_open(ll_model **out, const ll_gguf *file) {
    char name[64];
    *out = NULL;
    TRY(gguf_string(file, "general.architecture", true, name, sizeof name));
    const struct arch *arch = arch_find(name);
    char shown[4 * sizeof name];
    if (!arch)
        return fail(LL_EUNSUPPORTED, "%s: architecture %s cannot run; supported are %s", gguf_path(file),
                    printable(shown, sizeof shown, name, strlen(name)), ll_arch_names());
    struct ll_model *m = calloc(1, sizeof *m);
    if (!m) return fail(LL_ENOMEM, "%s: no memory for a model", gguf_path(file));
    m->file = file;
    m->arch = arch->name;
    struct binder b = {.m = m, .file = file, .arch = arch};
    int status = bind_all(&b);
    free(b.bound);
    if (status) {
        ll_model_close(m);
        return status;
    }
    for (int32_t t = 0; t < LL_TYPE_LIMIT; t++) {
        if (b.bytes_of[t] > b.bytes_of[m->main_type]) m->main_type = t;
    }
    *out = m;
    return LL_OK;
}

void ll_model_close(ll_model *model) {
    if (!model) return;
    free(model->layers);
    free(model->vectors);
    free(model);
}

void ll_model_get_info(const ll_model *model, ll_model_info *out) {
    const struct model *v = &model->view;
    *out = (ll_model_info){
        .arch = model->arch,
        .n_layers = v->n_layers,
        .n_ctx = v->n_ctx,
        .n_embd = v->n_embd,
        .n_ff = v->n_ff,
        .n_vocab = v->n_vocab,
        .n_heads = v->n_heads,
        .n_kv_heads = v->n_kv_heads,
        .head_dim = v->head_dim,
        .weight_bytes = model->weight_bytes,
        .n_params = model->n_params,
        .main_type = model->main_type,
    };
}
