/* sag_device.c: which device computes, and in which element type. */
#include "compute_cuda.h"
#include "sag_private.h"

#include <stdlib.h>
#include <string.h>

/* On a CPU halves are computed in fp32, and an op that takes halves alone gets its inputs as such;
 * on a GPU they are what weights and activations are. */
static const struct {
    const char *name;
    uint32_t route;
    attn_tensor type;
} dtypes[] = {
    {"f32", 0, {.code = ATTN_CODE_FLOAT, .bits = 32}},
    {"f16", ATTN_ROUTE_AS_F16, {.code = ATTN_CODE_FLOAT, .bits = 16}},
    {"bf16", ATTN_ROUTE_AS_BF16, {.code = ATTN_CODE_BFLOAT, .bits = 16}},
};

/* "cuda" or "cuda:1"; -1 for anything else. */
static int32_t cuda_number(const char *device)
{
    char *end = NULL;
    if (strncmp(device, "cuda", 4) != 0) {
        return -1;
    }
    if (!device[4]) {
        return 0;
    }
    long id = device[4] == ':' && device[5] >= '0' && device[5] <= '9'
                  ? strtol(device + 5, &end, 10)
                  : -1;
    return id >= 0 && id < 1024 && !*end ? (int32_t)id : -1;
}

attn_status sag_compute(attn_registry *registry, const attn_sag_open_options *o,
                        struct compute **out, attn_error *err)
{
    const char *dtype = o->dtype ? o->dtype : "f32";
    const char *device = o->device ? o->device : "cpu";
    const size_t n = sizeof dtypes / sizeof *dtypes;
    size_t i = 0;
    while (i < n && strcmp(dtypes[i].name, dtype) != 0) {
        i++;
    }
    if (i == n) {
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "dtype: %s is not supported; there are: f32, f16, bf16", dtype);
    }
    if (cuda_number(device) >= 0) {
        return compute_cuda_create(registry, cuda_number(device), &dtypes[i].type, out, err);
    }
    if (strcmp(device, "cpu") != 0) {
        return attn_fail(err, ATTN_UNSUPPORTED,
                         "device: %s is not supported; there are: cpu, cuda, cuda:1, ...", device);
    }
    attn_status status = compute_cpu_create(registry, o->n_threads, out, err);
    if (status == ATTN_OK) {
        (*out)->route = dtypes[i].route;
    }
    return status;
}
