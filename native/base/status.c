#include "status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[1024] = "no error";

int fail(int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    for (char *c = sentence; *c; c++) { /* names out of a file must not drive a terminal */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
    return code;
}

const char *ll_error(void) { return sentence; }
