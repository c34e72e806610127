/* Fuzz target of the GGUF parser: any bytes either open, and then everything that the tables promise can be read, or
 * fail with a code and one printable sentence. The bytes are parsed twice: from a heap block of their exact size, where
 * AddressSanitizer sees a read of one byte too many, and through a mapped file as users do. Build:
 *
 *     cc -g -fsanitize=address,undefined -I native -I native/include -I native/base native/base/[a-z]*.c \
 *        native/quant/types.c native/gguf/[a-z]*.c tests/native/fuzz_gguf.c
 *
 * With -DFAIL_ALLOC -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc every input is opened again and again, while the
 * first, the second, ... request for memory is refused. */
#define _POSIX_C_SOURCE 200809L
#include "fuzz_main.h"

#include "gguf/gguf.h"
#include "gguf/parse.h"

static uint64_t n_accepted, n_refused;
static volatile uint8_t sink; /* keeps reads from being optimized away */

static void read_bytes(const uint8_t *data, uint64_t size, const void *p, uint64_t bytes) {
    const uint8_t *at = p;
    if (data) CHECK(at >= data && bytes <= size && (uint64_t)(at - data) <= size - bytes);
    uint8_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) sum = (uint8_t)(sum + at[i]);
    sink = sum;
}

static void check_sentence(void) {
    const char *s = ll_error();
    CHECK(strlen(s) > 10 && strlen(s) < 1023);
    for (; *s; s++) CHECK((unsigned char)*s >= 0x20 && *s != 0x7F);
}

/* What the core asks of a key, whatever its type. */
static void look_up(const ll_gguf *gguf, const ll_kv *kv) {
    char key[512], text[32];
    uint32_t u32;
    float f32;
    bool flag;
    ll_kv found;
    if (kv->key_len >= sizeof key) return;
    memcpy(key, kv->key, kv->key_len);
    key[kv->key_len] = 0;
    CHECK(gguf_find_kv(gguf, key, &found) && found.key == kv->key);
    if (gguf_u32(gguf, key, true, 0, &u32)) check_sentence();
    if (gguf_f32(gguf, key, true, 0, &f32)) check_sentence();
    if (gguf_bool(gguf, key, false, &flag)) check_sentence();
    if (gguf_string(gguf, key, true, text, sizeof text)) check_sentence();
}

static void visit(const ll_gguf *gguf, const uint8_t *data, uint64_t size) {
    ll_kv kv;
    ll_tensor t, found;
    for (int64_t i = 0; i < ll_gguf_kv_count(gguf); i++) {
        CHECK(ll_gguf_kv(gguf, i, &kv) == LL_OK);
        read_bytes(data, size, kv.key, kv.key_len);
        read_bytes(data, size, kv.data, kv.bytes);
        look_up(gguf, &kv);
        if (kv.type != LL_KV_ARRAY || kv.item_type != LL_KV_STRING) continue;
        uint64_t text_bytes = kv.bytes - 8 * kv.count;
        uint64_t *ends = malloc(8 * kv.count);
        char *text = malloc(text_bytes);
        if (ends && text) CHECK(ll_gguf_strings(gguf, i, ends, text) == LL_OK);
        if (ends && text && kv.count) CHECK(ends[kv.count - 1] == text_bytes);
        free(ends);
        free(text);
    }
    for (int64_t i = 0; i < ll_gguf_tensor_count(gguf); i++) {
        char name[512];
        CHECK(ll_gguf_tensor(gguf, i, &t) == LL_OK);
        read_bytes(data, size, t.name, t.name_len);
        CHECK(t.n_dims >= 1 && t.n_dims <= 4 && t.dims[0] && t.dims[1] && t.dims[2] && t.dims[3]);
        CHECK((t.data == NULL) == (t.bytes == 0));
        if (t.data) read_bytes(data, size, t.data, t.bytes);
        if (t.name_len >= sizeof name) continue;
        memcpy(name, t.name, t.name_len);
        name[t.name_len] = 0;
        CHECK(gguf_find_tensor(gguf, name, &found) && found.name == t.name);
    }
    CHECK(ll_gguf_kv(gguf, ll_gguf_kv_count(gguf), &kv) == LL_EINVAL && ll_gguf_kv(gguf, -1, &kv) == LL_EINVAL);
    CHECK(ll_gguf_tensor(gguf, INT64_MAX, &t) == LL_EINVAL);
}

/* From a heap block of the exact size. */
static int open_bytes(const uint8_t *data, size_t size) {
    struct ll_gguf gguf = {.path = "input"};
    struct file file = {.size = size, .fd = -1};
    uint8_t *copy = malloc(size);
    int status = LL_ENOMEM;
    if (copy) {
        memcpy(copy, data, size);
        file.data = copy;
        status = part_read(&gguf, &gguf.table, &file, "input", 0);
        if (!status) status = tensors_index(&gguf);
        if (!status) visit(&gguf, copy, size);
    }
    table_free(&gguf.table);
    free(gguf.tensors);
    free(gguf.tensor_names);
    free(copy);
    return status;
}

static int open_file(void) {
    ll_gguf *gguf;
    int status = ll_gguf_open(&gguf, fuzz_path);
    CHECK((gguf == NULL) == (status != LL_OK));
    if (status)
        check_sentence();
    else
        visit(gguf, NULL, 0);
    ll_gguf_close(gguf);
    return status;
}

#ifdef FAIL_ALLOC
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
static int64_t until_failure = -1; /* requests that are still granted; -1: all */

static bool refuse(void) { return until_failure == 0 || (until_failure > 0 && until_failure-- == 0); }
void *__wrap_malloc(size_t size) { return refuse() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return refuse() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return refuse() ? NULL : __real_realloc(p, size); }

static void fail_allocations(int expected) {
    for (int64_t k = 0; k < 1000; k++) {
        ll_gguf *gguf;
        until_failure = k;
        int status = ll_gguf_open(&gguf, fuzz_path);
        bool reached = until_failure == 0;
        until_failure = -1;
        ll_gguf_close(gguf);
        CHECK(status == expected || (reached && status == LL_ENOMEM));
        if (!reached) return;
    }
    CHECK(!"the parser asks for memory a bounded number of times");
}
#else
static void fail_allocations(int expected) { (void)expected; }
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_write(data, size);
    int status = open_file();
    if (size > 0 && status != LL_EINVAL) { /* a lone part of a split model */
        int again = open_bytes(data, size);
        CHECK(again == status || (again == LL_OK && (status == LL_EIO || status == LL_EFORMAT)));
    }
    fail_allocations(status);
    status ? n_refused++ : n_accepted++;
    return 0;
}

#ifndef LIBFUZZER
static void fuzz_report(void) {
    printf("accepted %llu, refused %llu\n", (unsigned long long)n_accepted, (unsigned long long)n_refused);
}
#endif
