/* What the parts of the GGUF parser share: the limits, the cursor that every byte is read through, and the tables
 * that come out. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Assumes a little-endian host.
 *
 * The limits are far above every real file. They bound the work and the memory that a small hostile file can cause:
 * the tables take at most 200 bytes per key or tensor, and nothing that the file holds is copied. */
#ifndef PARSE_H
#define PARSE_H
#include <stdbool.h>
#include "base/file.h"
#include "localllm.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read as it lies, little-endian");

static const uint64_t KV_LIMIT = 65536, TENSOR_LIMIT = 65536, NAME_LIMIT = 65535, STRING_LIMIT = 16 << 20,
                      ITEM_LIMIT = 64 << 20, METADATA_LIMIT = 256 << 20, ALIGNMENT_LEAST = 8, ALIGNMENT_LIMIT = 1 << 20,
                      SPLIT_LIMIT = 65535;

/* ---- cursor.c: the only reader of the map ---- */

struct cursor {
    const char *path; /* as shown in sentences */
    const uint8_t *data;
    uint64_t at, size;
    const char *kind; /* what is being read: "key" or "tensor"; NULL in the header */
    const char *name; /* NULL until it is known; then `number` tells which it is */
    uint64_t name_len, number;
};

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
int cursor_fail(const struct cursor *c, int code, const char *format, ...); /* "path: key "name": ..." */

/* Each hands out the next bytes or fails, saying that `what` is cut off. */
int cursor_take(struct cursor *c, uint64_t bytes, const char *what, const uint8_t **out);
int cursor_u32(struct cursor *c, const char *what, uint32_t *out);
int cursor_u64(struct cursor *c, const char *what, uint64_t *out);
int cursor_string(struct cursor *c, const char *what, uint64_t limit, const char **text, uint64_t *length);
/* A key's or tensor's name: 1 to NAME_LIMIT bytes without NUL. From here on sentences bear it. */
int cursor_name(struct cursor *c);
/* A count of things that take at least `least` bytes each. */
int cursor_count(struct cursor *c, const char *what, uint64_t limit, uint64_t *out);
int cursor_fits(const struct cursor *c, const char *what, uint64_t count, uint64_t least);

/* ---- names.c: keys and tensors by name ---- */

struct name {
    const char *text;
    uint64_t length, index;
};

/* Sorted rather than hashed: no file can choose names that collide. */
void names_sort(struct name *names, uint64_t n);
const struct name *names_twice(const struct name *names, uint64_t n); /* one that occurs twice, or NULL */
const struct name *names_find(const struct name *names, uint64_t n, const char *text);

/* ---- metadata.c, lookup.c ---- */

struct table {
    const char *path; /* as shown in sentences */
    uint64_t n;
    ll_kv *kv;          /* (n) in the file's order */
    struct name *names; /* (n) sorted */
};

int table_read(struct table *table, struct cursor *c, uint64_t n);
void table_free(struct table *table);
const ll_kv *table_find(const struct table *table, const char *key);
int table_u32(const struct table *table, const char *key, bool required, uint32_t fallback, uint32_t *out);
const char *value_type_name(int32_t type); /* "?" when unknown */

/* ---- tensors.c ---- */

/* Appends n tensors of split number `split` to *tensors, which holds *total. */
int tensors_read(ll_tensor **tensors, uint64_t *total, struct cursor *c, uint64_t n, uint64_t alignment, int32_t split);

/* ---- gguf.c, split.c, sniff.c ---- */

struct ll_gguf {
    char path[SHOWN_PATH];
    uint32_t version;
    uint64_t bytes;
    struct table table; /* of the first split */
    uint64_t n_tensors;
    ll_tensor *tensors;        /* (n_tensors) of all splits */
    struct name *tensor_names; /* (n_tensors) sorted */
    uint32_t n_files;
    struct file *files; /* (n_files) */
};

/* Reads a whole part: its metadata to `table`, its tensors to the end of gguf's. */
int part_read(ll_gguf *gguf, struct table *table, const struct file *file, const char *shown, int32_t split);
int tensors_index(ll_gguf *gguf); /* to be called when all parts are read */

/* The path of part `index` of `count` (from 0) of the model that `path` is a part of; false if path is not named
 * like one. out holds strlen(path) + 1 bytes. */
bool split_path(const char *path, uint32_t index, uint32_t count, char *out);

/* What a file that is not GGUF seems to be, as a noun phrase. */
const char *sniff(const uint8_t *data, uint64_t size);

#endif
