/* The tensor directory of a GGUF file: every tensor's bytes lie inside the file, aligned, whole blocks in a row, and
 * no two share any. Gaps and any order are fine. */
#include <stdlib.h>

#include "base/checked.h"
#include "base/status.h"
#include "parse.h"
#include "quant/types.h"

enum { TENSOR_LEAST = 8 + 1 + 4 + 8 + 4 + 8 }; /* bytes of the shortest entry: name, n_dims, one dim, type, offset */

struct span {
    uint64_t begin, end;
    const ll_tensor *tensor;
};

/* Reads one entry; its offset from the start of the data to *offset. */
static int read_entry(struct cursor *c, ll_tensor *t, uint64_t *offset) {
    uint32_t n_dims, type;
    TRY(cursor_name(c));
    t->name = c->name;
    t->name_len = c->name_len;
    TRY(cursor_u32(c, "the number of dimensions", &n_dims));
    if (n_dims < 1 || n_dims > 4) return cursor_fail(c, LL_EFORMAT, "expected 1 to 4 dimensions, found %u", n_dims);
    t->n_dims = (int32_t)n_dims;
    for (uint32_t i = 0; i < 4; i++) {
        t->dims[i] = 1;
        if (i < n_dims) TRY(cursor_u64(c, "a dimension", &t->dims[i]));
        if (t->dims[i] == 0)
            return cursor_fail(c, LL_EFORMAT, "expected no dimension of 0, found dimension %u to be", i);
    }
    TRY(cursor_u32(c, "the type", &type));
    if (type > INT32_MAX) return cursor_fail(c, LL_EFORMAT, "expected a type below 2147483648, found %u", type);
    t->type = (int32_t)type;
    return cursor_u64(c, "the offset", offset);
}

/* How many bytes a tensor takes: 0 if its type is unknown. */
static int measure(const struct cursor *c, ll_tensor *t) {
    uint64_t rows, values;
    if (!checked_mul(t->dims[1], t->dims[2], &rows) || !checked_mul(rows, t->dims[3], &rows) ||
        !checked_mul(rows, t->dims[0], &values) || values > INT64_MAX) {
        return cursor_fail(c, LL_EFORMAT, "expected fewer than 2^63 values, found dimensions %llu x %llu x %llu x %llu",
                           (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
                           (unsigned long long)t->dims[2], (unsigned long long)t->dims[3]);
    }
    const struct type *type = type_of(t->type);
    if (!type) return LL_OK;
    uint64_t block = (uint64_t)type->block;
    if (t->dims[0] % block) {
        return cursor_fail(c, LL_EFORMAT, "expected rows of a multiple of %llu values (%s), found rows of %llu",
                           (unsigned long long)block, type->name, (unsigned long long)t->dims[0]);
    }
    if (!checked_mul(values / block, (uint64_t)type->bytes, &t->bytes)) {
        return cursor_fail(c, LL_EFORMAT, "expected fewer than 2^64 bytes, found %llu values of %s",
                           (unsigned long long)values, type->name);
    }
    return LL_OK;
}

static int place(const struct cursor *c, ll_tensor *t, uint64_t data_start, uint64_t offset, uint64_t alignment) {
    uint64_t begin;
    if (offset % alignment) {
        return cursor_fail(c, LL_EFORMAT, "expected an offset that is a multiple of %llu, found %llu",
                           (unsigned long long)alignment, (unsigned long long)offset);
    }
    if (!checked_add(data_start, offset, &begin) || !checked_range(begin, t->bytes, c->size)) {
        return cursor_fail(
            c, LL_EFORMAT,
            "expected its %llu bytes at offset %llu (data starts at byte %llu) inside the file, found that "
            "the file ends at byte %llu; is it cut off?",
            (unsigned long long)t->bytes, (unsigned long long)offset, (unsigned long long)data_start,
            (unsigned long long)c->size);
    }
    t->data = t->bytes > 0 ? c->data + begin : NULL;
    return LL_OK;
}

static int compare_spans(const void *a, const void *b) {
    const struct span *x = a, *y = b;
    return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1) : 0;
}

static int check_overlaps(struct cursor *c, const ll_tensor *tensors, struct span *spans, uint64_t n) {
    uint64_t used = 0;
    for (uint64_t i = 0; i < n; i++) {
        const ll_tensor *t = &tensors[i];
        if (!t->data) continue;
        uint64_t begin = (uint64_t)((const uint8_t *)t->data - c->data);
        spans[used++] = (struct span){begin, begin + t->bytes, t};
    }
    if (used > 0) qsort(spans, used, sizeof *spans, compare_spans);
    for (uint64_t i = 1; i < used; i++) {
        if (spans[i].begin >= spans[i - 1].end) continue;
        c->name = spans[i].tensor->name;
        c->name_len = spans[i].tensor->name_len;
        return cursor_fail(c, LL_EFORMAT,
                           "expected bytes of its own from byte %llu on, found that another tensor's reach "
                           "to byte %llu",
                           (unsigned long long)spans[i].begin, (unsigned long long)spans[i - 1].end);
    }
    return LL_OK;
}

static int read_all(struct cursor *c, ll_tensor *tensors, struct span *spans, uint64_t n, uint64_t alignment,
                    int32_t split) {
    uint64_t data_start;
    c->kind = "tensor";
    for (uint64_t i = 0; i < n; i++) {
        c->name = NULL;
        c->number = i;
        tensors[i] = (ll_tensor){.split = split};
        /* Until its place is known, the span keeps the offset. */
        TRY(read_entry(c, &tensors[i], &spans[i].begin));
        TRY(measure(c, &tensors[i]));
    }
    if (!checked_align(c->at, alignment, &data_start)) return cursor_fail(c, LL_EFORMAT, "no room for data");
    for (uint64_t i = 0; i < n; i++) {
        c->name = tensors[i].name;
        c->name_len = tensors[i].name_len;
        TRY(place(c, &tensors[i], data_start, spans[i].begin, alignment));
    }
    TRY(check_overlaps(c, tensors, spans, n));
    c->kind = NULL;
    return LL_OK;
}

int tensors_read(ll_tensor **tensors, uint64_t *total, struct cursor *c, uint64_t n, uint64_t alignment,
                 int32_t split) {
    TRY(cursor_fits(c, "a count of tensors", n, TENSOR_LEAST));
    if (n > TENSOR_LIMIT - *total) {
        return cursor_fail(c, LL_EFORMAT, "expected at most %llu tensors in all splits, found more",
                           (unsigned long long)TENSOR_LIMIT);
    }
    ll_tensor *grown = realloc(*tensors, (*total + n + 1) * sizeof *grown);
    if (grown) *tensors = grown;
    struct span *spans = calloc(n + 1, sizeof *spans);
    int status = grown && spans ? read_all(c, grown + *total, spans, n, alignment, split)
                                : cursor_fail(c, LL_ENOMEM, "no memory for %llu tensors", (unsigned long long)n);
    free(spans);
    if (!status) *total += n;
    return status;
}
