#include "adapted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *golden_path(char path[512], const char *name)
{
    (void)snprintf(path, 512, GOLDEN "/%s.safetensors", name);
    return path;
}

struct unet *unet_load(struct machine *m, const char *model, const struct unet_processors *p)
{
    ATTN_ERROR_ON(err, 4096);
    char folder[512];
    struct unet *u = NULL;
    model_folder(folder, model, "unet");
    if (unet_open(m->compute, folder, p, &u, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return u;
}

void unet_refused(struct machine *m, const char *model, const struct unet_processors *p,
                  attn_status status, const char *named)
{
    ATTN_ERROR_ON(err, 4096);
    char folder[512];
    struct unet *u = NULL;
    model_folder(folder, model, "unet");
    assert_int_equal(unet_open(m->compute, folder, p, &u, &err), status);
    if (!strstr(err.text, named)) {
        fail_msg("\"%s\" does not have \"%s\"", err.text, named);
    }
    assert_null(u);
}

double unet_error(struct machine *m, struct unet *u, const char *model, const char *name,
                  const struct lora_set *set, double scale)
{
    float scales[LORA_MOST_FILES];
    safetensors *inputs = golden_open("unet", model);
    safetensors *outputs = golden_open("adapters", model);
    const safetensors_tensor *states = golden_find(inputs, "encoder_hidden_states");
    const safetensors_tensor *timestep = golden_find(inputs, "timestep");
    struct unet_call call = {.sample = golden_picture(inputs, "sample")};
    attn_tensor expected = golden_picture(outputs, name);
    double error;
    call.timestep = poisoned(1, call.sample.shape);
    for (int64_t i = 0; i < call.sample.shape[0]; i++) {
        ((float *)call.timestep.data)[i] = (float)((const int32_t *)timestep->data)[0];
    }
    call.encoder = poisoned(3, states->shape);
    memcpy(call.encoder.data, states->data, states->bytes);
    call.out = poisoned(4, call.sample.shape);
    lora_set_scales(set, LORA_UNET, scale, scales);
    call.scales = scales;
    call.n_scales = lora_set_count(set);
    unet_run(m, u, &call);
    error = relative_l2(call.out.data, expected.data, count_of(&expected));
    free(call.sample.data);
    free(call.timestep.data);
    free(call.encoder.data);
    free(call.out.data);
    free(expected.data);
    safetensors_close(outputs);
    safetensors_close(inputs);
    return error;
}

/* -- files ------------------------------------------------------------------------------------- */

static char *path_new(const char *ending)
{
    static int n;
    const char *folder = getenv("TMPDIR");
    char *path = NULL;
    assert_true(asprintf(&path, "%s/attnplug_adapter_%d_%d%s", folder ? folder : "/tmp",
                         (int)getpid(), n++, ending) > 0);
    return path;
}

char *file_write(const safetensors_tensor *tensors, size_t n)
{
    ATTN_ERROR_ON(err, 512);
    char *path = path_new(".safetensors");
    if (safetensors_write(path, tensors, n, NULL, 0, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return path;
}

char *file_of_bytes(const void *bytes, size_t n, const char *ending)
{
    char *path = path_new(ending);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

void file_remove(char *path)
{
    (void)unlink(path);
    free(path);
}
