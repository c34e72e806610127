/* Memory that is asked for once, when something opens, and given back whole when it closes. A first pass with no
 * base counts; a second pass over the same calls hands out the bytes. So the plan and the allocation cannot differ. */
#ifndef ARENA_H
#define ARENA_H
#include <stddef.h>
#include <stdint.h>

struct arena {
    uint8_t *base; /* NULL while counting */
    uint64_t used;
};

enum { ARENA_ALIGN = 64 };

/* count items of `size` bytes, aligned to 64; NULL while counting. Callers check the sizes they pass. */
static inline void *arena_take(struct arena *a, uint64_t count, uint64_t size) {
    void *p = a->base ? a->base + a->used : NULL;
    a->used += (count * size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    return p;
}

#endif
