/* peak.c: multiplications and additions that a processor can do at most: independent chains in
 * registers.  Compiled with the widest flags that the build machine's compiler and processor have.
 */
#include "peak.h"

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#define CHAINS 12

typedef float vec __attribute__((vector_size(LANES * 4)));

double peak_flops(long rounds)
{
    return 2.0 * LANES * CHAINS * (double)rounds;
}

float peak_run(long rounds)
{
    vec a[CHAINS], x, y;
    for (int i = 0; i < LANES; ++i) {
        x[i] = 0.999f;
        y[i] = 0.001f;
    }
    for (int i = 0; i < CHAINS; ++i)
        a[i] = y * (float)i;
    for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; ++i)
            a[i] = a[i] * x + y;
    }
    float sum = 0.0f;
    for (int i = 0; i < CHAINS; ++i)
        sum += a[i][0] + a[i][LANES - 1];
    return sum;
}
