/* What base/ computes, as text, for test_base.py to compare with Python. One request a line on standard input:
 *
 *     add A B | mul A B | align A ALIGNMENT | range OFFSET BYTES SIZE    ->  "1 RESULT" if it fits, else "0 0"
 *     show SIZE HEX                                                      ->  the printable text
 *     examine PATH                                                       ->  opens, waits for a line: what became of it
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/file.h"
#include "base/printable.h"
#include "base/status.h"

static void show(uint64_t size, const char *hex) {
    uint64_t length = strlen(hex) / 2;
    char *bytes = malloc(length), *out = malloc(size); /* of the exact sizes, for AddressSanitizer */
    for (uint64_t i = 0; bytes && i < length; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
        bytes[i] = (char)strtoul(digits, NULL, 16);
    }
    if (bytes && out) puts(printable(out, size, bytes, length));
    free(bytes);
    free(out);
}

static void examine(const char *path) {
    char line[8];
    struct file file;
    int code = file_open(&file, path, path);
    puts("open");
    fflush(stdout);
    const char *damage = code ? ll_error() : fgets(line, sizeof line, stdin) ? file_damage(&file) : NULL;
    printf("%s\n", damage ? damage : "as it was");
    file_close(&file);
}

int main(void) {
    static char line[4096], verb[16], text[4096];
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long a = 0, b = 0, c = 0;
        uint64_t result = 0;
        bool fits = false;
        if (sscanf(line, "examine %4095s", text) == 1) {
            examine(text);
            continue;
        }
        text[0] = 0;
        if (sscanf(line, "show %llu %4095s", &a, text) >= 1) {
            show(a, text);
            continue;
        }
        if (sscanf(line, "%15s %llu %llu %llu", verb, &a, &b, &c) < 3) return 2;
        if (!strcmp(verb, "add")) fits = checked_add(a, b, &result);
        if (!strcmp(verb, "mul")) fits = checked_mul(a, b, &result);
        if (!strcmp(verb, "align")) fits = checked_align(a, b, &result);
        if (!strcmp(verb, "range")) fits = checked_range(a, b, c);
        printf("%d %llu\n", fits, fits ? (unsigned long long)result : 0);
    }
    return 0;
}
