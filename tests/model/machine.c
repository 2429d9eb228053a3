#include "machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const model_names[] = {"sag-fast", "tiny-sd1",   "tiny-sd2",
                                   "tiny-odd", "tiny-shift", "emoji-128"};
const size_t n_models = sizeof(model_names) / sizeof(*model_names);

static void remember(void *ctx, int32_t level, const char *text)
{
    struct machine *m = ctx;
    const size_t used = strlen(m->log);
    (void)level;
    (void)snprintf(m->log + used, sizeof(m->log) - used, "%s\n", text);
}

int machine_open(void **state)
{
    static const char *const paths[] = {BUILT_PLUGINS};
    ATTN_ERROR_ON(err, 512);
    struct machine *m = calloc(1, sizeof(*m));
    attn_registry_options options = {.size = sizeof(options),
                                     .flags = ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                     .paths = paths,
                                     .n_paths = 1};
    if (!m) {
        return -1;
    }
    options.log = remember;
    options.log_ctx = m;
    *state = m;
    if (attn_registry_open(&options, &m->registry, &err) != ATTN_OK ||
        compute_cpu_create(m->registry, 0, &m->compute, &err) != ATTN_OK) {
        print_error("%s\n", err.text);
        return -1;
    }
    m->compute->log = remember;
    m->compute->log_ctx = m;
    return 0;
}

int machine_close(void **state)
{
    struct machine *m = *state;
    if (m->compute) {
        m->compute->api->destroy(m->compute);
    }
    attn_registry_close(m->registry);
    free(m);
    return 0;
}

void model_folder(char folder[512], const char *model, const char *part)
{
    const int is_demo = strcmp(model, "emoji-128") == 0;
    (void)snprintf(folder, 512, "%s/%s/%s", is_demo ? DEMO_MODELS : GOLDEN "/models", model, part);
}

safetensors *golden_open(const char *kind, const char *model)
{
    ATTN_ERROR_ON(err, 512);
    char path[512];
    safetensors *file = NULL;
    (void)snprintf(path, sizeof(path), GOLDEN "/%s_%s.safetensors", kind, model);
    if (safetensors_open(path, &file, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return file;
}

const safetensors_tensor *golden_find(const safetensors *file, const char *name)
{
    const safetensors_tensor *t = safetensors_find(file, name);
    if (!t) {
        fail_msg("%s: no tensor %s", safetensors_path(file), name);
    }
    return t;
}

int64_t count_of(const attn_tensor *t)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        n *= t->shape[i];
    }
    return n;
}

attn_tensor poisoned(uint32_t rank, const int64_t *shape)
{
    attn_tensor t = {.device_type = ATTN_DEVICE_CPU,
                     .code = ATTN_CODE_FLOAT,
                     .bits = 32,
                     .lanes = 1,
                     .rank = rank};
    int64_t stride = 1;
    for (uint32_t i = rank; i-- > 0;) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i];
    }
    t.data = malloc((size_t)stride * sizeof(float));
    assert_non_null(t.data);
    for (int64_t i = 0; i < stride; i++) {
        ((float *)t.data)[i] = NAN;
    }
    return t;
}

attn_tensor golden_picture(const safetensors *file, const char *name)
{
    const safetensors_tensor *g = golden_find(file, name);
    const int64_t channels = g->shape[1];
    const int64_t pixels = g->shape[2] * g->shape[3];
    const int64_t shape[] = {g->shape[0], g->shape[2], g->shape[3], channels};
    attn_tensor t = poisoned(4, shape);
    assert_int_equal(g->rank, 4);
    for (int64_t b = 0; b < shape[0]; b++) {
        for (int64_t c = 0; c < channels; c++) {
            for (int64_t p = 0; p < pixels; p++) {
                ((float *)t.data)[(b * pixels + p) * channels + c] =
                    ((const float *)g->data)[(b * channels + c) * pixels + p];
            }
        }
    }
    return t;
}

void poison_arena(attn_work *w)
{
    const uint64_t mark = work_mark(w);
    const int64_t floats[] = {(int64_t)(w->capacity / sizeof(float))};
    const attn_tensor all = work_take(w, NULL, 1, floats);
    for (int64_t i = 0; i < floats[0]; i++) {
        ((float *)all.data)[i] = NAN;
    }
    work_reset(w, mark);
}

void unet_run(struct machine *m, struct unet *u, const struct unet_call *call)
{
    ATTN_ERROR_ON(err, 512);
    struct pass *pass = NULL;
    attn_work *w;
    assert_int_equal(pass_create(m->compute, &pass, &err), ATTN_OK);
    if (unet_forward(pass_dry(pass, &err), u, call) != ATTN_OK) {
        fail_msg("dry: %s", err.text);
    }
    w = pass_real(pass, NULL, &err);
    assert_non_null(w);
    poison_arena(w);
    if (unet_forward(w, u, call) != ATTN_OK) {
        fail_msg("real: %s", err.text);
    }
    pass_destroy(pass);
}

double relative_l2(const float *a, const float *b, int64_t n)
{
    double difference = 0;
    double size = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)a[i] - (double)b[i];
        difference += d * d;
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}
