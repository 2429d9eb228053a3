/* kernels.c: which set of kernels this processor runs. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__
static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

attn_status kernels_choose(const struct kernels **kernels, attn_error *err)
{
    const struct kernels *have[3] = {&kernels_c};
    size_t n = 1;
#ifdef __x86_64__
    if (has_avx2())
        have[n++] = &kernels_avx2;
    if (has_avx512())
        have[n++] = &kernels_avx512;
#endif
    const char *wanted = getenv("ATTNPLUG_CPU");
    if (!wanted || !*wanted) {
        *kernels = have[n - 1];
        return ATTN_OK;
    }
    /* The op memory_efficient, which reads the variable too, has a set "amx"; the rest of such a
     * run is AVX-512's. */
    const char *name = strcmp(wanted, "amx") ? wanted : "avx512";
    for (size_t i = 0; i < n; ++i) {
        if (!strcmp(name, have[i]->name)) {
            *kernels = have[i];
            return ATTN_OK;
        }
    }
    char list[32] = "";
    for (size_t i = 0, at = 0; i < n; ++i)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", have[i]->name);
    return attn_fail(err, ATTN_INVALID, "ATTNPLUG_CPU=%s: this processor has %s", wanted, list);
}
