/* The architectures that can run, one table row each. A row says only what the GGUF file does not. */
#ifndef ARCH_H
#define ARCH_H
#include <stdbool.h>
#include "model.h"

struct arch {
    const char *name;      /* general.architecture, and the prefix of its keys */
    enum rope_style rope;  /* which pairs of a head rotate together */
    bool qkv_bias;         /* the products of attention's input must have biases; otherwise they may */
    bool head_norm;        /* every head of q and k is normed before it rotates */
};

const struct arch *arch_find(const char *name); /* NULL when it is not in the table */

#endif
