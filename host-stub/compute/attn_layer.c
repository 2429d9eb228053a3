/* attn_layer.c: attn_layer.h: one layer with a pass of its own. */
#include "attn_layer.h"
#include "compute_cuda.h"
#include "pass.h"
#include "staged_layer.h"

#include <stdlib.h>

struct attn_computer {
    struct compute *compute;
};

struct attn_bound {
    struct compute *compute;
    struct layer *layer;
    struct pass *pass;
    attn_layer weights;   /* to forget their packed forms at unbind */
    attn_tensor *tensors; /* the processor's own weights, for the same */
    uint32_t n_tensors;
};

attn_status attn_computer_open(attn_registry *registry, const attn_device *device,
                               uint32_t n_threads, attn_computer **computer, attn_error *err)
{
    return attn_computer_open_as(registry, device, ATTN_DTYPE_F32, n_threads, computer, err);
}

static attn_status compute_open(attn_registry *registry, const attn_device *device, uint64_t dtype,
                                uint32_t n_threads, struct compute **out, attn_error *err)
{
    const attn_tensor type = {.code = dtype == ATTN_DTYPE_BF16 ? ATTN_CODE_BFLOAT : ATTN_CODE_FLOAT,
                              .bits = dtype == ATTN_DTYPE_F32 ? 32 : 16};
    if (dtype != ATTN_DTYPE_F32 && dtype != ATTN_DTYPE_F16 && dtype != ATTN_DTYPE_BF16)
        return attn_fail(err, ATTN_UNSUPPORTED, "dtype 0x%llx: expected fp32, fp16 or bf16",
                         (unsigned long long)dtype);
    if (device->type == ATTN_DEVICE_CUDA)
        return compute_cuda_create(registry, device->id, &type, out, err);
    if (device->type == ATTN_DEVICE_CPU)
        return compute_cpu_create(registry, n_threads, out, err);
    return attn_fail(err, ATTN_UNSUPPORTED, "device type %d: expected %d (CPU) or %d (CUDA)",
                     device->type, ATTN_DEVICE_CPU, ATTN_DEVICE_CUDA);
}

attn_status attn_computer_open_as(attn_registry *registry, const attn_device *device,
                                  uint64_t dtype, uint32_t n_threads, attn_computer **computer,
                                  attn_error *err)
{
    if (!registry)
        return attn_fail(err, ATTN_INVALID, "registry: NULL");
    attn_computer *made = calloc(1, sizeof *made);
    if (!made)
        return attn_fail(err, ATTN_NOMEM, "no memory for a computer");
    attn_status status = compute_open(registry, device, dtype, n_threads, &made->compute, err);
    if (status != ATTN_OK) {
        free(made);
        return status;
    }
    *computer = made;
    return ATTN_OK;
}

void attn_computer_about(char *text, uint32_t capacity)
{
    char whole[512];
    compute_cpu_about(whole, sizeof whole);
    if (capacity)
        (void)snprintf(text, capacity, "%s", whole);
}

void attn_computer_close(attn_computer *computer)
{
    if (!computer)
        return;
    computer->compute->api->destroy(computer->compute);
    free(computer);
}

attn_router *attn_computer_router(attn_computer *computer)
{
    return computer->compute->router;
}

static attn_status keep_tensors(attn_bound *b, const attn_layer_spec *spec, attn_error *err)
{
    b->tensors = calloc(spec->n_params + 1, sizeof *b->tensors);
    if (!b->tensors)
        return attn_fail(err, ATTN_NOMEM, "no memory for %u parameters", spec->n_params);
    for (uint32_t i = 0; i < spec->n_params; ++i) {
        if (spec->params[i].kind == ATTN_PARAM_TENSOR && spec->params[i].tensor)
            b->tensors[b->n_tensors++] = *spec->params[i].tensor;
    }
    return ATTN_OK;
}

/* In host memory, for a device that has its own. */
static bool is_staged(const struct compute *c, const attn_tensor *t)
{
    return c->device.type != ATTN_DEVICE_CPU && t->device_type == ATTN_DEVICE_CPU;
}

static attn_status check_size(const char *what, uint32_t size, size_t least, attn_error *err)
{
    return size >= least ? ATTN_OK
                         : attn_fail(err, ATTN_INVALID, "%s: size is %u, expected at least %zu",
                                     what, size, least);
}

/* The caller's, as far as its struct goes. */
static attn_status spec_read(const attn_layer_spec *given, attn_layer_spec *spec, attn_error *err)
{
    *spec = (attn_layer_spec){0};
    memcpy(spec, given, given->size < sizeof *spec ? given->size : sizeof *spec);
    spec->size = sizeof *spec;
    if (!spec->processor)
        return attn_fail(err, ATTN_INVALID, "attn_layer_spec (size %u): no processor", given->size);
    if (spec->n_params && !spec->params)
        return attn_fail(err, ATTN_INVALID, "attn_layer_spec: %u parameters, but params is NULL",
                         spec->n_params);
    return ATTN_OK;
}

attn_status attn_layer_bind(attn_computer *computer, const attn_layer *layer,
                            const attn_layer_spec *given, attn_bound **bound, attn_error *err)
{
    attn_layer_spec spec;
    attn_status status = check_size("attn_layer", layer->size, sizeof *layer, err);
    if (status == ATTN_OK)
        status = spec_read(given, &spec, err);
    if (status != ATTN_OK)
        return status;
    attn_bound *b = calloc(1, sizeof *b);
    if (!b)
        return attn_fail(err, ATTN_NOMEM, "no memory for a layer");
    b->compute = computer->compute;
    b->weights = *layer;
    status = pass_create(b->compute, &b->pass, err);
    if (status == ATTN_OK)
        status = keep_tensors(b, &spec, err);
    if (status == ATTN_OK)
        status = layer_bind(b->compute, layer, &spec, &b->layer, err);
    if (status != ATTN_OK) {
        pass_destroy(b->pass);
        free(b->tensors);
        free(b);
        return status;
    }
    *bound = b;
    return ATTN_OK;
}

/* Weights are the engine's: unload frees nothing of them, it forgets what was packed from them. */
static void forget(struct compute *c, const attn_linear *linear)
{
    attn_tensor weight = linear->weight;
    c->api->unload(c, &weight);
}

void attn_layer_unbind(attn_bound *bound)
{
    if (!bound)
        return;
    const attn_layer *l = &bound->weights;
    const attn_linear *linears[] = {&l->to_q,
                                    &l->to_k,
                                    &l->to_v,
                                    &l->to_out,
                                    &l->add_k,
                                    &l->add_v,
                                    &l->spatial_norm.conv_y,
                                    &l->spatial_norm.conv_b};
    pass_destroy(bound->pass);
    layer_unbind(bound->layer);
    const bool own = bound->compute->device.type == ATTN_DEVICE_CPU;
    for (size_t i = 0; own && i < sizeof linears / sizeof *linears; ++i)
        forget(bound->compute, linears[i]);
    for (uint32_t i = 0; own && i < bound->n_tensors; ++i)
        bound->compute->api->unload(bound->compute, &bound->tensors[i]);
    free(bound->tensors);
    free(bound);
}

const char *attn_layer_processor(const attn_bound *bound)
{
    return layer_processor(bound->layer);
}

const char *attn_layer_op(const attn_bound *bound)
{
    return layer_op(bound->layer);
}

attn_status attn_layer_run(attn_bound *bound, const attn_layer_call *call, attn_error *err)
{
    attn_status status = check_size("attn_layer_call", call->size, sizeof *call, err);
    if (status != ATTN_OK)
        return status;
    attn_layer_call mine = *call;
    mine.size = sizeof mine;
    if (is_staged(bound->compute, &mine.hidden)) {
        attn_work *dry = pass_dry(bound->pass, err);
        if (staged_run(dry, bound->layer, &mine) != ATTN_OK)
            return dry->status;
        attn_work *real = pass_real(bound->pass, NULL, err);
        return real ? staged_run(real, bound->layer, &mine) : ATTN_NOMEM;
    }
    if (!layer_planned(bound->pass, bound->layer, &mine)) {
        attn_work *dry = pass_dry(bound->pass, err);
        if (layer_run(dry, bound->layer, &mine) != ATTN_OK)
            return dry->status;
    }
    attn_work *w = pass_real(bound->pass, NULL, err);
    return w ? layer_run(w, bound->layer, &mine) : ATTN_NOMEM;
}
