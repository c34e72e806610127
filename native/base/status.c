#include "status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[1024] = "no error";

int fail(int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return code;
}

const char *ll_error(void) { return sentence; }
