/* The long kernel from the host. */
#ifndef FLASH_SM90_LONG_LAUNCH_CUH
#define FLASH_SM90_LONG_LAUNCH_CUH

#include "flash_launch.h"
#include "launch.cuh"
#include "sm90_long.cuh"
#include "tile_map.cuh"

template <bool BF>
static int long_map(CUtensorMap *map, const flash_view &v, const flash_problem &p, int rows,
                    void *encode)
{
    return tile_map(map, BF, v, p.nk, p.hkv, p, rows, encode);
}

template <class T> static int long_ready()
{
    return allow_smem(flash_long_kernel<T>, T::SMEM);
}

template <class T>
static int long_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    const int64_t tiles = (int64_t)((p->nq + T::ROWS * 64 - 1) / (T::ROWS * 64)) * p->b * p->h;
    const int64_t least = (tiles + T::MAX_TILES - 1) / T::MAX_TILES,
                  want = tiles < device->sms ? tiles : device->sms;
    flash_long_args args;
    memset(&args, 0, sizeof args);
    args.p = *p;
    if (T::TMA &&
        (!device->encode || long_map<T::BF>(&args.k, p->k, *p, T::BN / 2, device->encode) ||
         long_map<T::BF>(&args.v, p->v, *p, T::BN / 2, device->encode) ||
         tile_map(&args.q, T::BF, p->q, p->nq, p->h, *p, 64, device->encode) ||
         tile_map(&args.out, T::BF, p->out, p->nq, p->h, *p, 16, device->encode)))
        return FLASH_NO_MAP;
    return launch(flash_long_kernel<T>, dim3((unsigned)(want > least ? want : least)), T::THREADS,
                  T::SMEM, stream, true, 1, args);
}

#endif
