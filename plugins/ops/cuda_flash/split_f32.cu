/* The compiled shapes of the fp32 kernels, and what all element types share. */
#include "flash_launch.h"
#include "launch.cuh"
#include "split_again.cuh"
#include "split_attention.cuh"

/* A chip whose blocks have too little shared memory for a shape is never given it. */
template <class Kernel> static int split_allow(Kernel kernel, int bytes)
{
    int device = 0, most = 0;
    int code = (int)cudaGetDevice(&device);
    if (code == cudaSuccess)
        code = (int)cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return code != cudaSuccess || bytes > most ? code : allow_smem(kernel, bytes);
}

/* Few blocks leave multiprocessors idle: then a shape of fewer rows. (`device` may lack the shared
 * memory of the large one, too.) */
template <class Large>
static bool split_prefers_small(const flash_problem *p, const flash_device *device)
{
    const int64_t blocks = (int64_t)((p->nq + Large::ROWS - 1) / Large::ROWS) * p->b * p->h;
    return Large::SMEM > device->smem || blocks * 8 < (int64_t)device->sms * 7;
}

static split_args split_args_of(const flash_problem *p, int columns)
{
    const int second_pass = p->stats != nullptr;
    return {*p, flash_split_lay_out(p, columns, second_pass), (char *)p->staged,
            flash_split_queries(p)};
}

template <class T>
static int split_stage(const split_args &g, const flash_device *device, void *stream)
{
    const bool queries = g.p.stats != nullptr;
    const int64_t k = g.at.k_rows / FLASH_SPLIT_TILE * g.p.b * g.p.hkv,
                  q = queries ? g.at.q_rows / FLASH_SPLIT_TILE * g.p.b * g.p.h : 0;
    return launch(split_stage_kernel<T::COLUMNS>, dim3((unsigned)(k > q ? k : q), queries ? 3 : 2),
                  SPLIT_STAGE_THREADS, 0, stream, device->hopper != 0, 1, g);
}

template <class T>
static int split_first(const split_args &g, const flash_device *device, void *stream)
{
    return launch(split_attention_kernel<T>,
                  dim3((unsigned)((g.p.nq + T::ROWS - 1) / T::ROWS * (int64_t)g.p.b * g.p.h)),
                  T::THREADS, T::SMEM, stream, device->hopper != 0, 1, g);
}

template <class T> static int split_first_ready()
{
    return split_allow(split_attention_kernel<T>, T::SMEM);
}

template <class Large, class Small, class Tiny, class Again> static int split_ready()
{
    int code = split_first_ready<Large>();
    if (code == cudaSuccess)
        code = split_first_ready<Small>();
    if (code == cudaSuccess)
        code = split_first_ready<Tiny>();
    return code != cudaSuccess ? code : split_allow(split_again_kernel<Again>, Again::SMEM);
}

template <class Again>
static int split_again(const split_args &g, const flash_device *device, void *stream)
{
    const int64_t tiles = (g.p.nq + Again::ROWS - 1) / Again::ROWS * (int64_t)g.p.b * g.p.h;
    return launch(split_again_kernel<Again>,
                  dim3((unsigned)(tiles < device->sms ? tiles : device->sms)), Again::THREADS,
                  Again::SMEM, stream, device->hopper != 0, 1, g);
}

template <class Large, class Small, class Tiny, class Again>
static int split_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    static_assert(Large::COLUMNS == Small::COLUMNS && Large::COLUMNS == Tiny::COLUMNS,
                  "all read what was staged");
    static_assert(Tiny::SMEM <= FLASH_LEAST_SMEM && Again::SMEM <= FLASH_LEAST_SMEM,
                  "these serve every chip");
    const split_args g = split_args_of(p, Large::COLUMNS);
    int code = p->nk > 0 ? split_stage<Large>(g, device, stream) : cudaSuccess;
    if (code == cudaSuccess)
        code = !split_prefers_small<Large>(p, device) ? split_first<Large>(g, device, stream)
               : Small::SMEM <= device->smem          ? split_first<Small>(g, device, stream)
                                                      : split_first<Tiny>(g, device, stream);
    return code == cudaSuccess && p->nk > 0 ? split_again<Again>(g, device, stream) : code;
}

template <class T> static int split_mass_ready()
{
    return split_allow(split_mass_kernel<T>, T::SMEM);
}

template <class T>
static int split_mass_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    static_assert(T::SMEM <= FLASH_LEAST_SMEM, "it serves every chip");
    return launch(split_mass_kernel<T>,
                  dim3((unsigned)((p->nk + T::ROWS - 1) / T::ROWS * (int64_t)p->b * p->h),
                       (unsigned)flash_split_parts(p)),
                  T::THREADS, T::SMEM, stream, device->hopper != 0, 1,
                  split_args_of(p, T::COLUMNS));
}

#define HALF(...)  SplitShape<SPLIT_HALF, __VA_ARGS__>
#define BRAIN(...) SplitShape<SPLIT_BRAIN, __VA_ARGS__>
#define SPLIT(...)                                                                                 \
    {                                                                                              \
        split_ready<__VA_ARGS__>, split_launch<__VA_ARGS__>                                        \
    }
#define MASS(...)                                                                                  \
    {                                                                                              \
        split_mass_ready<HALF(__VA_ARGS__)>, split_mass_launch<HALF(__VA_ARGS__)>                  \
    }

/* in the order of FLASH_LONG_DIMS: for many queries, for few, for chips with little shared memory
 * (as a rule the same), for values far apart */
const flash_entry flash_split[FLASH_SPLIT_COUNT] = {
    SPLIT(HALF(40, 40, 64, 8, 1, 1, 2), HALF(40, 40, 64, 4, 1, 1, 3), HALF(40, 40, 64, 4, 1, 1, 3),
          BRAIN(40, 40, 64, 4, 1, 1, 2)),
    SPLIT(HALF(64, 64, 64, 8, 1, 1, 2), HALF(64, 64, 64, 4, 1, 1, 3), HALF(64, 64, 64, 4, 1, 1, 3),
          BRAIN(64, 64, 64, 4, 1, 1, 2)),
    SPLIT(HALF(80, 80, 64, 8, 1, 1, 1), HALF(80, 80, 64, 4, 2, 1, 1), HALF(80, 80, 64, 4, 2, 1, 1),
          BRAIN(80, 80, 64, 4, 1, 1, 2)),
    SPLIT(HALF(128, 128, 64, 8, 1, 1, 1), HALF(128, 64, 64, 4, 1, 1, 2),
          HALF(128, 64, 64, 4, 1, 1, 2), BRAIN(128, 64, 64, 2, 2, 1, 2)),
    SPLIT(HALF(160, 80, 64, 8, 1, 1, 1), HALF(160, 160, 64, 2, 4, 1, 1),
          HALF(160, 80, 64, 2, 2, 1, 2), BRAIN(160, 80, 64, 2, 2, 1, 2)),
    SPLIT(HALF(256, 64, 64, 4, 2, 1, 1), HALF(256, 64, 64, 2, 4, 1, 1),
          HALF(256, 64, 64, 2, 4, 1, 1), BRAIN(256, 64, 64, 2, 4, 1, 1)),
    SPLIT(HALF(512, 128, 64, 2, 4, 1, 1), HALF(512, 64, 64, 1, 4, 1, 1),
          HALF(512, 64, 64, 1, 4, 1, 1), BRAIN(512, 64, 64, 1, 4, 1, 1)),
};
const flash_entry flash_split_mass[FLASH_SPLIT_COUNT] = {
    MASS(40, 40, 64, 4, 1, 1, 3),  MASS(64, 64, 64, 4, 1, 1, 3),  MASS(80, 80, 64, 4, 1, 1, 2),
    MASS(128, 64, 64, 4, 1, 1, 2), MASS(160, 80, 64, 4, 1, 1, 2), MASS(256, 64, 64, 2, 4, 1, 1),
    MASS(512, 64, 64, 1, 4, 1, 1),
};

/* key_mass[b, j] = the mean over heads of the columns' sums; `parts` partial sums a head, added in
 * a fixed order */
static __global__ void mass_mean_kernel(const __grid_constant__ flash_problem a, int parts)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= (int64_t)a.b * a.nk)
        return;
    const int b = (int)(i / a.nk), j = (int)(i % a.nk);
    const float *from = (const float *)a.scratch + (int64_t)b * a.h * parts * a.nk + j;
    float x = 0.f;
    for (int p = 0; p < a.h * parts; ++p)
        x += from[(int64_t)p * a.nk];
    ((float *)a.key_mass.data)[b * a.key_mass.batch + j * a.key_mass.col] =
        a.h * parts > 0 ? x / (float)a.h : 0.f;
}

int flash_mass_mean(const flash_problem *p, int parts, int hopper, void *stream)
{
    return launch(mass_mean_kernel, dim3((unsigned)(((int64_t)p->b * p->nk + 127) / 128)), 128, 0,
                  stream, hopper != 0, 1, *p, parts);
}

int flash_zero_mass(const flash_problem *p, void *stream)
{
    return launch(mass_mean_kernel, dim3((unsigned)(((int64_t)p->b * p->nk + 127) / 128)), 128, 0,
                  stream, false, 1, *p, 0);
}
