/* Integers that become floats by an addition: a sum n of magnitude below 2^22, added to the bits of 1.5 * 2^23, makes
 * the float 1.5 * 2^23 + n. So one fma gives round(n * d), the bits of (float)n * d but for the sign of a zero, as long
 * as 1.5 * 2^23 * d is exact and finite. Converting would take a port that tiles leave little of. */
#ifndef MAGIC_H
#define MAGIC_H
#include <stdbool.h>

#include "lanes.h"

enum { MAGIC = 0x4b400000 };
#define MAGIC_FLOAT 12582912.0f

/* Whether the scales of `count` blocks of sixteen rows allow it; half precision ends at 65504. */
INLINE bool takes_magic(const float (*d)[LANES], int count) {
    __mmask16 finite = 0xffff;
    for (int b = 0; b < count; b++)
        finite &= _mm512_cmp_ps_mask(_mm512_abs_ps(vf_load(d[b])), vf_set(1e5f), _CMP_LT_OQ);
    return finite == 0xffff;
}

#endif
