/* cuDNN, found at run time. */
#include "cudnn.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static struct cudnn_api loaded;
static int is_loaded;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static attn_status find_all(void *library, struct cudnn_api *api, attn_error *err)
{
    const struct {
        const char *name;
        void *to;
    } functions[] = {
#define CUDNN_ROW(result, name, arguments) {#name, &api->name},
        CUDNN_FUNCTIONS(CUDNN_ROW)
#undef CUDNN_ROW
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *found = dlsym(library, functions[i].name);
        if (!found)
            return attn_fail(err, ATTN_UNSUPPORTED,
                             NAME ": libcudnn.so.9 has no %s, expected cuDNN 9.0 or newer",
                             functions[i].name);
        memcpy(functions[i].to, &found, sizeof found);
    }
    return ATTN_OK;
}

attn_status cudnn_load(const char *library, const struct cudnn_api **api, attn_error *err)
{
    attn_status status = ATTN_OK;
    (void)pthread_mutex_lock(&lock);
    if (!is_loaded) {
        void *opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
        if (!opened) {
            const char *why = dlerror();
            status = attn_fail(err, ATTN_UNSUPPORTED, NAME ": cuDNN 9 is not here: %s",
                               why ? why : library);
        } else {
            status = find_all(opened, &loaded, err);
            is_loaded = status == ATTN_OK;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    if (status == ATTN_OK)
        *api = &loaded;
    return status;
}

static attn_status status_of(int code)
{
    if (code == CUDNN_STATUS_HOST_ALLOCATION_FAILED ||
        code == CUDNN_STATUS_DEVICE_ALLOCATION_FAILED)
        return ATTN_NOMEM;
    switch (code / 1000) {
    case 1: /* a part of cuDNN, or the driver, is missing */
    case 3:
        return ATTN_UNSUPPORTED;
    case 2: /* this plugin's own mistake */
        return ATTN_INTERNAL;
    default:
        return ATTN_DEVICE;
    }
}

attn_status cudnn_fail(const struct cudnn_api *api, attn_error *err, const char *what, int code)
{
    char more[256] = "";
    api->cudnnGetLastErrorString(more, sizeof more - 1);
    for (char *c = more; *c; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    if (err && err->size >= sizeof *err)
        err->vendor_code = code;
    return attn_fail(err, status_of(code), NAME ": %s: %s%s%s", what,
                     api->cudnnGetErrorString(code), more[0] ? ": " : "", more);
}
