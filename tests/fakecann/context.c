/* context.c: aclInit's count, devices' counts, and what each thread is on. */
#include "core.h"

#include <stdlib.h>

enum { MAX_DEVICES = 8 };

static struct {
    uint64_t inits;
    uint64_t uses[MAX_DEVICES];
    char context[MAX_DEVICES]; /* addresses are the contexts */
} devices;

static __thread void *current;

int fake_is_initialized(void)
{
    fake_lock();
    int is = devices.inits > 0;
    fake_unlock();
    return is;
}

int32_t fake_init(void)
{
    fake_lock();
    int32_t code = devices.inits++ ? ACL_ERROR_REPEAT_INITIALIZE : 0;
    fake_live_add("inits", 1);
    fake_unlock();
    return code;
}

int32_t fake_finalize(uint64_t *left, int all)
{
    int32_t code = 0;
    fake_lock();
    if (!devices.inits) {
        code = ACL_ERROR_UNINITIALIZE;
    } else {
        uint64_t n = all ? devices.inits : 1;
        if (all && devices.inits > 1)
            fake_violation("aclFinalize took back %llu calls of aclInit",
                           (unsigned long long)devices.inits);
        devices.inits -= n;
        fake_live_add("inits", -(int64_t)n);
    }
    if (left)
        *left = devices.inits;
    fake_unlock();
    return code;
}

uint32_t fake_device_count(void)
{
    const char *text = getenv("FAKECANN_DEVICES");
    long n = text ? strtol(text, NULL, 10) : 2;
    return n < 0 ? 0 : n > MAX_DEVICES ? MAX_DEVICES : (uint32_t)n;
}

int32_t fake_device_set(int32_t device)
{
    if (device < 0 || (uint32_t)device >= fake_device_count())
        return fake_error(ACL_ERROR_RT_INVALID_DEVICEID, "EE1001: device %d, there are %u", device,
                          fake_device_count());
    fake_lock();
    devices.uses[device]++;
    fake_live_add("devices", 1);
    current = &devices.context[device];
    fake_unlock();
    return 0;
}

int32_t fake_device_reset(int32_t device)
{
    int32_t code = ACL_ERROR_RT_INVALID_DEVICEID;
    fake_lock();
    if (device >= 0 && device < MAX_DEVICES && devices.uses[device]) {
        devices.uses[device]--;
        fake_live_add("devices", -1);
        code = 0;
    }
    fake_unlock();
    return code;
}

/* A context lives as long as its device is in use. */
static int is_alive(const void *context)
{
    for (int i = 0; i < MAX_DEVICES; i++)
        if (context == &devices.context[i])
            return devices.uses[i] > 0;
    return 0;
}

void *fake_context(void)
{
    fake_lock();
    void *context = current && is_alive(current) ? current : NULL;
    fake_unlock();
    return context;
}

int32_t fake_context_set(void *context)
{
    fake_lock();
    int32_t code = is_alive(context) ? 0 : ACL_ERROR_RT_PARAM_INVALID;
    if (!code)
        current = context;
    fake_unlock();
    return code ? fake_error(code, "EE1001: no such context") : 0;
}
