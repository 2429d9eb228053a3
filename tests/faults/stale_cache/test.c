/* Verdicts of probes are remembered by device, inode, size and times; a cache with one wrong byte,
 * another owner's or of another file is not believed. */
#include "fault.h"

#include <fcntl.h>

static char *read_cache(size_t *n)
{
    static char text[65536];
    int fd = open(fault_path("attnplug/probes"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t got = read(fd, text, sizeof text - 1);
    assert_true(got > 0);
    close(fd);
    text[got] = 0;
    *n = (size_t)got;
    return text;
}

/* How often the plugin was tried: bytes that it left. */
static long lives(void)
{
    struct stat st;
    return stat(fault_path("lives"), &st) == 0 ? (long)st.st_size : 0;
}

static void fresh(void)
{
    setenv("ATTNPLUG_TEST_LIVES", fault_path("lives"), 1);
    unlink(fault_path("attnplug/probes"));
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "signal 6");
    fault_expect("good.so", ATTN_VERDICT_OK, "");
}

/* What is remembered is not tried again. */
static void test_remembers(void **state)
{
    size_t n = 0;
    (void)state;
    fresh();
    const long before = lives();
    assert_true(before > 0);
    assert_non_null(strstr(read_cache(&n), "died of signal 6"));
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "signal 6");
    assert_int_equal(lives(), before);
}

static void test_corrupt(void **state)
{
    size_t n = 0;
    (void)state;
    fresh();
    char *text = read_cache(&n);
    /* Turn every verdict into OK (0), sums unchanged. */
    char *at = strstr(text, " 14 died");
    assert_non_null(at);
    memcpy(at, " 0  died", 8);
    fault_put_bytes(text, n, "attnplug/probes");
    const long before = lives();
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "signal 6");
    assert_true(lives() > before); /* tried, not believed */
    for (size_t cut = 0; cut < n; cut += 37) {
        fault_put_bytes(text, cut, "attnplug/probes");
        fault_registry_probe();
        fault_expect("bad.so", ATTN_VERDICT_CRASHED, "signal 6");
        fault_expect("good.so", ATTN_VERDICT_OK, "");
    }
}

static void test_writable(void **state)
{
    (void)state;
    fresh();
    assert_int_equal(chmod(fault_path("attnplug/probes"), 0666), 0);
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "signal 6");
    unlink(fault_path("attnplug/probes"));
    assert_int_equal(mkfifo(fault_path("attnplug/probes"), 0600), 0);
    fault_registry_probe(); /* does not hang */
    fault_expect("bad.so", ATTN_VERDICT_CRASHED, "signal 6");
}

/* The file changes: what was remembered of it is of no use. */
static void test_changed(void **state)
{
    (void)state;
    fresh();
    fault_put(the_fault.good, "bad.so");
    unlink(fault_path("good.so"));
    fault_registry_probe();
    fault_expect("bad.so", ATTN_VERDICT_OK, "");
    fault_expect_good();
}

FAULT_MAIN(FAULT_TEST(test_remembers), FAULT_TEST(test_corrupt), FAULT_TEST(test_writable),
           FAULT_TEST(test_changed))
