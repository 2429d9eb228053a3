/* The compiled shapes of the fp32 kernels, and what all element types share. */
#include "flash_launch.h"
#include "generic_f32.cuh"
#include "launch.cuh"

template <class T> static int float_ready()
{
    return allow_smem(float_attention_kernel<T>, T::SMEM);
}

template <class T>
static int float_launch(const flash_problem *p, const flash_device *, void *stream)
{
    const dim3 grid((unsigned)((p->nq + T::ROWS - 1) / T::ROWS * (int64_t)p->b * p->h), 1,
                    (unsigned)(p->dv > 0 ? (p->dv + T::DV - 1) / T::DV : 1));
    return launch(float_attention_kernel<T>, grid, T::THREADS, T::SMEM, stream, false, 1, *p);
}

/* scores come in column steps, so one shape serves every head dimension */
typedef FloatShape<64, 64> SecondShape;

static int second_ready()
{
    return allow_smem(float_mass_kernel<SecondShape>, SecondShape::MASS_SMEM);
}

static int second_launch(const flash_problem *p, const flash_device *, void *stream)
{
    return launch(
        float_mass_kernel<SecondShape>,
        dim3((unsigned)((p->nk + SecondShape::BN - 1) / SecondShape::BN * (int64_t)p->b * p->h)),
        SecondShape::THREADS, SecondShape::MASS_SMEM, stream, false, 1, *p);
}

#define FLOAT(D, DV)                                                                               \
    {                                                                                              \
        float_ready<FloatShape<D, DV>>, float_launch<FloatShape<D, DV>>                            \
    }

const flash_entry flash_generic_f32[FLASH_GENERIC_COUNT] = {FLOAT(64, 64), FLOAT(128, 128),
                                                            FLOAT(256, 256), FLOAT(256, 256)};
const flash_entry flash_second_f32[FLASH_GENERIC_COUNT] = {{second_ready, second_launch},
                                                           {second_ready, second_launch},
                                                           {second_ready, second_launch},
                                                           {second_ready, second_launch}};

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
