/* Adding an architecture whose block is that of these is adding a row here. */
#include "arch.h"

#include <stddef.h>
#include <string.h>

static const struct arch archs[] = {
    {"llama", ROPE_INTERLEAVED, false, false}, /* Llama 2 and 3, Mistral, SmolLM, TinyLlama */
    {"qwen2", ROPE_HALVES, true, false},
    {"qwen3", ROPE_HALVES, false, true},
};

const struct arch *arch_find(const char *name) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (!strcmp(archs[i].name, name)) return &archs[i];
    }
    return NULL;
}

const char *ll_arch_names(void) { return "llama, qwen2, qwen3"; }
