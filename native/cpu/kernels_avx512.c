/* Level avx512: the products with VNNI. */
#include "one_token.h"
#include "vnni.h"

#define KERNELS kernels_avx512
#define LEVEL "avx512"
#define ROWS row_kernels_avx512
#include "lanes_table.h"
