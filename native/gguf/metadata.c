/* The key-value pairs of a GGUF file: walked once and checked to the last item, so that later readers need not. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "parse.h"

enum { KEY_LEAST = 8 + 1 + 4 + 1 }; /* bytes of the shortest pair: length, name, type, value */

static const struct {
    const char *name;
    uint32_t bytes; /* 0: not of fixed size */
} value_types[] = {
    [LL_KV_UINT8] = {"UINT8", 1},     [LL_KV_INT8] = {"INT8", 1},     [LL_KV_UINT16] = {"UINT16", 2},
    [LL_KV_INT16] = {"INT16", 2},     [LL_KV_UINT32] = {"UINT32", 4}, [LL_KV_INT32] = {"INT32", 4},
    [LL_KV_FLOAT32] = {"FLOAT32", 4}, [LL_KV_BOOL] = {"BOOL", 1},     [LL_KV_STRING] = {"STRING", 0},
    [LL_KV_ARRAY] = {"ARRAY", 0},     [LL_KV_UINT64] = {"UINT64", 8}, [LL_KV_INT64] = {"INT64", 8},
    [LL_KV_FLOAT64] = {"FLOAT64", 8},
};

enum { N_VALUE_TYPES = sizeof value_types / sizeof *value_types };

const char *value_type_name(int32_t type) { return type >= 0 && type < N_VALUE_TYPES ? value_types[type].name : "?"; }

static int read_type(struct cursor *c, const char *what, int32_t *out) {
    uint32_t type;
    TRY(cursor_u32(c, what, &type));
    if (type >= N_VALUE_TYPES) {
        return cursor_fail(c, LL_EFORMAT, "expected %s from 0 to %d, found %u", what, N_VALUE_TYPES - 1, type);
    }
    *out = (int32_t)type;
    return LL_OK;
}

static int check_bools(const struct cursor *c, const uint8_t *items, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        if (items[i] > 1) return cursor_fail(c, LL_EFORMAT, "expected a BOOL of 0 or 1, found %d", items[i]);
    }
    return LL_OK;
}

static int read_strings(struct cursor *c, uint64_t n) {
    const char *text;
    uint64_t length;
    TRY(cursor_fits(c, "a count of strings", n, sizeof length));
    for (uint64_t i = 0; i < n; i++) TRY(cursor_string(c, "a string", STRING_LIMIT, &text, &length));
    return LL_OK;
}

static int read_numbers(struct cursor *c, int32_t type, uint64_t n) {
    const uint8_t *items;
    uint64_t bytes;
    TRY(cursor_fits(c, "a count of items", n, value_types[type].bytes));
    if (!checked_mul(n, value_types[type].bytes, &bytes)) return cursor_fail(c, LL_EFORMAT, "too many items");
    TRY(cursor_take(c, bytes, "the value", &items));
    return type == LL_KV_BOOL ? check_bools(c, items, n) : LL_OK;
}

static int read_value(struct cursor *c, ll_kv *kv) {
    TRY(read_type(c, "a value type", &kv->type));
    kv->item_type = kv->type;
    kv->count = 1;
    if (kv->type == LL_KV_ARRAY) {
        TRY(read_type(c, "an item type", &kv->item_type));
        if (kv->item_type == LL_KV_ARRAY) {
            return cursor_fail(c, LL_EUNSUPPORTED, "expected an array of numbers or strings, found an array of arrays");
        }
        TRY(cursor_count(c, "a count of items", ITEM_LIMIT, &kv->count));
    }
    uint64_t start = c->at;
    if (kv->type == LL_KV_STRING) {
        const char *text;
        TRY(cursor_string(c, "a string", STRING_LIMIT, &text, &kv->bytes));
        kv->data = text;
        return LL_OK;
    }
    kv->data = c->data + start;
    TRY(kv->item_type == LL_KV_STRING ? read_strings(c, kv->count) : read_numbers(c, kv->item_type, kv->count));
    kv->bytes = c->at - start;
    return LL_OK;
}

int table_read(struct table *table, struct cursor *c, uint64_t n) {
    *table = (struct table){.path = c->path};
    TRY(cursor_fits(c, "a count of keys", n, KEY_LEAST));
    table->kv = calloc(n + 1, sizeof *table->kv);
    table->names = calloc(n + 1, sizeof *table->names);
    if (!table->kv || !table->names) return cursor_fail(c, LL_ENOMEM, "no memory for %llu keys", (unsigned long long)n);
    table->n = n;
    c->kind = "key";
    for (uint64_t i = 0; i < n; i++) {
        ll_kv *kv = &table->kv[i];
        c->name = NULL;
        c->number = i;
        TRY(cursor_name(c));
        kv->key = c->name;
        kv->key_len = c->name_len;
        table->names[i] = (struct name){kv->key, kv->key_len, i};
        TRY(read_value(c, kv));
    }
    names_sort(table->names, n);
    const struct name *twice = names_twice(table->names, n);
    if (twice) {
        c->name = twice->text;
        c->name_len = twice->length;
        return cursor_fail(c, LL_EFORMAT, "expected once, found twice");
    }
    c->kind = NULL;
    return LL_OK;
}

void table_free(struct table *table) {
    free(table->kv);
    free(table->names);
    *table = (struct table){0};
}
