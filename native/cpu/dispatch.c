/* Which table of kernels runs: the strongest level that this machine has, was built, and LOCALLLM_CPU allows. */
#include <stddef.h>

#include "cpuinfo.h"
#include "kernels.h"
#include "status.h"

static const struct kernels *table_of(enum cpu_level level) {
#if defined(LL_X86)
    if (level == CPU_AMX) return kernels_amx();
    if (level == CPU_AVX512) return kernels_avx512();
    if (level == CPU_AVX2) return kernels_avx2();
#endif
    return level == CPU_SCALAR ? &kernels_scalar : NULL;
}

const struct kernels *kernels_for(const char *name) {
    struct cpu_answers answers;
    enum cpu_level level = CPU_SCALAR, machine;
    const struct kernels *table;
    if (!name) {
        if (cpu_level_in_use(&level)) return NULL;
        while (!(table = table_of(level))) level--; /* a level that was not built means the one below */
        return table;
    }
    cpu_ask(&answers);
    machine = cpu_level_of(cpu_features(&answers));
    if (!cpu_level_named(name, &level)) {
        fail(LL_EINVAL, "instruction-set level: expected scalar, avx2, avx512 or amx, found '%s'", name);
        return NULL;
    }
    if (level > machine || !(table = table_of(level))) {
        fail(LL_EUNSUPPORTED, "instruction-set level '%s': this machine has '%s'", name, cpu_level_name(machine));
        return NULL;
    }
    return table;
}
