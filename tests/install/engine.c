/* engine.c: an engine as its author would build it against an installation: attends by name through
 * the router. */
#include <attn_router.h>
#include <math.h>
#include <stdio.h>

enum { B = 1, H = 2, N = 33, D = 40, COUNT = B * H * N * D };
static float q[COUNT], k[COUNT], v[COUNT], out[COUNT];

static attn_tensor tensor(float *data)
{
    attn_tensor t = {.data = data,
                     .shape = {B, H, N, D},
                     .stride = {H * N * D, N * D, D, 1},
                     .device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
                     .lanes = 1,
                     .rank = 4};
    return t;
}

/* All values alike: whatever the weights are, the answer is that value. */
static int attend(attn_router *router, attn_error *err)
{
    for (int i = 0; i < COUNT; i++) {
        q[i] = (float)(i % 7) - 3, k[i] = (float)(i % 5) - 2, v[i] = 0.75f, out[i] = NAN;
    }
    attn_op_call call = {.size = sizeof call};
    call.q = tensor(q), call.k = tensor(k), call.v = tensor(v), call.out = tensor(out);
    if (attn_attend_call(router, NULL, &call, err)) {
        return 1;
    }
    for (int i = 0; i < COUNT; i++) {
        if (!(fabsf(out[i] - 0.75f) < 1e-5f)) {
            snprintf(err->text, err->capacity, "out[%d] is %g, expected 0.75", i, (double)out[i]);
            return 1;
        }
    }
    return 0;
}

int main(void)
{
    char text[512] = "";
    attn_error err = {.size = sizeof err, .capacity = sizeof text, .text = text};
    attn_device cpu = {.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    attn_registry *registry = NULL;
    attn_router *router = NULL;
    int failed = attn_registry_open(NULL, &registry, &err) ||
                 attn_router_open(registry, &cpu, NULL, &router, &err) || attend(router, &err);
    failed = attn_router_close(router) || failed;
    attn_registry_close(registry);
    puts(failed ? text : "attended");
    return failed;
}
