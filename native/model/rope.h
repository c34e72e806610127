/* Rotary position embedding (Su et al. 2021, RoFormer): how fast each pair of a head turns, with the scalings that
 * stretch a model's context: linear (Chen et al. 2023), per-frequency factors stored in the file (Llama 3.1), and
 * YaRN (Peng et al. 2023). */
#ifndef ROPE_H
#define ROPE_H
#include "gguf/gguf.h"
#include "model.h"

/* Reads the rope keys of `arch` into m (rope_dims, rope_magnitude) and fills freqs (rope_dims / 2), which holds
 * head_dim / 2 values. */
int rope_init(struct model *m, const ll_gguf *file, const char *arch, float *freqs);

/* cosine and sine of one token's pairs: out is (rope_dims / 2, 2). */
void rope_rotation(const struct model *m, int32_t position, float *out);

#endif
