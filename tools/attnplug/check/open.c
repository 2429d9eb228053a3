/* open.c: the plugin and a host for it, in the child. */
#include "check.h"
#include "on_device.h"
#include "random.h"

#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Runs the ranges backwards, each on a slot that has nothing to do with its place: what a result
 * may not depend on. */
static void shuffled_for(void *ctx, int64_t n, int64_t grain,
                         void (*body)(void *arg, int64_t begin, int64_t end, uint32_t thread),
                         void *arg)
{
    const attn_host *h = ((const attn_host **)ctx)[0];
    if (grain < 1)
        grain = 1;
    for (int64_t chunk = (n + grain - 1) / grain; chunk-- > 0;) {
        int64_t begin = chunk * grain, end = begin + grain < n ? begin + grain : n;
        body(arg, begin, end, (uint32_t)(chunk * 7 + 3) % h->max_threads);
    }
}

static const void *shuffled_query(void *ctx, const char *id)
{
    const attn_host *inner = ((const attn_host **)ctx)[1];
    return inner->query ? inner->query(inner->ctx, id) : NULL;
}

static attn_status host_open(struct check *k, const char *path, attn_error *err)
{
    static attn_host shuffled;
    static const attn_host *both[2];
    char *copy = strdup(path);
    if (!copy)
        return ATTN_NOMEM;
    const char *folder = dirname(copy);
    attn_registry_options options = {
        sizeof options, ATTN_REGISTRY_TRUST_ALL, &folder, 1, 0, NULL, NULL};
    attn_status s = attn_registry_open(&options, &k->registry, err);
    free(copy);
    if (s == ATTN_OK)
        s = attn_pool_open(3, &k->pool, err);
    if (s == ATTN_OK)
        s = attn_router_open(k->registry, &k->options->device, attn_pool_host(k->pool), &k->router,
                             err);
    if (s != ATTN_OK)
        return s;
    k->host = attn_router_host(k->router);
    shuffled = *k->host;
    both[0] = &shuffled;
    both[1] = k->host;
    shuffled.ctx = both;
    shuffled.max_threads = 5;
    shuffled.log = NULL;
    shuffled.query = shuffled_query;
    shuffled.parallel_for = shuffled_for;
    k->shuffled = &shuffled;
    return ATTN_OK;
}

attn_status check_open(struct check *k, const struct check_options *o, struct result *r)
{
    char text[512] = "";
    attn_error err = {sizeof err, sizeof text, text, 0};
    memset(k, 0, sizeof *k);
    k->options = o;
    char *path = realpath(o->path, NULL);
    void *file = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    attn_status s = ATTN_OK;
    if (!file) {
        const char *why = dlerror();
        finding(r, "%s", path ? (why ? why : "dlopen failed") : "no such file");
        s = ATTN_IO;
    } else if ((s = host_open(k, path, &err)) != ATTN_OK) {
        finding(r, "the check's own host: %s", text);
    } else if ((s = device_open(&o->device, &k->gpu, &err)) != ATTN_OK) {
        finding(r, "%s", text);
    } else {
        op_case_device(&o->device);
        k->op = dlsym(file, "attn_op_v1");
        k->processor = dlsym(file, "attn_processor_v1");
    }
    free(path);
    return s;
}
