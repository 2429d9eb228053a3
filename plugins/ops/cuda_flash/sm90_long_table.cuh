/* The compiled shapes of the long kernel, of its second pass and of the wide kernel, for one
 * element type. */
#include "sm90_long_launch.cuh"
#include "sm90_mass.cuh"
#include "sm90_wide.cuh"

template <class T> static int mass_ready()
{
    return allow_smem(flash_mass_kernel<T>, MassLayout<T>::SMEM);
}

/* q and k change places */
template <class T>
static int mass_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    const int64_t tiles = (int64_t)((p->nk + T::ROWS * 64 - 1) / (T::ROWS * 64)) * p->b * p->h;
    flash_long_args args;
    memset(&args, 0, sizeof args);
    args.p = *p;
    args.p.q = p->k;
    args.p.k = p->q;
    args.p.nq = p->nk;
    args.p.nk = p->nq;
    if (T::TMA &&
        (!device->encode || long_map<T::BF>(&args.k, args.p.k, args.p, T::BN / 2, device->encode)))
        return FLASH_NO_MAP;
    return launch(flash_mass_kernel<T>, dim3((unsigned)(tiles < device->sms ? tiles : device->sms)),
                  T::THREADS, MassLayout<T>::SMEM, stream, true, 1, args);
}

static int wide_ready()
{
    return allow_smem(flash_wide_kernel<WideShape<LONG_BF>>, WideShape<LONG_BF>::SMEM);
}

static int wide_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    typedef WideShape<LONG_BF> T;
    flash_long_args args;
    memset(&args, 0, sizeof args);
    args.p = *p;
    if (!device->encode || long_map<T::BF>(&args.k, p->k, *p, T::BN, device->encode) ||
        long_map<T::BF>(&args.v, p->v, *p, T::BN, device->encode))
        return FLASH_NO_MAP;
    return launch(flash_wide_kernel<T>,
                  dim3((unsigned)((p->nq + 63) / 64 * (int64_t)p->b * p->h * 2)), T::THREADS,
                  T::SMEM, stream, true, 1, args);
}

template <class Flat, class Tall> static int either_ready()
{
    const int code = long_ready<Flat>();
    return code ? code : long_ready<Tall>();
}

template <class Flat, class Tall>
static int either_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    return flash_tall(p, device->sms) ? long_launch<Tall>(p, device, stream)
                                      : long_launch<Flat>(p, device, stream);
}

#define SHAPE(D, BN, ROWS, SPLIT, STAGES, ORDER, MAX)                                              \
    LongShape<D, BN, ROWS, SPLIT, STAGES, FLASH_ORDER_##ORDER, FLASH_MAX_##MAX, LONG_BF>

#define LONG(...)                                                                                  \
    {                                                                                              \
        long_ready<SHAPE(__VA_ARGS__)>, long_launch<SHAPE(__VA_ARGS__)>                            \
    }

#define MASS(D, BN, ROWS, STAGES)                                                                  \
    {                                                                                              \
        mass_ready<SHAPE(D, BN, ROWS, 1, STAGES, SERIAL, FULL)>,                                   \
            mass_launch<SHAPE(D, BN, ROWS, 1, STAGES, SERIAL, FULL)>                               \
    }

typedef SHAPE(64, 64, 2, 2, 8, OVERLAP, FIRST) Flat64;
typedef SHAPE(64, 128, 3, 1, 4, PLAIN, FIRST) Tall64;

/* in the order of FLASH_LONG_DIMS */
const flash_entry LONG_TABLE[FLASH_LONG_COUNT] = {
    LONG(40, 80, 4, 1, 6, OVERLAP, FIRST),
    {either_ready<Flat64, Tall64>, either_launch<Flat64, Tall64>},
    LONG(80, 128, 2, 1, 2, TURNS, FULL),
    LONG(128, 128, 2, 1, 2, TURNS, FIRST),
    LONG(160, 80, 2, 1, 2, TURNS, FIRST),
    LONG(256, 64, 2, 1, 1, PLAIN, FULL),
    {wide_ready, wide_launch},
};

const flash_entry MASS_TABLE[FLASH_MASS_COUNT] = {MASS(40, 128, 4, 6), MASS(64, 128, 4, 6),
                                                  MASS(80, 128, 4, 3), MASS(128, 128, 4, 3),
                                                  MASS(160, 128, 3, 2)};
