/* cpu.c: compute on a CPU, in fp32. */
#include "cpu.h"

#include <stdlib.h>

static void destroy(struct compute *c)
{
    struct cpu *cpu = (struct cpu *)c;
    if (!cpu)
        return;
    processors_close(c);
    if (c->router)
        (void)attn_router_close(c->router);
    cpu_weights_close(cpu);
    for (struct block *b = cpu->blocks, *next; b; b = next) {
        next = b->next;
        free(b->data);
        free(b);
    }
    threads_close(cpu);
    pthread_mutex_destroy(&cpu->lock);
    free(cpu);
}

static const struct compute_api cpu_api = {
    .name = "cpu",
    .destroy = destroy,
    .upload = cpu_upload,
    .unload = cpu_unload,
    .write = cpu_write,
    .read = cpu_read,
    .synchronize = cpu_synchronize,
    .conv_create = cpu_conv_create,
    .conv_destroy = cpu_conv_destroy,
    .conv = cpu_conv,
    .norm_conv = cpu_norm_conv,
    .upsample_conv = cpu_upsample_conv,
    .linear = cpu_linear_epilogue,
    .geglu = cpu_geglu,
    .norm = cpu_norm,
    .activate = cpu_activate,
    .upsample = cpu_upsample,
    .embed = cpu_embed,
    .timestep = cpu_timestep,
    .sag_degrade = cpu_sag_degrade,
};

static const void *query(void *ctx, const char *id)
{
    const struct cpu *c = ctx;
    return strcmp(id, "attn.compute/1") ? NULL : &c->base.plugin;
}

static void log_line(void *ctx, int32_t level, const char *text)
{
    const struct cpu *c = ctx;
    if (c->base.log)
        c->base.log(c->base.log_ctx, level, text);
}

static void fill(struct cpu *c)
{
    struct compute *base = &c->base;
    base->api = &cpu_api;
    base->device = (attn_device){.type = ATTN_DEVICE_CPU, .runtime = "cpu"};
    base->dtype = (attn_tensor){.code = ATTN_CODE_FLOAT, .bits = 32, .lanes = 1};
    base->host.size = sizeof base->host;
    base->host.query = query;
    base->host.log = log_line;
    base->plugin = (attn_compute){.size = sizeof(attn_compute),
                                  .ctx = c,
                                  .alloc = cpu_alloc,
                                  .free = cpu_free,
                                  .linear = cpu_linear,
                                  .norm = cpu_plugin_norm,
                                  .attend = work_attend,
                                  .combine = cpu_combine,
                                  .copy = cpu_copy,
                                  .fill = cpu_fill};
}

attn_status compute_cpu_create(attn_registry *registry, uint32_t n_threads, struct compute **out,
                               attn_error *err)
{
    struct cpu *c = calloc(1, sizeof *c);
    if (!c || pthread_mutex_init(&c->lock, NULL) != 0) {
        free(c);
        return attn_fail(err, ATTN_NOMEM, "no memory for the CPU's compute");
    }
    fill(c);
    attn_status status = kernels_choose(&c->kernels, err);
    if (status == ATTN_OK)
        status = threads_open(c, n_threads, err);
    if (status == ATTN_OK)
        status = cpu_weights_open(c, err);
    if (status == ATTN_OK && registry)
        status = attn_router_open(registry, &c->base.device, &c->base.host, &c->base.router, err);
    if (status != ATTN_OK) {
        destroy(&c->base);
        return status;
    }
    *out = &c->base;
    return ATTN_OK;
}
