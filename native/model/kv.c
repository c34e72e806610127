#include "kv.h"

#include "base/status.h"
#include "quant/types.h"

int kv_layout_init(struct kv_layout *out, const struct model *m, int32_t kv_type, int32_t block_size) {
    if (kv_type != LL_F16 && kv_type != LL_BF16 && kv_type != LL_F32 && kv_type != LL_Q8_0)
        return fail(LL_EINVAL, "kv_type: expected f16, bf16, f32 or q8_0, found type %d", kv_type);
    if (block_size != 16 && block_size != 32)
        return fail(LL_EINVAL, "block_size: expected 16 or 32 tokens, found %d", block_size);
    const struct type *type = type_of(kv_type);
    if (m->head_dim % type->block)
        return fail(LL_EINVAL, "kv_type: q8_0 holds blocks of 32 values, but this model's heads have %d", m->head_dim);
    out->type = kv_type;
    out->block_size = block_size;
    out->row_bytes = (int64_t)m->head_dim / type->block * type->bytes;
    out->head_bytes = out->row_bytes * block_size;
    out->plane_bytes = out->head_bytes * m->n_kv_heads;
    out->layer_bytes = 2 * out->plane_bytes;
    out->block_bytes = out->layer_bytes * m->n_layers;
    return LL_OK;
}
