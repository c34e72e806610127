/* The rounding mode and denormal handling of the calling thread. A host program may have changed them (audio and
 * graphics code flushes denormals), and the same request must give the same bits there too. */
#ifndef FLOAT_ENV_H
#define FLOAT_ENV_H
#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>

/* Round to nearest, denormals kept, no traps; returns what was set before. */
static inline uint32_t float_env_enter(void) {
    uint32_t before = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return before;
}
static inline void float_env_leave(uint32_t before) { _mm_setcsr(before); }
#else
static inline uint32_t float_env_enter(void) { return 0; }
static inline void float_env_leave(uint32_t before) { (void)before; }
#endif

#endif
