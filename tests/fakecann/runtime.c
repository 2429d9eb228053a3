/* runtime.c: libacl_rt.so, libascendcl.so: aclInit, devices, memory, streams. */
#include "core.h"

#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { DEVICE_TO_DEVICE = 3 };

/* Most calls want aclInit first, and a device in this thread. */
static int32_t begin(const char *function, int wants_context)
{
    int32_t code = fake_enter(function);
    if (code)
        return code;
    if (!fake_is_initialized())
        return fake_error(ACL_ERROR_UNINITIALIZE, "EE1001: aclInit was not called");
    if (wants_context && !fake_context())
        return fake_error(ACL_ERROR_RT_CONTEXT_NULL, "EE1001: this thread has no context");
    return 0;
}

EXPORT aclError aclInit(const char *config_path)
{
    (void)config_path;
    int32_t code = fake_enter("aclInit");
    return code ? code : fake_init();
}

EXPORT aclError aclFinalize(void);
aclError aclFinalize(void)
{
    int32_t code = fake_enter_release("aclFinalize");
    int32_t done = fake_finalize(NULL, 1);
    return code ? code : done;
}

EXPORT aclError aclFinalizeReference(uint64_t *count)
{
    int32_t code = fake_enter_release("aclFinalizeReference");
    int32_t done = fake_finalize(count, 0);
    return code ? code : done;
}

EXPORT const char *aclGetRecentErrMsg(void)
{
    (void)fake_enter_release("aclGetRecentErrMsg");
    return fake_take_message();
}

EXPORT aclError aclrtSetDevice(int32_t device)
{
    int32_t code = begin("aclrtSetDevice", 0);
    return code ? code : fake_device_set(device);
}

EXPORT aclError aclrtResetDevice(int32_t device)
{
    int32_t code = fake_enter_release("aclrtResetDevice");
    int32_t done = fake_device_reset(device);
    return code ? code : done;
}

EXPORT aclError aclrtGetCurrentContext(aclrtContext *context)
{
    int32_t code = begin("aclrtGetCurrentContext", 1);
    if (!code)
        *context = fake_context();
    return code;
}

EXPORT aclError aclrtSetCurrentContext(aclrtContext context)
{
    int32_t code = begin("aclrtSetCurrentContext", 0);
    return code ? code : fake_context_set(context);
}

EXPORT aclError aclrtCreateStream(aclrtStream *stream);
aclError aclrtCreateStream(aclrtStream *stream)
{
    int32_t code = begin("aclrtCreateStream", 1);
    return code ? code : fake_stream_create(stream);
}

EXPORT aclError aclrtDestroyStream(aclrtStream stream);
aclError aclrtDestroyStream(aclrtStream stream)
{
    int32_t code = fake_enter_release("aclrtDestroyStream");
    int32_t done = fake_stream_destroy(stream);
    return code ? code : done;
}

EXPORT aclError aclrtSynchronizeStream(aclrtStream stream)
{
    int32_t code = begin("aclrtSynchronizeStream", 1);
    return code ? code : fake_stream_synchronize(stream);
}

EXPORT aclError aclrtMalloc(void **data, size_t bytes, int32_t policy)
{
    uint64_t address = 0;
    int32_t code = begin("aclrtMalloc", 1);
    if (!code && (!data || policy < 0))
        code = fake_error(ACL_ERROR_RT_PARAM_INVALID, "EE1001: no place for the address");
    if (!code)
        code = fake_malloc(bytes, &address);
    if (!code)
        *data = (void *)(uintptr_t)address; /* NOLINT: an address that only looks like a pointer */
    return code;
}

EXPORT aclError aclrtFree(void *data)
{
    int32_t code = fake_enter_release("aclrtFree");
    int32_t done = data ? fake_free((uint64_t)(uintptr_t)data) : ACL_ERROR_RT_PARAM_INVALID;
    return code ? code : done;
}

static int32_t copy_check(const void *to, size_t capacity, const void *from, size_t bytes,
                          int32_t kind)
{
    int to_device = kind == ACL_MEMCPY_HOST_TO_DEVICE || kind == DEVICE_TO_DEVICE;
    int from_device = kind == ACL_MEMCPY_DEVICE_TO_HOST || kind == DEVICE_TO_DEVICE;
    if (!to || !from || kind < 0 || kind > DEVICE_TO_DEVICE)
        return fake_error(ACL_ERROR_RT_PARAM_INVALID, "EE1001: an argument is NULL, or kind %d",
                          kind);
    if (bytes == 0 || bytes > capacity)
        return fake_error(ACL_ERROR_RT_PARAM_INVALID, "EE1001: %zu bytes into %zu", bytes,
                          capacity);
    if (fake_is_device((uint64_t)(uintptr_t)to) != to_device ||
        fake_is_device((uint64_t)(uintptr_t)from) != from_device)
        return fake_error(ACL_ERROR_RT_PARAM_INVALID, "EE1001: kind %d does not fit the addresses",
                          kind);
    return 0;
}

/* What queued work has still to write reads as NaN; what it has still to use is not written. */
static int32_t copy(void *to, const void *from, size_t bytes, int32_t kind)
{
    uint64_t source = (uint64_t)(uintptr_t)from, target = (uint64_t)(uintptr_t)to;
    char *at = to;
    const char *data = from;
    if (kind != ACL_MEMCPY_HOST_TO_DEVICE)
        data = fake_resolve(source, bytes);
    if (kind != ACL_MEMCPY_DEVICE_TO_HOST)
        at = fake_resolve(target, bytes);
    if (!data || !at) {
        fake_violation("aclrtMemcpy of %zu bytes beyond what is allocated", bytes);
        return fake_error(ACL_ERROR_RT_PARAM_INVALID, "EE1001: not %zu bytes of one allocation",
                          bytes);
    }
    if (kind != ACL_MEMCPY_DEVICE_TO_HOST && fake_is_pending(target, bytes, 0))
        fake_violation("aclrtMemcpy into memory that queued work uses");
    if (kind != ACL_MEMCPY_HOST_TO_DEVICE && fake_is_pending(source, bytes, 1)) {
        fake_violation("aclrtMemcpy of what queued work has still to write");
        memset(at, 0xff, bytes);
    } else {
        memcpy(at, data, bytes);
    }
    return 0;
}

EXPORT aclError aclrtMemcpy(void *to, size_t capacity, const void *from, size_t bytes, int32_t kind)
{
    int32_t code = begin("aclrtMemcpy", 1);
    if (!code)
        code = copy_check(to, capacity, from, bytes, kind);
    if (code)
        return code;
    fake_lock();
    code = copy(to, from, bytes, kind);
    fake_unlock();
    return code;
}
