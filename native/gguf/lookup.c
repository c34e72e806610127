/* Metadata by key and type, and tensors by name: what the core asks of a file. */
#include <math.h>
#include <string.h>

#include "base/printable.h"
#include "base/status.h"
#include "gguf.h"
#include "parse.h"

const ll_kv *table_find(const struct table *table, const char *key) {
    const struct name *name = names_find(table->names, table->n, key);
    return name ? &table->kv[name->index] : NULL;
}

static int fail_type(const struct table *table, const ll_kv *kv, const char *key, const char *expected) {
    bool array = kv->type == LL_KV_ARRAY;
    return fail(LL_EFORMAT, "%s: key \"%s\": expected %s, found %s%s", table->path, key, expected,
                array ? "an array of " : "", value_type_name(kv->item_type));
}

static int fail_absent(const struct table *table, const char *key, const char *expected) {
    return fail(LL_EFORMAT, "%s: key \"%s\": expected %s, found no such key", table->path, key, expected);
}

/* An integer of any width as its magnitude and sign; false if it is none. */
static bool integer_of(const ll_kv *kv, uint64_t *magnitude, bool *negative) {
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t value = 0;
    *magnitude = 0;
    switch (kv->type) {
    case LL_KV_UINT8:
    case LL_KV_UINT16:
    case LL_KV_UINT32:
    case LL_KV_UINT64:
        memcpy(magnitude, kv->data, kv->bytes);
        *negative = false;
        return true;
    case LL_KV_INT8: memcpy(&i8, kv->data, sizeof i8), value = i8; break;
    case LL_KV_INT16: memcpy(&i16, kv->data, sizeof i16), value = i16; break;
    case LL_KV_INT32: memcpy(&i32, kv->data, sizeof i32), value = i32; break;
    case LL_KV_INT64: memcpy(&value, kv->data, sizeof value); break;
    default: return false;
    }
    *negative = value < 0;
    *magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    return true;
}

int table_u32(const struct table *table, const char *key, bool required, uint32_t fallback, uint32_t *out) {
    const ll_kv *kv = table_find(table, key);
    uint64_t magnitude;
    bool negative;
    *out = fallback;
    if (!kv) return required ? fail_absent(table, key, "an integer") : LL_OK;
    if (!integer_of(kv, &magnitude, &negative)) return fail_type(table, kv, key, "an integer");
    if (negative || magnitude > UINT32_MAX) {
        return fail(LL_EFORMAT, "%s: key \"%s\": expected an integer from 0 to %u, found %s%llu", table->path, key,
                    UINT32_MAX, negative ? "-" : "", (unsigned long long)magnitude);
    }
    *out = (uint32_t)magnitude;
    return LL_OK;
}

const char *gguf_path(const ll_gguf *file) { return file->path; }

bool gguf_find_kv(const ll_gguf *file, const char *key, ll_kv *out) {
    const ll_kv *kv = table_find(&file->table, key);
    if (kv) *out = *kv;
    return kv != NULL;
}

bool gguf_find_tensor(const ll_gguf *file, const char *name, ll_tensor *out) {
    const struct name *found = names_find(file->tensor_names, file->n_tensors, name);
    if (found) *out = file->tensors[found->index];
    return found != NULL;
}

int gguf_u32(const ll_gguf *file, const char *key, bool required, uint32_t fallback, uint32_t *out) {
    return table_u32(&file->table, key, required, fallback, out);
}

int gguf_f32(const ll_gguf *file, const char *key, bool required, float fallback, float *out) {
    const ll_kv *kv = table_find(&file->table, key);
    double wide;
    *out = fallback;
    if (!kv) return required ? fail_absent(&file->table, key, "a FLOAT32") : LL_OK;
    if (kv->type == LL_KV_FLOAT32) {
        memcpy(out, kv->data, sizeof *out);
    } else if (kv->type == LL_KV_FLOAT64) {
        memcpy(&wide, kv->data, sizeof wide);
        *out = (float)wide;
    } else {
        return fail_type(&file->table, kv, key, "a FLOAT32");
    }
    if (isfinite(*out)) return LL_OK;
    return fail(LL_EFORMAT, "%s: key \"%s\": expected a finite number, found %g", file->path, key, (double)*out);
}

int gguf_bool(const ll_gguf *file, const char *key, bool fallback, bool *out) {
    const ll_kv *kv = table_find(&file->table, key);
    *out = fallback;
    if (!kv) return LL_OK;
    if (kv->type != LL_KV_BOOL) return fail_type(&file->table, kv, key, "a BOOL");
    *out = *(const uint8_t *)kv->data != 0;
    return LL_OK;
}

int gguf_string(const ll_gguf *file, const char *key, bool required, char *out, uint64_t size) {
    const ll_kv *kv = table_find(&file->table, key);
    out[0] = 0;
    if (!kv) return required ? fail_absent(&file->table, key, "a STRING") : LL_OK;
    if (kv->type != LL_KV_STRING) return fail_type(&file->table, kv, key, "a STRING");
    if (kv->bytes >= size || memchr(kv->data, 0, kv->bytes)) {
        char shown[80];
        printable(shown, sizeof shown, kv->data, kv->bytes);
        return fail(LL_EFORMAT, "%s: key \"%s\": expected a STRING of fewer than %llu bytes without NUL, found \"%s\"",
                    file->path, key, (unsigned long long)size, shown);
    }
    memcpy(out, kv->data, kv->bytes);
    out[kv->bytes] = 0;
    return LL_OK;
}
