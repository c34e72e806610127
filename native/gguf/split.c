/* Names of split models: NAME-00002-of-00003.gguf is part 2 of 3. */
#include <stdio.h>
#include <string.h>

#include "parse.h"

enum { SUFFIX = sizeof "-00001-of-00003.gguf" - 1 };

bool split_path(const char *path, uint32_t index, uint32_t count, char *out) {
    char suffix[48], pattern[] = "-ddddd-of-ddddd.gguf";
    uint64_t length = strlen(path);
    if (length < SUFFIX) return false;
    const char *tail = path + length - SUFFIX;
    for (int i = 0; i < SUFFIX; i++) {
        bool digit = tail[i] >= '0' && tail[i] <= '9';
        if (pattern[i] == 'd' ? !digit : tail[i] != pattern[i]) return false;
    }
    snprintf(suffix, sizeof suffix, "-%05u-of-%05u.gguf", index + 1, count);
    if (strlen(suffix) != SUFFIX || memcmp(suffix + 6, tail + 6, SUFFIX - 6) != 0) return false;
    memcpy(out, path, length - SUFFIX);
    memcpy(out + length - SUFFIX, suffix, SUFFIX + 1);
    return true;
}
