/* Text from outside (paths, keys, names) made fit for a sentence: a file must not be able to drive a terminal. */
#ifndef PRINTABLE_H
#define PRINTABLE_H
#include <stdint.h>

/* Writes `length` bytes of text as printable UTF-8 to out (size bytes with the ending 0, at least 16). Control
 * characters, marks that reorder or hide text, and bytes that are no UTF-8 become \xNN; what does not fit is cut and
 * ends in "...". Returns out. */
const char *printable(char *out, uint64_t size, const char *text, uint64_t length);

#endif
