/* The compiled shapes of the short kernel, for one element type. */
#include "flash_launch.h"
#include "launch.cuh"
#include "sm90_short_pair.cuh"
#include "tile_map.cuh"

#define SHORT_PROMOTION CU_TENSOR_MAP_L2_PROMOTION_L2_128B

template <class T> static int short_ready()
{
    return allow_smem(flash_short_kernel<T>, T::SMEM);
}

template <class T>
static int short_fill(flash_short_args *args, const flash_problem *p, const flash_device *device)
{
    void *const encode = device->encode;
    memset(args, 0, sizeof *args);
    args->p = *p;
    if (T::TMA &&
        (!encode || tile_map(&args->q, T::BF, p->q, p->nq, p->h, *p, 64, encode, SHORT_PROMOTION) ||
         tile_map(&args->k, T::BF, p->k, p->nk, p->hkv, *p, T::BN, encode, SHORT_PROMOTION) ||
         tile_map(&args->v, T::BF, p->v, p->nk, p->hkv, *p, T::BN, encode, SHORT_PROMOTION)))
        return FLASH_NO_MAP;
    return 0;
}

template <class T>
static int short_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    constexpr int QUERIES = T::QUERIES * T::TURNS;
    flash_short_args args;
    const int code = short_fill<T>(&args, p, device);
    if (code)
        return code;
    const int64_t tiles = (int64_t)((p->nq + QUERIES - 1) / QUERIES) * p->b * p->h;
    const bool clustered = T::MASS && !p->scratch; /* one block a head, up to 8 */
    return launch(flash_short_kernel<T>, dim3((unsigned)tiles), T::THREADS, T::SMEM, stream, true,
                  clustered ? p->h : 1, args);
}

/* Few tiles of 64 rows: a pair of blocks each. */
template <class Whole, class Half> static int pair_ready()
{
    const int code = short_ready<Whole>();
    return code ? code : allow_smem(flash_pair_kernel<Half>, PairShape<Half>::SMEM);
}

template <class Whole, class Half>
static int pair_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    flash_short_args args;
    if (!flash_pair(p, device->sms))
        return short_launch<Whole>(p, device, stream);
    const int code = short_fill<Half>(&args, p, device);
    if (code)
        return code;
    const int64_t tiles = (int64_t)((p->nq + 63) / 64) * p->b * p->h;
    return launch(flash_pair_kernel<Half>, dim3((unsigned)tiles * 2), Half::THREADS,
                  PairShape<Half>::SMEM, stream, true, 2, args);
}

#define SHORT(D, BN, ROWS, SPLIT, TURNS, BLOCKS, MASS)                                             \
    {                                                                                              \
        short_ready<ShortShape<D, BN, ROWS, SPLIT, TURNS, BLOCKS, MASS, SHORT_BF>>,                \
            short_launch<ShortShape<D, BN, ROWS, SPLIT, TURNS, BLOCKS, MASS, SHORT_BF>>            \
    }

#define PAIR(D)                                                                                    \
    {                                                                                              \
        pair_ready<ShortShape<D, 128, 1, 2, 1, 1, false, SHORT_BF>,                                \
                   ShortShape<D, 128, 1, 1, 1, 1, false, SHORT_BF, true>>,                         \
            pair_launch<ShortShape<D, 128, 1, 2, 1, 1, false, SHORT_BF>,                           \
                        ShortShape<D, 128, 1, 1, 1, 1, false, SHORT_BF, true>>                     \
    }

/* [set][in the order of FLASH_SHORT_DIMS]; with column sums a block has 64 queries, as flash_select
 * counts */
const flash_entry SHORT_TABLE[FLASH_SHORT_SETS][FLASH_SHORT_COUNT] = {
    {SHORT(40, 64, 2, 1, 2, 2, false), SHORT(64, 64, 2, 1, 1, 2, false),
     SHORT(80, 64, 2, 1, 1, 2, false), SHORT(128, 64, 1, 1, 1, 2, false),
     SHORT(160, 64, 1, 1, 1, 2, false)},
    {SHORT(40, 80, 2, 1, 2, 2, false), SHORT(64, 80, 2, 1, 1, 2, false),
     SHORT(80, 80, 2, 1, 1, 2, false), SHORT(128, 80, 1, 1, 1, 2, false),
     SHORT(160, 80, 1, 1, 1, 2, false)},
    {SHORT(40, 128, 1, 1, 1, 4, false), SHORT(64, 128, 2, 1, 1, 2, false),
     SHORT(80, 128, 1, 1, 1, 3, false), SHORT(128, 128, 1, 1, 1, 2, false),
     SHORT(160, 128, 1, 1, 1, 1, false)},
    {SHORT(40, 128, 1, 2, 1, 2, false), SHORT(64, 128, 1, 2, 1, 2, false), PAIR(80), PAIR(128),
     PAIR(160)},
    {SHORT(40, 64, 1, 1, 1, 1, true), SHORT(64, 64, 1, 1, 1, 1, true),
     SHORT(80, 64, 1, 1, 1, 1, true), SHORT(128, 64, 1, 1, 1, 1, true),
     SHORT(160, 64, 1, 1, 1, 1, true)},
    {SHORT(40, 128, 1, 2, 1, 1, true), SHORT(64, 128, 1, 2, 1, 1, true),
     SHORT(80, 128, 1, 2, 1, 1, true), SHORT(128, 128, 1, 2, 1, 1, true),
     SHORT(160, 128, 1, 2, 1, 1, true)},
};
