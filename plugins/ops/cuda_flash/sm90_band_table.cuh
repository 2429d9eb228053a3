/* The compiled shapes of the long kernel for a band of keys, for one element type. */
#include "sm90_long_launch.cuh"

/* Edges that the kernels may add to without overflow: nothing lies beyond them. */
static inline int64_t band_edge(int64_t edge, const flash_problem *p)
{
    return edge < -(int64_t)p->nq ? -(int64_t)p->nq : edge > p->nk ? p->nk : edge;
}

/* Causal: without a lower edge; Few: such, where Causal's tiles would leave multiprocessors idle in
 * their last round; Window: the rest. */
template <class Causal, class Few, class Window> static int band_ready()
{
    int code = long_ready<Causal>();
    if (code == cudaSuccess)
        code = long_ready<Few>();
    return code != cudaSuccess ? code : long_ready<Window>();
}

template <class Causal, class Few, class Window>
static int band_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    const int64_t tiles = (int64_t)((p->nq + Few::ROWS * 64 - 1) / (Few::ROWS * 64)) * p->b * p->h;
    flash_problem near = *p;
    near.band_lo = band_edge(p->band_lo, p);
    near.band_hi = band_edge(p->band_hi, p);
    if (near.band_lo > -(int64_t)p->nq)
        return long_launch<Window>(&near, device, stream);
    return tiles <= device->sms ? long_launch<Few>(&near, device, stream)
                                : long_launch<Causal>(&near, device, stream);
}

#define SHAPE(D, BN, ROWS, SPLIT, STAGES, ORDER, MAX)                                              \
    LongShape<D, BN, ROWS, SPLIT, STAGES, FLASH_ORDER_##ORDER, FLASH_MAX_##MAX, LONG_BF, true>
#define BAND(...)                                                                                  \
    {                                                                                              \
        band_ready<__VA_ARGS__>, band_launch<__VA_ARGS__>                                          \
    }
#define CAUSAL_40  SHAPE(40, 80, 4, 1, 6, OVERLAP, FIRST)
#define CAUSAL_80  SHAPE(80, 128, 2, 1, 2, TURNS, FULL)
#define CAUSAL_128 SHAPE(128, 128, 2, 1, 2, TURNS, FIRST)
#define CAUSAL_160 SHAPE(160, 80, 2, 1, 2, TURNS, FIRST)

/* in the order of FLASH_SHORT_DIMS */
const flash_entry BAND_TABLE[FLASH_BAND_COUNT] = {
    BAND(CAUSAL_40, CAUSAL_40, SHAPE(40, 96, 4, 1, 6, SERIAL, FULL)),
    BAND(SHAPE(64, 64, 2, 2, 8, OVERLAP, FIRST), SHAPE(64, 64, 4, 1, 6, SERIAL, FIRST),
         SHAPE(64, 128, 2, 1, 4, TURNS, FULL)),
    BAND(CAUSAL_80, CAUSAL_80, CAUSAL_80),
    BAND(CAUSAL_128, CAUSAL_128, SHAPE(128, 128, 2, 1, 2, TURNS, FULL)),
    BAND(CAUSAL_160, CAUSAL_160, SHAPE(160, 80, 2, 1, 2, TURNS, FULL)),
};
