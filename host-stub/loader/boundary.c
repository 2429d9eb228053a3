/* boundary.c: the slow paths of calls into plugins. */
#include "boundary.h"

#include <stdarg.h>
#include <string.h>

/* One terminated line; what a terminal would act on becomes a blank. */
static void tidy(const attn_error *err)
{
    err->text[err->capacity - 1] = 0;
    for (char *c = err->text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        }
    }
}

attn_status boundary_failed(plugin_file *file, const char *function, attn_status status,
                            const attn_error *inner, attn_error *err, _Atomic uint32_t *dead)
{
    if (status < ATTN_OK || status > ATTN_INTERNAL) {
        return boundary_retire(file, function, err, "returned status %d, which attn_abi.h lacks",
                               status);
    }
    if (status == ATTN_DEVICE && dead) {
        atomic_store(dead, 1);
    }
    if (err) {
        err->vendor_code = inner->vendor_code;
        if (err->text && err->capacity) {
            tidy(err);
            if (!err->text[0]) {
                attn_fail(err, status, "%s: %s returned \"%s\" and gave no reason", file->path,
                          function, attn_status_name(status));
            }
        }
    }
    return status;
}

attn_status boundary_retire(plugin_file *file, const char *function, attn_error *err,
                            const char *format, ...)
{
    char what[256], reason[384];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    (void)snprintf(reason, sizeof reason, "%s %s", function, what);
    plugin_retire(file, ATTN_VERDICT_RETIRED, reason);
    return attn_fail(err, ATTN_INTERNAL, "%s: %s; the plugin is retired", file->path, reason);
}

attn_status boundary_refuse(plugin_file *file, const _Atomic uint32_t *dead, attn_error *err)
{
    if (atomic_load(&file->retired)) {
        return plugin_fail_retired(file, err);
    }
    return atomic_load(dead)
               ? attn_fail(err, ATTN_DEVICE, "%s: its device failed before; it may only be closed",
                           file->path)
               : ATTN_OK;
}

attn_status boundary_create(plugin_file *file, const attn_head *head, const attn_device *device,
                            const attn_param *params, uint32_t n_params, const attn_host **host,
                            attn_error *err)
{
    if (n_params && !params) {
        return attn_fail(err, ATTN_INVALID, "%u parameters, but params is NULL", n_params);
    }
    if (!memchr(device->runtime, 0, sizeof device->runtime)) {
        return attn_fail(err, ATTN_INVALID, "device: its runtime's name has no end");
    }
    bool known = device->type >= 0 && device->type < 64;
    if (!known || !(head->devices >> device->type & 1)) {
        return attn_fail(err, ATTN_UNSUPPORTED, "%s (%s): not for device type %d (%s)", head->id,
                         file->path, device->type, device->runtime);
    }
    return *host ? ATTN_OK : registry_host(file->registry, host, err);
}
