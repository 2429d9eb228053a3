/* memory.c: device memory at addresses that no host may touch.
 *
 * A large stretch of the address space is reserved without access, and addresses are handed out of
 * it once and never again: a host that follows one dies, and freed memory is known as such. */
#include "core.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MOST_SPACE  (UINT64_C(1) << 44)
#define LEAST_SPACE (UINT64_C(1) << 36)
#define ALIGNMENT   512u
#define MOST_BYTES  (UINT64_C(1) << 36) /* what the device has */

struct allocation {
    struct allocation *next;
    uint64_t address, bytes;
    char *host;
};

static struct {
    uint64_t base, space, used;
    struct allocation *first;
} memory;

static int space_reserve(void)
{
    if (memory.base)
        return 1;
    void *p = MAP_FAILED;
    uint64_t space = MOST_SPACE; /* sanitizers leave less */
    for (; p == MAP_FAILED && space >= LEAST_SPACE; space /= 2)
        p = mmap(NULL, space, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return 0;
    memory.space = space * 2;
    memory.base = ((uint64_t)(uintptr_t)p + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
    return 1;
}

int32_t fake_malloc(uint64_t bytes, uint64_t *address)
{
    int32_t code = 0;
    if (bytes == 0)
        return fake_error(ACL_ERROR_RT_PARAM_INVALID, "EH0001: size is 0, expected above 0");
    fake_lock();
    struct allocation *a = malloc(sizeof *a);
    char *host = bytes <= MOST_BYTES ? malloc(bytes) : NULL;
    if (!a || !host || !space_reserve() ||
        memory.used + bytes + 2 * ALIGNMENT > memory.space - ALIGNMENT) {
        free(a);
        free(host);
        code = fake_error(ACL_ERROR_RT_MEMORY_ALLOCATION, "EL0004: out of device memory");
    } else {
        memset(host, 0xff, bytes); /* NaN in every type */
        *a = (struct allocation){memory.first, memory.base + memory.used, bytes, host};
        memory.first = a;
        memory.used +=
            (bytes + 2 * ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1); /* a gap after it */
        *address = a->address;
        fake_live_add("allocations", 1);
        fake_live_add("bytes", (int64_t)bytes);
    }
    fake_unlock();
    return code;
}

int32_t fake_free(uint64_t address)
{
    int32_t code = ACL_ERROR_RT_PARAM_INVALID;
    fake_lock();
    for (struct allocation **at = &memory.first; *at; at = &(*at)->next)
        if ((*at)->address == address) {
            struct allocation *a = *at;
            if (fake_is_pending(address, a->bytes, 0))
                fake_violation("aclrtFree of memory that queued work uses");
            *at = a->next;
            fake_live_add("allocations", -1);
            fake_live_add("bytes", -(int64_t)a->bytes);
            free(a->host);
            free(a);
            code = 0;
            break;
        }
    if (code)
        fake_violation("aclrtFree of an address that is not allocated");
    fake_unlock();
    return code;
}

char *fake_resolve(uint64_t address, uint64_t bytes)
{
    for (struct allocation *a = memory.first; a; a = a->next)
        if (address >= a->address && address - a->address <= a->bytes &&
            bytes <= a->bytes - (address - a->address))
            return a->host + (address - a->address);
    return NULL;
}

int fake_is_device(uint64_t address)
{
    return memory.base && address >= memory.base && address < memory.base + memory.space;
}
