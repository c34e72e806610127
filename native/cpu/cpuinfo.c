#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "cpuinfo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include "status.h"

/* ---- instruction sets ---- */

enum { ZMM_BITS = 0xe6, YMM_BITS = 0x06, TILE_BITS = 0x60000 }; /* of XCR0 */

static const struct {
    enum cpu_feature bit;
    const char *name;
} feature_names[] = {
    {CPU_HAS_AVX2, "avx2"},
    {CPU_HAS_FMA, "fma"},
    {CPU_HAS_F16C, "f16c"},
    {CPU_HAS_AVX_VNNI, "avx_vnni"},
    {CPU_HAS_AVX512F, "avx512f"},
    {CPU_HAS_AVX512BW, "avx512bw"},
    {CPU_HAS_AVX512DQ, "avx512dq"},
    {CPU_HAS_AVX512VL, "avx512vl"},
    {CPU_HAS_AVX512_VNNI, "avx512_vnni"},
    {CPU_HAS_AVX512_BF16, "avx512_bf16"},
    {CPU_HAS_AMX_TILE, "amx_tile"},
    {CPU_HAS_AMX_INT8, "amx_int8"},
    {CPU_HAS_AMX_BF16, "amx_bf16"},
    {CPU_HAS_AVX512_VBMI, "avx512_vbmi"},
};

static const char *const level_names[CPU_LEVELS] = {"scalar", "avx2", "avx512", "amx"};

static const uint32_t level_needs[CPU_LEVELS] = {
    [CPU_AVX2] = CPU_HAS_AVX2 | CPU_HAS_FMA | CPU_HAS_F16C,
    [CPU_AVX512] = CPU_HAS_AVX512F | CPU_HAS_AVX512BW | CPU_HAS_AVX512DQ | CPU_HAS_AVX512VL | CPU_HAS_AVX512_VNNI,
    [CPU_AMX] = CPU_HAS_AVX512_VBMI | CPU_HAS_AVX512_BF16 | CPU_HAS_AMX_TILE | CPU_HAS_AMX_INT8 | CPU_HAS_AMX_BF16,
};

uint32_t cpu_features(const struct cpu_answers *w) {
    uint32_t found = 0;
    bool ymm = (w->xcr0 & YMM_BITS) == YMM_BITS, zmm = (w->xcr0 & ZMM_BITS) == ZMM_BITS;
    bool tiles = (w->xcr0 & TILE_BITS) == TILE_BITS && w->tiles_granted;
    const struct {
        bool saved;
        uint32_t word;
        int bit;
        uint32_t feature;
    } tests[] = {
        {ymm, w->leaf7_ebx, 5, CPU_HAS_AVX2},         {ymm, w->leaf1_ecx, 12, CPU_HAS_FMA},
        {ymm, w->leaf1_ecx, 29, CPU_HAS_F16C},        {ymm, w->leaf7_1_eax, 4, CPU_HAS_AVX_VNNI},
        {zmm, w->leaf7_ebx, 16, CPU_HAS_AVX512F},     {zmm, w->leaf7_ebx, 30, CPU_HAS_AVX512BW},
        {zmm, w->leaf7_ebx, 17, CPU_HAS_AVX512DQ},    {zmm, w->leaf7_ebx, 31, CPU_HAS_AVX512VL},
        {zmm, w->leaf7_ecx, 11, CPU_HAS_AVX512_VNNI}, {zmm, w->leaf7_1_eax, 5, CPU_HAS_AVX512_BF16},
        {tiles, w->leaf7_edx, 24, CPU_HAS_AMX_TILE},  {tiles, w->leaf7_edx, 25, CPU_HAS_AMX_INT8},
        {tiles, w->leaf7_edx, 22, CPU_HAS_AMX_BF16},  {zmm, w->leaf7_ecx, 1, CPU_HAS_AVX512_VBMI},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (tests[i].saved && (tests[i].word >> tests[i].bit & 1)) found |= tests[i].feature;
    return found;
}

enum cpu_level cpu_level_of(uint32_t features) {
    int level = CPU_SCALAR;
    while (level + 1 < CPU_LEVELS && (features & level_needs[level + 1]) == level_needs[level + 1]) level++;
    return (enum cpu_level)level;
}

const char *cpu_level_name(enum cpu_level level) { return level_names[level]; }

bool cpu_level_named(const char *name, enum cpu_level *out) {
    for (int level = 0; level < CPU_LEVELS; level++) {
        if (strcmp(name, level_names[level]) != 0) continue;
        *out = (enum cpu_level)level;
        return true;
    }
    return false;
}

int cpu_level_in_use(enum cpu_level *out) {
    struct cpu_answers answers;
    enum cpu_level cap = CPU_AMX;
    const char *wish = getenv("LOCALLLM_CPU");
    if (wish && *wish && !cpu_level_named(wish, &cap))
        return fail(LL_EINVAL, "LOCALLLM_CPU: expected scalar, avx2, avx512 or amx, found '%s'", wish);
    cpu_ask(&answers);
    *out = cpu_level_of(cpu_features(&answers));
    if (*out > cap) *out = cap;
    return LL_OK;
}

const char *ll_cpu_level(void) {
    enum cpu_level level = CPU_SCALAR;
    return cpu_level_in_use(&level) ? "invalid" : cpu_level_name(level);
}

const char *ll_cpu_features(void) {
    static _Thread_local char text[256];
    struct cpu_answers answers;
    size_t used = 0;
    cpu_ask(&answers);
    uint32_t features = cpu_features(&answers);
    text[0] = 0;
    for (size_t i = 0; i < sizeof feature_names / sizeof *feature_names; i++)
        if (features & feature_names[i].bit)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? " " : "", feature_names[i].name);
    return text;
}

/* ---- cores ---- */

/* The quota of the group at `path` under `mount` in whole cores, rounded up; 0 when it has none. */
static int32_t group_quota(const char *mount, const char *path, bool unified) {
    char name[4608];
    long long quota = 0, period = 0;
    int got = 0;
    FILE *file;
    snprintf(name, sizeof name, unified ? "%s%s/cpu.max" : "%s/cpu%s/cpu.cfs_quota_us", mount, path);
    if (!(file = fopen(name, "r"))) return 0;
    got = fscanf(file, unified ? "%lld %lld" : "%lld", &quota, &period); /* "max" reads as nothing */
    fclose(file);
    if (!unified) {
        snprintf(name, sizeof name, "%s/cpu%s/cpu.cfs_period_us", mount, path);
        if (!(file = fopen(name, "r"))) return 0;
        got += fscanf(file, "%lld", &period);
        fclose(file);
    }
    if (got != 2 || quota <= 0 || period <= 0) return 0;
    long long cores = quota / period + (quota % period != 0);
    return cores < 1 << 20 ? (int32_t)cores : 0;
}

/* Does a comma-separated list of controllers name the one for processor time? */
static bool names_cpu(const char *list, size_t length) {
    while (length) {
        const char *comma = memchr(list, ',', length);
        size_t word = comma ? (size_t)(comma - list) : length;
        if (word == 3 && memcmp(list, "cpu", 3) == 0) return true;
        list += word + (comma != NULL);
        length -= word + (comma != NULL);
    }
    return false;
}

int32_t cpu_quota(const char *mount, const char *membership) {
    char line[4096];
    int32_t tightest = 0;
    FILE *file = fopen(membership, "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) { /* "hierarchy:controllers:path" */
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        size_t length = (size_t)(path - controllers - 1);
        if (length && !names_cpu(controllers + 1, length)) continue;
        path++;
        path[strcspn(path, "\n")] = 0;
        for (bool more = true; more;) { /* the group itself and every one above it bind */
            char *slash = strrchr(path, '/');
            if (slash && slash[1] == 0) *slash = 0; /* the root group is the mount itself */
            int32_t quota = group_quota(mount, path, length == 0);
            if (quota && (!tightest || quota < tightest)) tightest = quota;
            more = (slash = strrchr(path, '/')) != NULL;
            if (slash) *slash = 0;
        }
    }
    fclose(file);
    return tightest;
}

static int32_t affinity_count(void) {
#if defined(__linux__)
    for (size_t cpus = 1024; cpus <= 1 << 20; cpus *= 4) { /* the call fails while the mask is too small */
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set) break;
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        int found = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (found) return found;
    }
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int32_t)online : 1;
}

int32_t cpu_count(void) {
    int32_t count = affinity_count(), quota = cpu_quota("/sys/fs/cgroup", "/proc/self/cgroup");
    if (quota && quota < count) count = quota;
    return count > 0 ? count : 1;
}
