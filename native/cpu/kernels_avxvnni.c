/* Level avx2 on processors with AVX-VNNI, whose products need no pair sums in 16 bits. */
#include "one_token.h"
#include "vnni.h"

#define KERNELS kernels_avxvnni
#define LEVEL "avx2"
#define ROWS row_kernels_avx2
#include "lanes_table.h"
