/* The weights after those at work, of which the processor is told meanwhile, one cache line at each of many places in
 * the code: a burst fills its line buffers, and everything waits. Rows that are read side by side escape its own
 * prefetcher, but the rows after them are one stretch of memory. A prefetch beyond a mapping does nothing.
 *
 * Two cores with arithmetic between lines that takes about as long as they do got 28 GB/s from one line per line, 15
 * to 18 from 36 lines at every 36th, and 12 from none, where plain reading gave 34. */
#ifndef STREAM_H
#define STREAM_H
#include <immintrin.h>
#include <stdint.h>

/* Into which cache. Tiles fill the first level themselves; elsewhere rows may wait there: two and eight tokens of Q4_0
 * from memory took 35 and 44 ps per weight by way of the second level, 24 and 38 by the first (Zen 5). */
#if defined(__AMX_TILE__)
#define FETCH_INTO _MM_HINT_T1
#else
#define FETCH_INTO _MM_HINT_T0
#endif

/* Where it stands, where it ends, and how many bytes a place in the unpacking of rows or in their products moves on. */
struct stream { uintptr_t at, end, unpacking, multiplying; };

static inline void fetch_on(struct stream *s, uintptr_t step) {
    _mm_prefetch((const char *)s->at, FETCH_INTO);
    s->at += step;
}

/* A whole line, up to the end. */
static inline void fetch_line(struct stream *s) {
    if (s->at < s->end) fetch_on(s, 64);
}

/* What is left when the places were fewer than the lines. */
static inline void fetch_rest(struct stream *s) {
    for (; s->at < s->end; s->at += 64) _mm_prefetch((const char *)s->at, FETCH_INTO);
}

/* How far to move at a place when `bytes` are shared out over so many of both kinds, and unpacking takes as long as
 * multiplying with `as_long` tokens. Once for all chunks: it divides. */
static inline struct stream paced(int64_t bytes, int32_t tokens, int32_t as_long, int64_t unpacking,
                                  int64_t multiplying) {
    int64_t multiply = bytes * tokens / (tokens + as_long) / multiplying + 1;
    if (multiply > 64) multiply = 64;
    int64_t unpack = (bytes - multiply * multiplying) / unpacking + 1;
    if (unpack < 0) unpack = 0;
    if (unpack > 64) unpack = 64;
    return (struct stream){0, 0, (uintptr_t)unpack, (uintptr_t)multiply};
}

static inline void start_stream(struct stream *s, uintptr_t at, int64_t bytes) {
    s->at = at;
    s->end = at + (uintptr_t)bytes;
}

#endif
