/* Opens GGUF files: version 2 and 3, little-endian, in one file or split. The file is used where it lies; what is
 * kept beside it are tables of keys and tensors that point into the map. Refused: version 1 (only of August 2023) and
 * big-endian files. All checking is done here, once; later readers trust the tables. */
#include "gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/map_guard.h"
#include "base/status.h"
#include "parse.h"

static int fail_magic(const struct cursor *c) {
    const char *seems = sniff(c->data, c->size);
    if (seems) return cursor_fail(c, LL_EFORMAT, "expected a GGUF file, found %s", seems);
    if (c->size < 4) return cursor_fail(c, LL_EFORMAT, "expected a GGUF file, found %d bytes", (int)c->size);
    return cursor_fail(c, LL_EFORMAT, "expected a GGUF file (first bytes 47 47 55 46), found %02x %02x %02x %02x",
                       c->data[0], c->data[1], c->data[2], c->data[3]);
}

static int read_version(struct cursor *c, uint32_t *version) {
    const uint8_t *magic = c->data;
    if (c->size < 4 || memcmp(magic, "GGUF", 4) != 0) return fail_magic(c);
    TRY(cursor_take(c, 4, "the magic", &magic));
    TRY(cursor_u32(c, "the version", version));
    if (*version == 2 || *version == 3) return LL_OK;
    if (*version != 0 && (*version & 0xFFFF) == 0) {
        return cursor_fail(c, LL_EUNSUPPORTED, "expected a little-endian file, found a big-endian one");
    }
    return cursor_fail(c, *version ? LL_EUNSUPPORTED : LL_EFORMAT, "expected GGUF version 2 or 3, found version %u",
                       *version);
}

static int read_alignment(const struct table *table, uint64_t *out) {
    static const char key[] = "general.alignment";
    const ll_kv *kv = table_find(table, key);
    uint32_t value = 32;
    if (kv && kv->type != LL_KV_UINT32) {
        return fail(LL_EFORMAT, "%s: key \"%s\": expected a UINT32, found %s", table->path, key,
                    value_type_name(kv->type));
    }
    if (kv) memcpy(&value, kv->data, sizeof value);
    if (value < ALIGNMENT_LEAST || value > ALIGNMENT_LIMIT || (value & (value - 1)) != 0) {
        return fail(LL_EFORMAT, "%s: key \"%s\": expected a power of two from %llu to %llu, found %u", table->path, key,
                    (unsigned long long)ALIGNMENT_LEAST, (unsigned long long)ALIGNMENT_LIMIT, value);
    }
    *out = value;
    return LL_OK;
}

int part_read(ll_gguf *gguf, struct table *table, const struct file *file, const char *shown, int32_t split) {
    struct cursor c = {.path = shown, .data = file->data, .size = file->size};
    uint32_t version;
    uint64_t n_tensors = 0, n_kv = 0, alignment = 0;
    TRY(read_version(&c, &version));
    TRY(cursor_count(&c, "a count of tensors", TENSOR_LIMIT, &n_tensors));
    TRY(cursor_count(&c, "a count of keys", KV_LIMIT, &n_kv));
    TRY(table_read(table, &c, n_kv));
    TRY(read_alignment(table, &alignment));
    TRY(tensors_read(&gguf->tensors, &gguf->n_tensors, &c, n_tensors, alignment, split));
    if (split == 0) gguf->version = version;
    gguf->bytes += file->size;
    return LL_OK;
}

int tensors_index(ll_gguf *gguf) {
    uint64_t n = gguf->n_tensors;
    gguf->tensor_names = calloc(n + 1, sizeof *gguf->tensor_names);
    if (!gguf->tensor_names) {
        return fail(LL_ENOMEM, "%s: no memory for %llu tensors", gguf->path, (unsigned long long)n);
    }
    for (uint64_t i = 0; i < n; i++) {
        gguf->tensor_names[i] = (struct name){gguf->tensors[i].name, gguf->tensors[i].name_len, i};
    }
    names_sort(gguf->tensor_names, n);
    const struct name *twice = names_twice(gguf->tensor_names, n);
    if (!twice) return LL_OK;
    struct cursor c = {.path = gguf->path, .kind = "tensor", .name = twice->text, .name_len = twice->length};
    return cursor_fail(&c, LL_EFORMAT, "expected once, found twice");
}

/* Maps and reads one part. */
static int open_part(ll_gguf *gguf, struct table *table, const char *path, const char *shown, uint32_t split) {
    struct file *file = &gguf->files[split];
    TRY(file_open(file, path, shown));
    gguf->n_files = split + 1;
    TRY(part_read(gguf, table, file, shown, (int32_t)split));
    const char *damage = file_damage(file);
    return damage ? fail(LL_EIO, "%s: %s while it was opened; is it still being written?", shown, damage) : LL_OK;
}

static int check_split_key(const struct table *table, const char *key, uint32_t expected) {
    uint32_t found;
    TRY(table_u32(table, key, true, 0, &found));
    if (found == expected) return LL_OK;
    return fail(LL_EFORMAT, "%s: key \"%s\": expected %u, found %u", table->path, key, expected, found);
}

/* A part beyond the first: its tensors join the others, its metadata only has to agree. */
static int open_sibling(ll_gguf *gguf, const char *path, uint32_t split, uint32_t count) {
    char shown[SHOWN_PATH];
    struct table table = {0};
    int status = open_part(gguf, &table, path, file_shown(shown, path), split);
    if (!status) status = check_split_key(&table, "split.no", split);
    if (!status) status = check_split_key(&table, "split.count", count);
    table_free(&table);
    return status;
}

static int fail_not_first(const ll_gguf *gguf, const char *path, char *sibling, uint32_t split, uint32_t count) {
    char shown[SHOWN_PATH];
    if (!split_path(path, 0, count, sibling)) {
        return fail(LL_EINVAL, "%s: is part %u of %u; expected the first, whose name ends in -00001-of-%05u.gguf",
                    gguf->path, split + 1, count, count);
    }
    return fail(LL_EINVAL, "%s: is part %u of %u; open %s", gguf->path, split + 1, count, file_shown(shown, sibling));
}

static int open_siblings(ll_gguf *gguf, const char *path, char *sibling, uint32_t count) {
    struct file *files = realloc(gguf->files, count * sizeof *files);
    if (!files) return fail(LL_ENOMEM, "%s: no memory for %u parts", gguf->path, count);
    gguf->files = files;
    if (!split_path(path, 0, count, sibling) || strcmp(path, sibling) != 0) {
        return fail(LL_EIO,
                    "%s: expected a name ending in -00001-of-%05u.gguf, from which the others of its %u parts are "
                    "found",
                    gguf->path, count, count);
    }
    for (uint32_t i = 1; i < count; i++) {
        split_path(path, i, count, sibling);
        TRY(open_sibling(gguf, sibling, i, count));
    }
    uint32_t expected;
    TRY(table_u32(&gguf->table, "split.tensors.count", false, (uint32_t)gguf->n_tensors, &expected));
    if (expected == gguf->n_tensors) return LL_OK;
    return fail(LL_EFORMAT, "%s: key \"split.tensors.count\": expected the %llu tensors of all parts, found %u",
                gguf->path, (unsigned long long)gguf->n_tensors, expected);
}

static int open_all(ll_gguf *gguf, const char *path, char *sibling) {
    uint32_t split, count;
    gguf->files = calloc(1, sizeof *gguf->files);
    if (!gguf->files) return fail(LL_ENOMEM, "%s: no memory to open it", gguf->path);
    TRY(open_part(gguf, &gguf->table, path, gguf->path, 0));
    TRY(table_u32(&gguf->table, "split.count", false, 0, &count));
    TRY(table_u32(&gguf->table, "split.no", false, 0, &split));
    if (count > SPLIT_LIMIT || (split > 0 && split >= count)) {
        return fail(LL_EFORMAT, "%s: key \"split.no\": expected less than split.count, at most %llu, found %u of %u",
                    gguf->path, (unsigned long long)SPLIT_LIMIT, split, count);
    }
    if (split > 0) return fail_not_first(gguf, path, sibling, split, count);
    if (count > 1) TRY(open_siblings(gguf, path, sibling, count));
    return tensors_index(gguf);
}

int ll_gguf_open(ll_gguf **out, const char *path) {
    if (!out || !path) return fail(LL_EINVAL, "path: expected one, found NULL");
    *out = NULL;
    ll_gguf *gguf = calloc(1, sizeof *gguf);
    char *sibling = malloc(strlen(path) + 1);
    int status = LL_ENOMEM;
    if (gguf && sibling) {
        file_shown(gguf->path, path);
        status = open_all(gguf, path, sibling);
    } else {
        fail(status, "no memory to open a file");
    }
    free(sibling);
    if (!status) {
        *out = gguf;
        return LL_OK;
    }
    ll_gguf_close(gguf);
    return status;
}

void ll_gguf_close(ll_gguf *file) {
    if (!file) return;
    for (uint32_t i = 0; i < file->n_files; i++) file_close(&file->files[i]);
    table_free(&file->table);
    free(file->tensors);
    free(file->tensor_names);
    free(file->files);
    free(file);
}

int ll_gguf_check(const ll_gguf *file) {
    for (uint32_t i = 0; i < file->n_files; i++) {
        const char *damage = file_damage(&file->files[i]);
        if (!damage) continue;
        if (file->n_files == 1) return fail(LL_EIO, "%s: %s while it was in use", file->path, damage);
        return fail(LL_EIO, "%s: part %u of %u %s while it was in use", file->path, i + 1, file->n_files, damage);
    }
    return LL_OK;
}

int ll_guard_files(void) { return map_guard_install(); }

uint32_t ll_gguf_version(const ll_gguf *file) { return file->version; }
uint64_t ll_gguf_bytes(const ll_gguf *file) { return file->bytes; }
int64_t ll_gguf_kv_count(const ll_gguf *file) { return (int64_t)file->table.n; }
int64_t ll_gguf_tensor_count(const ll_gguf *file) { return (int64_t)file->n_tensors; }

static int check_index(const char *what, int64_t index, uint64_t count) {
    if (index >= 0 && (uint64_t)index < count) return LL_OK;
    return fail(LL_EINVAL, "%s: expected an index below %llu, found %lld", what, (unsigned long long)count,
                (long long)index);
}

int ll_gguf_kv(const ll_gguf *file, int64_t index, ll_kv *out) {
    TRY(check_index("key", index, file->table.n));
    *out = file->table.kv[index];
    return LL_OK;
}

int ll_gguf_tensor(const ll_gguf *file, int64_t index, ll_tensor *out) {
    TRY(check_index("tensor", index, file->n_tensors));
    *out = file->tensors[index];
    return LL_OK;
}

int ll_gguf_strings(const ll_gguf *file, int64_t index, uint64_t *ends, char *text) {
    TRY(check_index("key", index, file->table.n));
    const ll_kv *kv = &file->table.kv[index];
    if (kv->type != LL_KV_ARRAY || kv->item_type != LL_KV_STRING) {
        return fail(LL_EINVAL, "key %lld: expected an array of strings, found %s", (long long)index,
                    value_type_name(kv->item_type));
    }
    const uint8_t *item = kv->data;
    uint64_t used = 0, length, room = kv->bytes - kv->count * sizeof length;
    for (uint64_t i = 0; i < kv->count; i++) {
        memcpy(&length, item, sizeof length);
        if (length > room - used) return fail(LL_EIO, "%s: was changed while it was in use", file->path);
        memcpy(text + used, item + sizeof length, length);
        item += sizeof length + length;
        used += length;
        ends[i] = used;
    }
    return LL_OK;
}
