/* The public header: localllm_abi.h with what a C compiler needs around it. Everything else is hidden. */
#ifndef LOCALLLM_H
#define LOCALLLM_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
#include "localllm_abi.h"
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
