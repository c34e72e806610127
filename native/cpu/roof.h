/* What this machine can do at most, whatever a program makes of it: the bytes it reads from memory and the
 * multiply-adds of its widest int8 and bf16 units, with a number of threads at once. A figure of speed means something
 * beside these. The units are those of the level in use, so LOCALLLM_CPU lowers the roof too.
 *
 * Each figure is the best of several passes: other work on the machine can only lower one, never raise it. */
#ifndef ROOF_H
#define ROOF_H
#include <stddef.h>
#include <stdint.h>

/* Reads `bytes`, a multiple of 1024 from an address aligned to 64, and returns a sum of them. */
typedef uint64_t roof_read_fn(const uint8_t *p, size_t bytes);

/* Works on registers alone for about 0.1 ms and returns how many multiply-adds that were. */
typedef int64_t roof_unit_fn(void);

roof_read_fn roof_read_avx2, roof_read_avx512;
roof_unit_fn roof_int8_avx2, roof_int8_avx_vnni;   /* vpmaddubsw; vpdpbusd of 32 bytes */
roof_unit_fn roof_int8_avx512, roof_bf16_avx512;   /* vpdpbusd and vdpbf16ps of 64 bytes */
roof_unit_fn roof_int8_amx, roof_bf16_amx;         /* tdpbssd; tdpbf16ps */

#endif
