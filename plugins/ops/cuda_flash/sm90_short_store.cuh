/* The short kernel's way out: straight from registers; for rows of 80 bytes, whose columns are no
 * pairs of tiles, through what was Q's place, laid out as Q was. */
#ifndef FLASH_SM90_SHORT_STORE_CUH
#define FLASH_SM90_SHORT_STORE_CUH

#include "sm90_short_shape.cuh"

/* Neighbouring lanes trade halves of two tiles of 8 columns, so that a row's 32 bytes are written
 * at once. */
template <class T, int COLUMNS, int FROM>
FLASH_DEVICE void short_store_direct(const flash_problem &a, const ShortPlace<T> &w,
                                     const float (&o)[COLUMNS / 2], float f0, float f1, int row0)
{
    const int lane = threadIdx.x & 31, odd = lane & 1,
              row = row0 + w.rowgroup * 64 + ((threadIdx.x >> 5) & 3) * 16 + (lane >> 2),
              column = FROM + odd * 8 + (lane & 2) * 2;
    uint16_t *at =
        (uint16_t *)a.out.data + w.b * a.out.batch + w.h * a.out.head + row * a.out.row + column;
    static_assert(COLUMNS % 16 == 0, "tiles go in pairs");
#pragma unroll
    for (int r = 0; r < 2; ++r, at += 8 * a.out.row) {
        const float f = r ? f1 : f0;
        const bool in = row + r * 8 < a.nq;
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j += 2) {
            const float *x = o + j * 4 + r * 2;
            const uint32_t left = pack2<T::BF>(x[0] * f, x[1] * f),
                           right = pack2<T::BF>(x[4] * f, x[5] * f),
                           got = __shfl_xor_sync(0xffffffffu, odd ? left : right, 1);
            if (in && column + j * 8 < a.d)
                *(uint2 *)(at + j * 8) = odd ? make_uint2(got, right) : make_uint2(left, got);
        }
    }
}

/* Columns FROM to FROM + COLUMNS of a warp's 16 rows, the factors' times o. */
template <class T, int COLUMNS, int FROM>
FLASH_DEVICE void short_store(const flash_problem &a, const ShortPlace<T> &w,
                              const float (&o)[COLUMNS / 2], float f0, float f1, uint32_t staged,
                              int row0)
{
    if constexpr (T::TMA) {
        short_store_direct<T, COLUMNS, FROM>(a, w, o, f0, f1, row0);
    } else {
        const int warp = (threadIdx.x >> 5) & 3, row = row0 + w.rowgroup * 64 + warp * 16;
        const uint32_t rows = staged + w.rowgroup * T::CHUNKS * 8192 + warp * 2048;
        rows_to_shared<T::BF, COLUMNS, FROM, 8192>(rows, o, f0, f1);
        __syncwarp();
        rows_to_global<COLUMNS, FROM, 8192>((uint16_t *)a.out.data + w.b * a.out.batch +
                                                w.h * a.out.head + row * a.out.row,
                                            a.out.row, rows, a.nq - row, a.d);
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
