/* roofline.c: the least time that a chip can take: the longest of its matrix products, its
 * exponentials and its memory, each at the rate of the highest clock. */
#include "bench.h"

#include "../gpu/gpu.h"

/* Operations a clock and multiprocessor of the matrix units on 16-bit numbers with fp32 sums:
 * NVIDIA's whitepapers of the A100 (312 TFLOP/s on 108 at 1.41 GHz) and the H100 (989 on 132 at
 * 1.83).  Exponentials: CUDA programming guide, throughput of native arithmetic instructions. */
static double matrix_rate(int chip)
{
    return chip == 90 ? 4096 : chip == 80 ? 2048 : 0;
}

static double longest(double a, double b)
{
    return a > b ? a : b;
}

double bench_roofline_cuda(const struct gpu *gpu, const struct bench_shape *s, uint8_t bits)
{
    const double clocks = gpu->processors * gpu->clock;
    const double scores = (double)s->b * (double)s->h * (double)s->nq * (double)s->nk;
    const double rows = (double)s->b * (double)s->h * (double)(s->nq + s->nk);
    if (bits != 16 || matrix_rate(gpu->chip) == 0 || gpu->bandwidth == 0)
        return 0;
    const double products = bench_flop(s) / (clocks * matrix_rate(gpu->chip)),
                 exponentials = scores / (clocks * 16),
                 memory = rows * 2 * (double)s->d * ((double)bits / 8) / gpu->bandwidth;
    return 1e3 * longest(longest(products, exponentials), memory);
}
