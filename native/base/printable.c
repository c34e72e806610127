#include "printable.h"

#include <stdbool.h>
#include <string.h>

/* Length of the well-formed UTF-8 character at s (RFC 3629), 0 if there is none; its number to *code. */
static uint64_t utf8_char(const unsigned char *s, uint64_t left, uint32_t *code) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint64_t n = s[0] < 0x80 ? 1 : s[0] < 0xC0 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF8 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    uint32_t value = n == 1 ? s[0] : s[0] & (0xFFu >> (n + 1));
    for (uint64_t i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        value = value << 6 | (s[i] & 0x3Fu);
    }
    if (value < least[n] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return 0;
    *code = value;
    return n;
}

static bool is_shown(uint32_t code) {
    bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
    bool reorders = code == 0x61C || (code >= 0x200B && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
                    (code >= 0x2060 && code <= 0x206F) || code == 0xFEFF || code >= 0xE0000;
    return !control && !reorders;
}

const char *printable(char *out, uint64_t size, const char *text, uint64_t length) {
    static const char digits[] = "0123456789abcdef";
    const unsigned char *s = (const unsigned char *)text;
    uint64_t used = 0, at = 0;
    while (at < length) {
        uint32_t code = 0;
        uint64_t n = utf8_char(s + at, length - at, &code);
        bool shown = n > 0 && is_shown(code);
        n = n > 0 ? n : 1;
        if (used + (shown ? n : 4 * n) + sizeof "..." > size) {
            memcpy(out + used, "...", 3);
            used += 3;
            break;
        }
        for (uint64_t end = at + n; at < end; at++) {
            if (shown) {
                out[used++] = text[at];
                continue;
            }
            out[used++] = '\\';
            out[used++] = 'x';
            out[used++] = digits[s[at] >> 4];
            out[used++] = digits[s[at] & 15];
        }
    }
    out[used] = 0;
    return out;
}
