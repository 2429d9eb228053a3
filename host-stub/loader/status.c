/* status.c: words for the codes that attn_abi.h and attn_host.h define. */
#include "attn_host.h"

#include <stddef.h>

const char *attn_host_version(void)
{
    return ATTNPLUG_VERSION;
}

const char *attn_status_name(attn_status status)
{
    switch (status) {
    case ATTN_OK:
        return "ok";
    case ATTN_UNSUPPORTED:
        return "unsupported";
    case ATTN_INVALID:
        return "invalid";
    case ATTN_NOMEM:
        return "out of memory";
    case ATTN_DEVICE:
        return "device failed";
    case ATTN_INTERNAL:
        return "internal";
    case ATTN_NOT_FOUND:
        return "not found";
    case ATTN_IO:
        return "input/output";
    case ATTN_BUSY:
        return "busy";
    case ATTN_CANCELLED:
        return "cancelled";
    default:
        return "unknown status";
    }
}

const char *attn_verdict_name(uint32_t verdict)
{
    static const char *const names[] = {
        [ATTN_VERDICT_OK] = "OK",
        [ATTN_VERDICT_NO_ENTRY] = "NO_ENTRY",
        [ATTN_VERDICT_BAD_ABI] = "BAD_ABI",
        [ATTN_VERDICT_NO_V1] = "NO_V1",
        [ATTN_VERDICT_TRUNCATED] = "TRUNCATED",
        [ATTN_VERDICT_BAD_ELF] = "BAD_ELF",
        [ATTN_VERDICT_NOT_ELF] = "NOT_ELF",
        [ATTN_VERDICT_BAD_FILE] = "BAD_FILE",
        [ATTN_VERDICT_NOT_REGULAR] = "NOT_REGULAR",
        [ATTN_VERDICT_WRONG_ARCH] = "WRONG_ARCH",
        [ATTN_VERDICT_UNRESOLVED] = "UNRESOLVED",
        [ATTN_VERDICT_BAD_HEAD] = "BAD_HEAD",
        [ATTN_VERDICT_DUPLICATE] = "DUPLICATE",
        [ATTN_VERDICT_UNTRUSTED] = "UNTRUSTED",
        [ATTN_VERDICT_CRASHED] = "CRASHED",
        [ATTN_VERDICT_RETIRED] = "RETIRED",
    };
    return verdict < sizeof names / sizeof *names ? names[verdict] : "UNKNOWN";
}
