/* fp32 key_mass of few keys: which calls, in blocks of how many queries, with how much shared
 * memory. Plain C, shared by the kernel, its launcher and the choice of kernels. */
#ifndef FLASH_PLAIN_H
#define FLASH_PLAIN_H

#include "flash_kernel.h"

#include <stddef.h>

#ifdef __CUDACC__
#define FLASH_BOTH __host__ __device__
#else
#define FLASH_BOTH
#endif

/* FLASH_PLAIN_TILE: keys in a tile. FLASH_PLAIN_PASSES: of 64 columns each, at most. */
enum { FLASH_PLAIN_TILE = 64, FLASH_PLAIN_KEYS = 128, FLASH_PLAIN_PASSES = 3 };

/* Floats from a row to the next: 16-byte pieces of 8 rows one below the other lie in 8 places of
 * the banks. */
FLASH_BOTH static inline int flash_plain_pitch(int width)
{
    return ((width + 3) / 4 | 1) * 4;
}

/* Queries of a block: 64, or fewer where that leaves multiprocessors idle (an A100 has 108). */
static inline int flash_plain_rows(const flash_problem *p)
{
    int rows = 64;
    while (rows > 16 && (int64_t)((p->nq + rows - 1) / rows) * p->b * p->h < 108)
        rows /= 2;
    return rows;
}

static inline size_t flash_plain_smem(const flash_problem *p, int rows)
{
    const int wide = p->d > p->dv ? p->d : p->dv,
              keys = (p->nk + FLASH_PLAIN_TILE - 1) / FLASH_PLAIN_TILE * FLASH_PLAIN_TILE;
    return sizeof(float) * (size_t)(rows * flash_plain_pitch(p->d) +
                                    2 * FLASH_PLAIN_TILE * flash_plain_pitch(wide) +
                                    rows * flash_plain_pitch(keys) + rows);
}

#endif
