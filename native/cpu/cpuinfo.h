/* What this processor may be asked to do: instruction sets whose registers the operating system saves too, and how
 * many cores this process may use. The machine's answers are a plain struct, so that tests can play any machine. */
#ifndef CPUINFO_H
#define CPUINFO_H
#include <stdbool.h>
#include <stdint.h>

/* The levels, each with all that is below it. avx2 is AVX2 + FMA + F16C, faster with AVX-VNNI; avx512 is F + BW + DQ +
 * VL + VNNI; amx is AMX tiles with int8 and bf16 products, BF16 and VBMI. A machine that lacks a part of a level has
 * the level below. */
enum cpu_level { CPU_SCALAR, CPU_AVX2, CPU_AVX512, CPU_AMX, CPU_LEVELS };

enum cpu_feature {
    CPU_HAS_AVX2 = 1 << 0,
    CPU_HAS_FMA = 1 << 1,
    CPU_HAS_F16C = 1 << 2,
    CPU_HAS_AVX_VNNI = 1 << 3,
    CPU_HAS_AVX512F = 1 << 4,
    CPU_HAS_AVX512BW = 1 << 5,
    CPU_HAS_AVX512DQ = 1 << 6,
    CPU_HAS_AVX512VL = 1 << 7,
    CPU_HAS_AVX512_VNNI = 1 << 8,
    CPU_HAS_AVX512_BF16 = 1 << 9,
    CPU_HAS_AMX_TILE = 1 << 10,
    CPU_HAS_AMX_INT8 = 1 << 11,
    CPU_HAS_AMX_BF16 = 1 << 12,
    CPU_HAS_AVX512_VBMI = 1 << 13
};

struct cpu_answers {
    uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax; /* CPUID */
    uint64_t xcr0;      /* register states that the system saves; 0 where XGETBV is not enabled */
    bool tiles_granted; /* Linux gives tile registers only to a process that asked for them */
};

void cpu_ask(struct cpu_answers *out); /* asks this machine, and the kernel for tile registers */
uint32_t cpu_features(const struct cpu_answers *answers);
enum cpu_level cpu_level_of(uint32_t features);

const char *cpu_level_name(enum cpu_level level);
bool cpu_level_named(const char *name, enum cpu_level *out);

/* The level in use: this machine's, capped by LOCALLLM_CPU; a value that names no level is LL_EINVAL.
 * ll_cpu_level() then says "invalid", and ll_error() holds the reason. */
int cpu_level_in_use(enum cpu_level *out);

/* Bytes by which a long walk through memory tells the processor in advance what it will read. */
int32_t cpu_read_ahead(void);

/* Cores that this process may use: its affinity mask, and its control group's quota rounded up. At least 1. */
int32_t cpu_count(void);
/* The tightest quota, in whole cores, on the way from each group listed in the file `membership`
 * (/proc/self/cgroup) to the root of the hierarchy mounted at `mount`; 0 when there is none. */
int32_t cpu_quota(const char *mount, const char *membership);

#endif
