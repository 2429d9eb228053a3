/* The short kernel's way out: O through what was Q's place, laid out as Q was. */
#ifndef FLASH_SM90_SHORT_STORE_CUH
#define FLASH_SM90_SHORT_STORE_CUH

#include "sm90_short_shape.cuh"

/* Columns FROM to FROM + COLUMNS of a warp's 16 rows, the factors' times o. */
template <class T, int COLUMNS, int FROM>
FLASH_DEVICE void short_store(const flash_short_args &g, const ShortPlace<T> &w,
                              const float (&o)[COLUMNS / 2], float f0, float f1, uint32_t staged,
                              int row0)
{
    const int warp = (threadIdx.x >> 5) & 3, row = row0 + w.rowgroup * 64 + warp * 16;
    const uint32_t rows = staged + w.rowgroup * T::CHUNKS * 8192 + warp * 2048;
    rows_to_shared<T::BF, COLUMNS, FROM, 8192>(rows, o, f0, f1);
    if constexpr (T::TMA && FROM % 64 == 0 && (COLUMNS % 64 == 0 || FROM + COLUMNS == T::D)) {
        fence_proxy_async();
        __syncwarp();
        if (elected()) {
#pragma unroll
            for (int c = FROM / 64; c * 64 < FROM + COLUMNS; ++c)
                tma_store(&g.out, rows + c * 8192, c * 64, row, w.h, w.b);
            tma_store_commit();
        }
    } else {
        __syncwarp();
        rows_to_global<COLUMNS, FROM, 8192>((uint16_t *)g.p.out.data + w.b * g.p.out.batch +
                                                w.h * g.p.out.head + row * g.p.out.row,
                                            g.p.out.row, rows, g.p.nq - row, g.p.d);
    }
}

template <class T>
FLASH_DEVICE void short_store_lse(const flash_problem &a, const ShortPlace<T> &w,
                                  const float (&shift)[2], const float (&sum)[2], int row)
{
    if ((threadIdx.x & 3) == 0)
#pragma unroll
        for (int r = 0; r < 2; ++r)
            if (row + r * 8 < a.nq)
                ((float *)
                     a.lse.data)[w.b * a.lse.batch + w.h * a.lse.head + (row + r * 8) * a.lse.row] =
                    (shift[r] + __log2f(sum[r])) * 0.69314718055994531f;
}

#endif
