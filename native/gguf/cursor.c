/* The only reader of a file's bytes while it is parsed: every read is bounded, every refusal says where. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/printable.h"
#include "base/status.h"
#include "parse.h"

int cursor_fail(const struct cursor *c, int code, const char *format, ...) {
    char reason[512], name[160];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    if (!c->kind) return fail(code, "%s: %s", c->path, reason);
    if (!c->name) return fail(code, "%s: %s number %llu: %s", c->path, c->kind, (unsigned long long)c->number, reason);
    printable(name, sizeof name, c->name, c->name_len);
    return fail(code, "%s: %s \"%s\": %s", c->path, c->kind, name, reason);
}

int cursor_take(struct cursor *c, uint64_t bytes, const char *what, const uint8_t **out) {
    if (!checked_range(c->at, bytes, c->size)) {
        return cursor_fail(c, LL_EFORMAT, "%s takes %llu bytes from byte %llu on, but the file ends at byte %llu", what,
                           (unsigned long long)bytes, (unsigned long long)c->at, (unsigned long long)c->size);
    }
    if (!checked_range(c->at, bytes, METADATA_LIMIT)) {
        return cursor_fail(c, LL_EFORMAT, "expected at most %llu bytes of metadata, found more (%s)",
                           (unsigned long long)METADATA_LIMIT, what);
    }
    *out = c->data + c->at;
    c->at += bytes;
    return LL_OK;
}

int cursor_u32(struct cursor *c, const char *what, uint32_t *out) {
    const uint8_t *bytes = NULL;
    TRY(cursor_take(c, sizeof *out, what, &bytes));
    memcpy(out, bytes, sizeof *out);
    return LL_OK;
}

int cursor_u64(struct cursor *c, const char *what, uint64_t *out) {
    const uint8_t *bytes = NULL;
    TRY(cursor_take(c, sizeof *out, what, &bytes));
    memcpy(out, bytes, sizeof *out);
    return LL_OK;
}

int cursor_string(struct cursor *c, const char *what, uint64_t limit, const char **text, uint64_t *length) {
    const uint8_t *bytes = NULL;
    TRY(cursor_u64(c, "the length of a string", length));
    if (*length > limit) {
        return cursor_fail(c, LL_EFORMAT, "expected %s of at most %llu bytes, found one of %llu", what,
                           (unsigned long long)limit, (unsigned long long)*length);
    }
    TRY(cursor_take(c, *length, what, &bytes));
    *text = (const char *)bytes;
    return LL_OK;
}

int cursor_name(struct cursor *c) {
    const char *text = NULL;
    uint64_t length = 0;
    TRY(cursor_string(c, "a name", NAME_LIMIT, &text, &length));
    if (length == 0) return cursor_fail(c, LL_EFORMAT, "expected a name, found an empty one");
    c->name = text;
    c->name_len = length;
    if (memchr(text, 0, length)) return cursor_fail(c, LL_EFORMAT, "expected a name without NUL bytes, found one");
    return LL_OK;
}

int cursor_count(struct cursor *c, const char *what, uint64_t limit, uint64_t *out) {
    TRY(cursor_u64(c, what, out));
    if (*out <= limit) return LL_OK;
    return cursor_fail(c, LL_EFORMAT, "expected %s of at most %llu, found %llu", what, (unsigned long long)limit,
                       (unsigned long long)*out);
}

int cursor_fits(const struct cursor *c, const char *what, uint64_t count, uint64_t least) {
    uint64_t left = c->size - c->at, needed;
    if (checked_mul(count, least, &needed) && needed <= left) return LL_OK;
    return cursor_fail(c, LL_EFORMAT, "expected %s that fits into the %llu bytes left in the file, found %llu", what,
                       (unsigned long long)left, (unsigned long long)count);
}
