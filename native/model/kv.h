/* Geometry of the paged KV pool. A block holds block_size tokens of every layer, so that a block is one piece of
 * memory to copy, share or drop: (layer, key or value, KV head, slot, head_dim). A slot's row is head_dim values of
 * the KV type; of q8_0 it is head_dim / 32 blocks of a half-precision scale and 32 codes. */
#ifndef KV_H
#define KV_H
#include <stdint.h>
#include "localllm.h"
#include "model.h"

struct kv_layout {
    int32_t type, block_size;
    int64_t row_bytes;   /* one head of one token */
    int64_t head_bytes;  /* block_size rows */
    int64_t plane_bytes; /* the keys, or the values, of one layer */
    int64_t layer_bytes; /* both */
    int64_t block_bytes; /* all layers */
};

/* Fails when the KV type is unknown or head_dim does not fit it, and when a block would overflow. */
int kv_layout_init(struct kv_layout *out, const struct model *m, int32_t kv_type, int32_t block_size);

/* Offset in the pool of the first slot of a head: add slot * row_bytes. */
static inline int64_t kv_offset(const struct kv_layout *kv, int32_t block, int32_t layer, int32_t value, int32_t head) {
    return block * kv->block_bytes + layer * kv->layer_bytes + value * kv->plane_bytes + head * kv->head_bytes;
}

#endif
