/* The tensor types that localllm knows: name, values and bytes per block. Layouts and decoding are in formats.h. */
#ifndef TYPES_H
#define TYPES_H
#include "localllm.h"

struct type {
    const char *name; /* as GGUF writers spell it */
    int32_t block;    /* values per block; a row is a whole number of blocks */
    int32_t bytes;    /* per block */
};

const struct type *type_of(int32_t number); /* NULL when unknown */

#endif
