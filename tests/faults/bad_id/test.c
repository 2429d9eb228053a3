/* Texts of a head that have no end, or bytes that no id has. */
#include "fault.h"

/* The right plugin with another first byte of its id, or of a field behind it. */
static void put_changed(size_t offset, char value, const char *name)
{
    size_t n = 0;
    unsigned char *bytes = fault_good_bytes(&n);
    for (size_t i = 0; i + 240 < n; i += 8) {
        uint32_t magic;
        memcpy(&magic, bytes + i, 4);
        if (magic == ATTN_MAGIC) {
            bytes[i + offset] = (unsigned char)value;
        }
    }
    fault_put_bytes(bytes, n, name);
    free(bytes);
}

static void test(void **state)
{
    (void)state;
    put_changed(offsetof(attn_head, id), 'O', "capital.so");
    put_changed(offsetof(attn_head, id), 0, "empty.so");
    put_changed(offsetof(attn_head, id) + 1, '/', "slash.so");
    put_changed(offsetof(attn_head, id) + 63, 'x', "tail.so");
    put_changed(offsetof(attn_head, version), 0, "version.so");
    put_changed(offsetof(attn_head, summary), '\n', "summary.so");
    put_changed(offsetof(attn_head, devices), 0, "devices.so");
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_BAD_HEAD, "its id is empty or not what");
    fault_expect("capital.so", ATTN_VERDICT_BAD_HEAD, "its id");
    fault_expect("empty.so", ATTN_VERDICT_BAD_HEAD, "its id");
    fault_expect("slash.so", ATTN_VERDICT_BAD_HEAD, "its id");
    fault_expect("tail.so", ATTN_VERDICT_BAD_HEAD, "its id");
    fault_expect("version.so", ATTN_VERDICT_BAD_HEAD, "its version");
    fault_expect("summary.so", ATTN_VERDICT_BAD_HEAD, "its summary");
    fault_expect("devices.so", ATTN_VERDICT_BAD_HEAD, "its devices");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
