/* about.c: what the CPU's arithmetic is made of on this machine. */
#include "cpu.h"

#if ATTNPLUG_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

void compute_cpu_about(char *text, size_t capacity)
{
    ATTN_ERROR_ON(err, 256);
    const struct kernels *kernels = NULL;
    if (kernels_choose(&kernels, &err) != ATTN_OK) {
        (void)snprintf(text, capacity, "%s", err.text);
        return;
    }
    int at = snprintf(text, capacity, "%s kernels, ", kernels->name);
#if ATTNPLUG_ONEDNN
    const dnnl_version_t *v = dnnl_version();
    at += snprintf(text + at, capacity - (size_t)at, "oneDNN %d.%d.%d, ", v->major, v->minor,
                   v->patch);
#else
    at += snprintf(text + at, capacity - (size_t)at, "no oneDNN, ");
#endif
#ifdef _OPENMP
    (void)snprintf(text + at, capacity - (size_t)at, "OpenMP");
#else
    (void)snprintf(text + at, capacity - (size_t)at, "own threads");
#endif
}
