/* Texts of a head that have no end, or bytes that no id has, or that are no UTF-8. */
#include "fault.h"

/* The right plugin with other bytes in its head, n of them from an offset on. */
static void put_bytes(size_t offset, const char *value, size_t n_values, const char *name)
{
    size_t n = 0;
    unsigned char *bytes = fault_good_bytes(&n);
    for (size_t i = 0; i + 240 < n; i += 8) {
        uint32_t magic;
        memcpy(&magic, bytes + i, 4);
        if (magic == ATTN_MAGIC) {
            memcpy(bytes + i + offset, value, n_values);
        }
    }
    fault_put_bytes(bytes, n, name);
    free(bytes);
}

static void put_changed(size_t offset, char value, const char *name)
{
    put_bytes(offset, &value, 1, name);
}

/* As the whole of a field that was no longer than it: what is left behind it are NULs. */
static void put_text(size_t offset, const char *text, const char *name)
{
    char field[32] = "";
    (void)snprintf(field, sizeof field, "%s", text);
    put_bytes(offset, field, sizeof field, name);
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
    put_text(offsetof(attn_head, summary), "caf\xe9 au lait", "latin-1.so");
    put_text(offsetof(attn_head, summary), "\xc0\xaf too long", "overlong.so");
    put_text(offsetof(attn_head, vendor), "half \xed\xa0\x80 a pair", "surrogate.so");
    put_text(offsetof(attn_head, vendor), "next \xc2\x85 line", "control.so");
    put_text(offsetof(attn_head, summary), "cut \xe6\x97", "cut.so");
    put_text(offsetof(attn_head, summary), "\xc3\xa9, \xe6\x97\xa5, \xf0\x9f\x98\x80", "right.so");
    fault_registry(0);
    fault_expect("bad.so", ATTN_VERDICT_BAD_HEAD, "its id is empty or not what");
    fault_expect("capital.so", ATTN_VERDICT_BAD_HEAD, "its id");
    fault_expect("empty.so", ATTN_VERDICT_BAD_HEAD, "its id");
    fault_expect("slash.so", ATTN_VERDICT_BAD_HEAD, "its id");
    fault_expect("tail.so", ATTN_VERDICT_BAD_HEAD, "its id");
    fault_expect("version.so", ATTN_VERDICT_BAD_HEAD, "its version");
    fault_expect("summary.so", ATTN_VERDICT_BAD_HEAD, "its summary");
    fault_expect("devices.so", ATTN_VERDICT_BAD_HEAD, "its devices");
    fault_expect("latin-1.so", ATTN_VERDICT_BAD_HEAD, "its summary");
    fault_expect("overlong.so", ATTN_VERDICT_BAD_HEAD, "its summary");
    fault_expect("surrogate.so", ATTN_VERDICT_BAD_HEAD, "its vendor");
    fault_expect("control.so", ATTN_VERDICT_BAD_HEAD, "its vendor");
    fault_expect("cut.so", ATTN_VERDICT_BAD_HEAD, "its summary");
    fault_expect("right.so", ATTN_VERDICT_DUPLICATE, GOOD_ID);
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test))
