/* Which table of kernels runs: the strongest level that this machine has, was built, and LOCALLLM_CPU allows. */
#include <stddef.h>
#include <string.h>

#include "cpuinfo.h"
#include "kernels.h"
#include "status.h"

/* AVX-VNNI makes level avx2 faster and changes no bit, so it is no level of its own. Tests name the table without. */
static const char without_vnni[] = "avx2 without vnni";

static const struct kernels *table_of(enum cpu_level level, uint32_t features) {
#if defined(LL_X86)
    if (level == CPU_AMX) return kernels_amx();
    if (level == CPU_AVX512) return kernels_avx512();
    if (level == CPU_AVX2) return features & CPU_HAS_AVX_VNNI ? kernels_avxvnni() : kernels_avx2();
#else
    (void)features;
#endif
    return level == CPU_SCALAR ? &kernels_scalar : NULL;
}

const struct kernels *kernels_for(const char *name) {
    struct cpu_answers answers;
    enum cpu_level level = CPU_SCALAR;
    const struct kernels *table;
    cpu_ask(&answers);
    uint32_t features = cpu_features(&answers);
    if (!name) {
        if (cpu_level_in_use(&level)) return NULL;
        while (!(table = table_of(level, features))) level--; /* a level that was not built means the one below */
        return table;
    }
    enum cpu_level machine = cpu_level_of(features);
    if (strcmp(name, without_vnni) == 0) {
        features &= ~(uint32_t)CPU_HAS_AVX_VNNI;
        name = cpu_level_name(CPU_AVX2);
    }
    if (!cpu_level_named(name, &level)) {
        fail(LL_EINVAL, "instruction-set level: expected scalar, avx2, avx512 or amx, found '%s'", name);
        return NULL;
    }
    if (level > machine || !(table = table_of(level, features))) {
        fail(LL_EUNSUPPORTED, "instruction-set level '%s': this machine has '%s'", name, cpu_level_name(machine));
        return NULL;
    }
    return table;
}
