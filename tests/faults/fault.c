/* fault.c: see fault.h. */
#include "fault.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>

fault the_fault;

static void take_log(void *ctx, int32_t level, const char *text)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    fault *f = ctx;
    pthread_mutex_lock(&lock);
    size_t n = strlen(f->log);
    (void)snprintf(f->log + n, sizeof f->log - n, "%d %s\n", level, text);
    pthread_mutex_unlock(&lock);
}

const char *fault_path(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", the_fault.folder, name);
    return path;
}

void fault_put_bytes(const void *bytes, size_t n, const char *name)
{
    int fd = open(fault_path(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    assert_int_equal(close(fd), 0);
}

static unsigned char *file_bytes(const char *path, size_t *n)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        fail_msg("%s cannot be read", path);
    }
    unsigned char *bytes = malloc((size_t)st.st_size + 1);
    assert_non_null(bytes);
    assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
    close(fd);
    *n = (size_t)st.st_size;
    return bytes;
}

unsigned char *fault_good_bytes(size_t *n)
{
    return file_bytes(the_fault.good, n);
}

unsigned char *fault_plugin_bytes(size_t *n)
{
    return file_bytes(the_fault.plugin, n);
}

void fault_put(const char *from, const char *name)
{
    size_t n = 0;
    unsigned char *bytes = file_bytes(from, &n);
    fault_put_bytes(bytes, n, name);
    free(bytes);
}

void fault_registry(uint32_t flags)
{
    ATTN_ERROR_ON(err, 1024);
    const char *path = the_fault.folder;
    attn_registry_options options = {.size = sizeof options,
                                     .flags = flags | ATTN_REGISTRY_ONLY_PATHS,
                                     .paths = &path,
                                     .n_paths = 1,
                                     .log = take_log,
                                     .log_ctx = &the_fault};
    attn_registry_close(the_fault.registry);
    the_fault.registry = NULL;
    if (attn_registry_open(&options, &the_fault.registry, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
}

void fault_registry_probe(void)
{
    setenv("XDG_CACHE_HOME", the_fault.folder, 1);
    setenv("ATTNPLUG_PROBE_SECONDS", FAULT_PROBE_SECONDS, 1);
    /* A child of a sanitizer's build dies of its signals like any other. */
    static const char signals[] = "handle_segv=0:handle_abort=0:handle_sigfpe=0:detect_leaks=0";
    setenv("ASAN_OPTIONS", signals, 1);
    setenv("TSAN_OPTIONS", signals, 1);
    fault_registry(ATTN_REGISTRY_PROBE);
}

void fault_expect(const char *name, uint32_t verdict, const char *words)
{
    attn_file_info info = {.size = sizeof info};
    for (uint32_t i = 0; attn_registry_file(the_fault.registry, i, &info) == ATTN_OK; i++) {
        if (strcmp(info.path, fault_path(name)) != 0) {
            continue;
        }
        if (info.verdict != verdict || !strstr(info.reason, words)) {
            fail_msg("%s is %s (%s), expected %s (%s)", info.path, attn_verdict_name(info.verdict),
                     info.reason, attn_verdict_name(verdict), words);
        }
        return;
    }
    fail_msg("%s is not listed", fault_path(name));
}

static attn_status open_op(const char *id, attn_host_op **op, attn_error *err)
{
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    return attn_host_op_open(the_fault.registry, id, &cpu, NULL, NULL, 0, op, err);
}

attn_host_op *fault_open(const char *id)
{
    ATTN_ERROR_ON(err, 1024);
    attn_host_op *op = NULL;
    if (open_op(id, &op, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return op;
}

void fault_expect_refused(const char *id, attn_status status, const char *words)
{
    ATTN_ERROR_ON(err, 1024);
    attn_host_op *op = NULL;
    attn_status got = open_op(id, &op, &err);
    if (got != status || !strstr(err.text, words)) {
        fail_msg("%s: status %d (%s), expected %d (%s)", id, got, err.text, status, words);
    }
}

void fault_expect_right(attn_host_op *op)
{
    ATTN_ERROR_ON(err, 1024);
    attention a;
    uint64_t bytes = 0;
    attn_host_op_plan *plan = NULL;
    attention_fill(&a, 1);
    attn_op_call call = attention_call(&a);
    if (attn_host_op_prepare(op, &call, &plan, &bytes, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    call.scratch = aligned_alloc(256, (bytes + 256) & ~UINT64_C(255));
    call.scratch_bytes = bytes;
    if (attn_host_op_run(plan, &call, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    attn_host_op_release(plan);
    free(call.scratch);
    assert_true(attention_error(&a) < 2e-6);
}

void fault_expect_good(void)
{
    attn_host_op *op = fault_open(GOOD_ID);
    fault_expect_right(op);
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
}

void fault_expect_none(void)
{
    fault_expect("bad.so", ATTN_VERDICT_OK, "");
    attn_host_op *op = fault_open(BAD_ID);
    fault_expect_right(op);
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
    fault_expect_good();
}

int fault_setup(void **state)
{
    (void)state;
    (void)snprintf(the_fault.folder, sizeof the_fault.folder, "/tmp/attnplug-fault-XXXXXX");
    assert_non_null(mkdtemp(the_fault.folder));
    the_fault.log[0] = 0;
    fault_put(the_fault.good, "good.so");
    if (the_fault.plugin) {
        fault_put(the_fault.plugin, "bad.so");
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)at;
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

int fault_teardown(void **state)
{
    (void)state;
    attn_registry_close(the_fault.registry);
    the_fault.registry = NULL;
    return nftw(the_fault.folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int fault_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s GOOD.so [BAD.so]\n", argv[0]);
        return 2;
    }
    the_fault.good = argv[1];
    the_fault.plugin = argc > 2 ? argv[2] : NULL;
    return _cmocka_run_group_tests("fault", tests, n, NULL, NULL);
}
