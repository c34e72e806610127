/* Arithmetic on numbers that a file holds. Each function says whether the true result fits; nothing else in the
 * library adds, multiplies or rounds up a number from a file before these have bounded it. */
#ifndef CHECKED_H
#define CHECKED_H
#include <stdbool.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out) {
    *out = a + b;
    return *out >= a;
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out) {
    *out = a * b;
    return a == 0 || b <= UINT64_MAX / a;
}

/* a rounded up to a multiple of `alignment`, a power of two. */
static inline bool checked_align(uint64_t a, uint64_t alignment, uint64_t *out) {
    bool fits = checked_add(a, alignment - 1, out);
    *out &= ~(alignment - 1);
    return fits;
}

/* Whether [offset, offset + bytes) lies in [0, size). */
static inline bool checked_range(uint64_t offset, uint64_t bytes, uint64_t size) {
    return offset <= size && bytes <= size - offset;
}

#endif
