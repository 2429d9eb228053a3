/* The random numbers of torch's CPU generator, so that a seed means the same picture here and
 * there.
 *
 * MT19937 (Matsumoto and Nishimura 1998) and the normal transform of PyTorch v2.2.2:
 * aten/src/ATen/core/MT19937RNGEngine.h, aten/src/ATen/core/DistributionsHelper.h and
 * aten/src/ATen/native/cpu/DistributionTemplates.h (normal_fill, normal_fill_16). */
#ifndef ATTNPLUG_PIPELINE_RANDOM_H
#define ATTNPLUG_PIPELINE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[624];
    uint32_t next; /* index of the next word of `state`; 624: all are used up */
    int has_cached;
    double cached; /* the second value of a pair, kept for the next draw of fewer than 16 */
} random_generator;

/* torch.Generator().manual_seed(seed): the low 32 bits count, as they do there. */
void random_seed(random_generator *generator, uint64_t seed);

/* 32 uniform bits. */
uint32_t random_bits(random_generator *generator);

/* torch.randn(n, dtype=torch.float32, generator=generator) into `out`. A tensor's values depend on
 * its whole count: drawing 32 at once is not drawing 16 twice. One thread at a time. */
void random_normal(random_generator *generator, float *out, size_t n);

/* torch.randn(n, dtype=torch.float16, generator=generator), each number widened to fp32. They are
 * other numbers than those in fp32: the uniform ones have 11 bits, and each step is rounded. The
 * pipeline does not draw them: a seed means the same start in every type. */
void random_normal_half(random_generator *generator, float *out, size_t n);

#endif
