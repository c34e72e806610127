/* What the core itself asks of a mapped GGUF file: keys by name and type, tensors by name. The rest is public
 * (localllm_abi.h). A key of the wrong type is an error that names the file, the key, both types. */
#ifndef GGUF_H
#define GGUF_H
#include <stdbool.h>
#include "localllm.h"

const char *gguf_path(const ll_gguf *file);
bool gguf_find_kv(const ll_gguf *file, const char *key, ll_kv *out);
bool gguf_find_tensor(const ll_gguf *file, const char *name, ll_tensor *out);

/* Absent keys give the default; `required` ones fail instead. Any integer type is taken if its value fits. */
int gguf_u32(const ll_gguf *file, const char *key, bool required, uint32_t fallback, uint32_t *out);
int gguf_f32(const ll_gguf *file, const char *key, bool required, float fallback, float *out);
int gguf_bool(const ll_gguf *file, const char *key, bool fallback, bool *out);
/* Copies at most size - 1 bytes and ends with 0; a longer value is an error. Absent: the empty string. */
int gguf_string(const ll_gguf *file, const char *key, bool required, char *out, uint64_t size);

#endif
