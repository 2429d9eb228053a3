/* A library that is not installed: the error names it, and when it is there a refresh finds the
 * plugin good. */
#include "fault.h"

#include <limits.h>

/* The right plugin needs libm.so.6: that becomes another name of equal length. */
static unsigned char *needy_bytes(size_t *n)
{
    size_t at = 0;
    unsigned char *bytes = fault_good_bytes(n);
    for (size_t i = 0; i + 9 < *n && !at; i++) {
        at = memcmp(bytes + i, "libm.so.6", 10) == 0 ? i : 0;
    }
    assert_true(at > 0);
    memcpy(bytes + at, "libQ.so.6", 10);
    return bytes;
}

static void test(void **state)
{
    size_t n = 0;
    unsigned char *bytes = needy_bytes(&n);
    (void)state;
    fault_put_bytes(bytes, n, "good.so");
    fault_registry(0);
    fault_expect("good.so", ATTN_VERDICT_OK, "");
    fault_expect_refused(GOOD_ID, ATTN_NOT_FOUND, "libQ.so.6");
    fault_expect("good.so", ATTN_VERDICT_UNRESOLVED, "libQ.so.6");
    fault_put(the_fault.good, "good.so");
    assert_int_equal(attn_registry_refresh(the_fault.registry, NULL), ATTN_OK);
    fault_expect("good.so", ATTN_VERDICT_OK, "");
    fault_expect_good();
    free(bytes);
}

/* The probe's reason is without the path, as every reason is. */
static void test_probe(void **state)
{
    size_t n = 0;
    unsigned char *bytes = needy_bytes(&n);
    attn_file_info info = {.size = sizeof info};
    (void)state;
    fault_put_bytes(bytes, n, "good.so");
    free(bytes);
    fault_registry_probe();
    fault_expect("good.so", ATTN_VERDICT_UNRESOLVED, "libQ.so.6");
    assert_int_equal(attn_registry_file(the_fault.registry, 0, &info), ATTN_OK);
    assert_null(strstr(info.reason, "good.so"));
}

/* A path longer than the texts that it opens. */
static void test_long_path(void **state)
{
    char path[2048];
    char name[200];
    size_t n = 0;
    unsigned char *bytes = needy_bytes(&n);
    ATTN_ERROR_ON(err, 4096);
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    attn_host_op *op = NULL;
    attn_registry *registry = NULL;
    attn_file_info info = {.size = sizeof info};
    const char *given = path;
    attn_registry_options options = {
        .size = sizeof options, .flags = ATTN_REGISTRY_ONLY_PATHS, .paths = &given, .n_paths = 1};
    (void)state;
    memset(name, 'n', sizeof name);
    (void)snprintf(path, sizeof path, "%s", the_fault.folder);
    for (size_t used = strlen(path); used < 1500; used = strlen(path)) {
        (void)snprintf(path + used, sizeof path - used, "/%.*s", (int)sizeof name, name);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    size_t used = strlen(path);
    (void)snprintf(path + used, sizeof path - used, "/needy.so");
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    path[used] = 0;
    free(bytes);
    assert_int_equal(attn_registry_open(&options, &registry, &err), ATTN_OK);
    assert_int_equal(attn_host_op_open(registry, GOOD_ID, &cpu, NULL, NULL, 0, &op, &err),
                     ATTN_NOT_FOUND);
    assert_int_equal(attn_registry_file(registry, 0, &info), ATTN_OK);
    assert_int_equal(info.verdict, ATTN_VERDICT_UNRESOLVED);
    if (strncmp(info.reason, "libQ.so.6: cannot open", 22) != 0) {
        fail_msg("the reason is: %s", info.reason);
    }
    attn_registry_close(registry);
}

FAULT_MAIN(FAULT_TEST(test), FAULT_TEST(test_probe), FAULT_TEST(test_long_path))
