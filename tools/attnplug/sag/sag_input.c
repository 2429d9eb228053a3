/* sag_input.c: stored tensors, and where the built-in model lies. */
#include "options.h"
#include "safetensors.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

attn_status tensor_load(const char *path, const char *name, bool optional, attn_tensor *out,
                        attn_error *err)
{
    safetensors *file = NULL;
    *out = (attn_tensor){0};
    attn_status status = safetensors_open(path, &file, err);
    if (status) {
        return status;
    }
    const safetensors_tensor *t = safetensors_find(file, name);
    if (!t && !optional) {
        status = attn_fail(err, ATTN_NOT_FOUND, "%s: no tensor %s in it", path, name);
    }
    if (t && (t->dtype.code != ATTN_CODE_FLOAT || t->dtype.bits != 32 || !t->rank || t->rank > 4)) {
        status = attn_fail(err, ATTN_INVALID,
                           "%s: tensor %s: %s of rank %u, expected F32 of rank 1"
                           " to 4",
                           path, name, safetensors_dtype_name(t->dtype), t->rank);
    }
    /* Copied, since a file does not promise alignment. */
    if (t && !status) {
        *out = (attn_tensor){.data = malloc(t->bytes + 1),
                             .device_type = ATTN_DEVICE_CPU,
                             .code = ATTN_CODE_FLOAT,
                             .bits = 32,
                             .lanes = 1,
                             .rank = t->rank};
        int64_t stride = 1;
        for (uint32_t i = t->rank; i-- > 0;) {
            out->shape[i] = t->shape[i];
            out->stride[i] = stride;
            stride *= t->shape[i];
        }
        if (!out->data) {
            *out = (attn_tensor){0};
            status = attn_fail(err, ATTN_NOMEM, "%s: no memory for tensor %s", path, name);
        } else {
            memcpy(out->data, t->data, t->bytes);
        }
    }
    safetensors_close(file);
    return status;
}

/* "<folder><name>" if something is there; the caller's to free. */
static char *path_there(const char *folder, int folder_bytes, const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%.*s%s", folder_bytes, folder, name) < 0) {
        return NULL;
    }
    if (access(path, F_OK) != 0) {
        free(path);
        return NULL;
    }
    return path;
}

char *model_find(void)
{
    Dl_info info;
    const char *slash = NULL;
    if (dladdr((const void *)(uintptr_t)&attn_sag_open, &info) && info.dli_fname) {
        slash = strrchr(info.dli_fname, '/');
    }
    if (!slash) {
        return NULL;
    }
    /* In the build tree the models lie beside the library. */
    int bytes = (int)(slash - info.dli_fname);
    char *found = path_there(info.dli_fname, bytes, "/attnplug/models/emoji-128");
    return found ? found
                 : path_there(info.dli_fname, bytes, "/" ATTNPLUG_MODELS_BESIDE "/emoji-128");
}
