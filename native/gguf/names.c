/* A sorted index of names, for finding keys and tensors and for refusing doubles. A file cannot choose collisions. */
#include <stdlib.h>
#include <string.h>

#include "parse.h"

static int compare(const void *a, const void *b) {
    const struct name *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    return memcmp(x->text, y->text, x->length);
}

void names_sort(struct name *names, uint64_t n) {
    if (n > 0) qsort(names, n, sizeof *names, compare);
}

const struct name *names_twice(const struct name *names, uint64_t n) {
    for (uint64_t i = 1; i < n; i++) {
        if (compare(&names[i - 1], &names[i]) == 0) return &names[i];
    }
    return NULL;
}

const struct name *names_find(const struct name *names, uint64_t n, const char *text) {
    struct name key = {.text = text, .length = strlen(text)};
    return n > 0 ? bsearch(&key, names, n, sizeof *names, compare) : NULL;
}
