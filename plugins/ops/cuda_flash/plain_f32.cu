/* The compiled shapes of the plain fp32 kernel. */
#include "plain_f32.cuh"

#include "flash_launch.h"
#include "launch.cuh"

template <int RT, int PASSES> static int plain_ready()
{
    int device = 0, most = 0;
    int code = (int)cudaGetDevice(&device);
    if (code == cudaSuccess)
        code = (int)cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return code == cudaSuccess ? allow_smem(plain_kernel<RT, PASSES>, most) : code;
}

template <int RT, int PASSES>
static int plain_launch(const flash_problem *p, const flash_device *device, void *stream)
{
    const int rows = RT * PLAIN_APART;
    return launch(plain_kernel<RT, PASSES>,
                  dim3((unsigned)((p->nq + rows - 1) / rows * (int64_t)p->b * p->h)), PLAIN_THREADS,
                  (int)flash_plain_smem(p, rows), stream, device->hopper != 0, 1, *p);
}

#define PLAIN(RT)                                                                                  \
    {plain_ready<RT, 1>, plain_launch<RT, 1>}, {plain_ready<RT, 2>, plain_launch<RT, 2>},          \
    {                                                                                              \
        plain_ready<RT, 3>, plain_launch<RT, 3>                                                    \
    }

/* 16, 32 and 64 queries a block, each for up to 64, 128 and 192 columns of values */
const flash_entry flash_plain[FLASH_PLAIN_COUNT] = {PLAIN(1), PLAIN(2), PLAIN(4)};
