/* The compiled shapes of the generic kernels, for one 16-bit element type. */
#include "flash_launch.h"
#include "generic_mma.cuh"
#include "launch.cuh"

template <class T> static int generic_ready()
{
    static_assert(T::SMEM <= FLASH_LEAST_SMEM, "it serves every chip");
    return allow_smem(generic_attention_kernel<T>, T::SMEM);
}

template <class T>
static int generic_launch(const flash_problem *p, const flash_device *, void *stream)
{
    const dim3 grid((unsigned)((p->nq + T::ROWS - 1) / T::ROWS * (int64_t)p->b * p->h), 1,
                    (unsigned)(p->dv > 0 ? (p->dv + T::DV - 1) / T::DV : 1));
    return launch(generic_attention_kernel<T>, grid, T::THREADS, T::SMEM, stream, false, 1, *p);
}

template <class T> static int second_ready()
{
    static_assert(T::MASS_SMEM <= FLASH_LEAST_SMEM, "it serves every chip");
    return allow_smem(generic_mass_kernel<T>, T::MASS_SMEM);
}

template <class T>
static int second_launch(const flash_problem *p, const flash_device *, void *stream)
{
    return launch(generic_mass_kernel<T>,
                  dim3((unsigned)((p->nk + T::BN - 1) / T::BN * (int64_t)p->b * p->h)), T::THREADS,
                  T::MASS_SMEM, stream, false, 1, *p);
}

#define GENERIC(D, DV, BN)                                                                         \
    {                                                                                              \
        generic_ready<GenericShape<D, DV, BN, GENERIC_BF>>,                                        \
            generic_launch<GenericShape<D, DV, BN, GENERIC_BF>>                                    \
    }
#define SECOND(D, BN)                                                                              \
    {                                                                                              \
        second_ready<GenericShape<D, 64, BN, GENERIC_BF>>,                                         \
            second_launch<GenericShape<D, 64, BN, GENERIC_BF>>                                     \
    }

const flash_entry GENERIC_TABLE[FLASH_GENERIC_COUNT] = {
    GENERIC(64, 64, 64), GENERIC(128, 128, 64), GENERIC(256, 256, 32), GENERIC(512, 256, 16)};
const flash_entry SECOND_TABLE[FLASH_GENERIC_COUNT] = {SECOND(64, 64), SECOND(128, 64),
                                                       SECOND(256, 64), SECOND(512, 32)};
