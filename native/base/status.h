/* How a failure travels: a negative code up the stack, and one sentence kept for the thread that failed.
 * The sentence names the file, field or key, what was expected and what was found. */
#ifndef STATUS_H
#define STATUS_H
#include "localllm.h"

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int fail(int code, const char *format, ...); /* records the sentence; returns `code` */

#define TRY(call)                          \
    do {                                   \
        int try_status = (call);           \
        if (try_status) return try_status; \
    } while (0)

#endif
