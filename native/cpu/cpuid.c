/* What this processor and the kernel answer about instruction sets; cpuinfo.c says what that means. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "cpuinfo.h"

#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__)
static bool ask_for_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

void cpu_ask(struct cpu_answers *out) {
    uint32_t a, b, c, d;
    *out = (struct cpu_answers){0};
    if (__get_cpuid(1, &a, &b, &c, &d)) out->leaf1_ecx = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        out->leaf7_ebx = b;
        out->leaf7_ecx = c;
        out->leaf7_edx = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) out->leaf7_1_eax = a;
    }
    if (out->leaf1_ecx >> 27 & 1) { /* OSXSAVE: XGETBV may be executed */
        __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
        out->xcr0 = (uint64_t)d << 32 | a;
    }
    if (out->leaf7_edx >> 24 & 1) out->tiles_granted = ask_for_tiles();
}
#else
void cpu_ask(struct cpu_answers *out) { *out = (struct cpu_answers){0}; }
#endif

/* Measured for one token's products (docs/kernels.md): Sapphire Rapids reads most with 2 kB, Zen 5 with 8 kB. */
int32_t cpu_read_ahead(void) {
#if defined(__x86_64__)
    uint32_t a, b, c, d;
    if (__get_cpuid(0, &a, &b, &c, &d) && b == 0x68747541) return 8192; /* "Auth", of AuthenticAMD */
#endif
    return 2048;
}
