/* The registry: search order, what is looked at, a thousand files, refresh, the pool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attn_host.h"
#include "error.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *plugin;
static char root[64];

static const char *at(const char *name)
{
    static char paths[8][160];
    static int turn;
    char *path = paths[turn++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static void copy(const char *name)
{
    static char bytes[1 << 20]; /* segments of 64-bit ARM lie 64 KiB apart */
    int from = open(plugin, O_RDONLY | O_CLOEXEC);
    int to = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(from >= 0 && to >= 0);
    ssize_t n = read(from, bytes, sizeof bytes);
    assert_true(n > 0 && (size_t)n < sizeof bytes && write(to, bytes, (size_t)n) == n);
    close(from);
    close(to);
}

static void put(const char *name, const char *text)
{
    int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/attnplug-registry-XXXXXX");
    assert_non_null(mkdtemp(root));
    unsetenv("ATTNPLUG_PATH");
    unsetenv("ATTNPLUG_PROBE");
    setenv("XDG_DATA_HOME", at("data"), 1);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)where;
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static attn_registry *open_registry(const char *path, uint32_t flags)
{
    ATTN_ERROR_ON(err, 1024);
    attn_registry *registry = NULL;
    attn_registry_options options = {
        .size = sizeof options, .flags = flags, .paths = &path, .n_paths = path ? 1 : 0};
    if (attn_registry_open(&options, &registry, &err) != ATTN_OK) {
        fail_msg("%s", err.text);
    }
    return registry;
}

static attn_file_info info_of(attn_registry *registry, uint32_t i)
{
    attn_file_info info = {.size = sizeof info};
    assert_int_equal(attn_registry_file(registry, i, &info), ATTN_OK);
    return info;
}

static void test_search_order(void **state)
{
    static const char *const order[] = {"given", "env1", "env2", "data/attnplug/plugins"};
    char variable[512];
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mkdir(at(order[i]), 0700), 0);
    }
    assert_int_equal(mkdir(at("data"), 0700), 0);
    assert_int_equal(mkdir(at("data/attnplug"), 0700), 0);
    assert_int_equal(mkdir(at(order[3]), 0700), 0);
    for (int i = 0; i < 4; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "%s/plain.so", order[i]);
        copy(name);
    }
    (void)snprintf(variable, sizeof variable, "%s::relative:%s:", at("env1"), at("env2"));
    setenv("ATTNPLUG_PATH", variable, 1);
    attn_registry *registry = open_registry(at("given"), 0);
    assert_true(attn_registry_count(registry) > 4); /* the installed ones come last */
    for (uint32_t i = 0; i < 4; i++) {
        attn_file_info info = info_of(registry, i);
        char path[160];
        (void)snprintf(path, sizeof path, "%s/plain.so", at(order[i]));
        assert_string_equal(info.path, path);
        assert_int_equal(info.verdict, i ? ATTN_VERDICT_DUPLICATE : ATTN_VERDICT_OK);
    }
    assert_non_null(strstr(info_of(registry, 4).path, "/attnplug/v1/"));
    attn_registry_close(registry);

    registry = open_registry(at("given"), ATTN_REGISTRY_ONLY_PATHS);
    assert_int_equal(attn_registry_count(registry), 1);
    attn_registry_close(registry);
}

static void test_never_current_folder(void **state)
{
    char before[1024];
    (void)state;
    assert_non_null(getcwd(before, sizeof before));
    copy("plain.so");
    assert_int_equal(chdir(root), 0);
    setenv("ATTNPLUG_PATH", ":.:plain.so", 1);
    attn_registry *registry = open_registry(NULL, 0);
    for (uint32_t i = 0; i < attn_registry_count(registry); i++) {
        assert_null(strstr(info_of(registry, i).path, root));
    }
    attn_registry_close(registry);
    assert_int_equal(chdir(before), 0);
}

static void test_names_of_files(void **state)
{
    (void)state;
    copy("b.so");
    copy("B.so");
    copy("a.so.1");
    copy("a.dll");
    copy(".hidden.so");
    put(".so", "x");
    assert_int_equal(mkdir(at("deeper"), 0700), 0);
    copy("deeper/c.so");
    attn_registry *registry = open_registry(root, ATTN_REGISTRY_ONLY_PATHS);
    assert_int_equal(attn_registry_count(registry), 2);
    assert_string_equal(info_of(registry, 0).path, at("B.so")); /* by bytes: capitals first */
    assert_string_equal(info_of(registry, 1).path, at("b.so"));
    attn_registry_close(registry);

    registry = open_registry(at("a.so.1"), ATTN_REGISTRY_ONLY_PATHS); /* named: whatever its name */
    assert_int_equal(info_of(registry, 0).verdict, ATTN_VERDICT_OK);
    attn_registry_close(registry);
    registry = open_registry(at("nothing"), ATTN_REGISTRY_ONLY_PATHS);
    assert_int_equal(info_of(registry, 0).verdict, ATTN_VERDICT_BAD_FILE);
    attn_registry_close(registry);
}

static int count_objects(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)info, (void)size;
    ++*(int *)data;
    return 0;
}

/* Good, bad, huge, empty, FIFOs, links to nowhere and to themselves. */
static void make_thousand(void)
{
    for (int i = 0; i < 1000; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "file-%04d.so", i);
        switch (i % 8) {
        case 0:
            put(name, "");
            break;
        case 1:
            put(name, "not a plugin");
            break;
        case 2:
            assert_int_equal(mkfifo(at(name), 0600), 0);
            break;
        case 3:
            assert_int_equal(symlink("/nonexistent", at(name)), 0);
            break;
        case 4:
            assert_int_equal(symlink(name, at(name)), 0);
            break;
        case 5:
            copy(name);
            assert_int_equal(truncate(at(name), 3000), 0);
            break;
        case 6:
            copy(name);
            assert_int_equal(truncate(at(name), INT64_C(1) << 33), 0);
            break;
        default:
            copy(name);
            break;
        }
    }
}

static void test_thousand_files(void **state)
{
    struct timespec begin, end;
    int before = 0, after = 0;
    (void)state;
    make_thousand();
    dl_iterate_phdr(count_objects, &before);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    attn_registry *registry = open_registry(root, ATTN_REGISTRY_ONLY_PATHS);
    clock_gettime(CLOCK_MONOTONIC, &end);
    dl_iterate_phdr(count_objects, &after);
    double ms =
        (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6;
    print_message("1,000 files looked at in %.1f ms\n", ms);
    assert_int_equal(attn_registry_count(registry), 1000);
    assert_int_equal(before, after); /* none was opened */
    assert_true(ms < 1000);
    uint32_t ok = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        ok += info_of(registry, i).verdict == ATTN_VERDICT_OK;
    }
    assert_int_equal(ok, 1); /* the others have its id */
    attn_registry_close(registry);
}

/* Infos stay valid, unchanged files keep their records, and nothing grows without a change. */
static void test_refresh(void **state)
{
    (void)state;
    copy("a.so");
    put("b.so", "text");
    attn_registry *registry = open_registry(root, ATTN_REGISTRY_ONLY_PATHS);
    attn_file_info a = info_of(registry, 0), b = info_of(registry, 1);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(attn_registry_refresh(registry, NULL), ATTN_OK);
        assert_ptr_equal(info_of(registry, 0).path, a.path);
        assert_ptr_equal(info_of(registry, 1).reason, b.reason);
    }
    put("b.so", "longer text");
    unlink(at("a.so"));
    assert_int_equal(attn_registry_refresh(registry, NULL), ATTN_OK);
    assert_int_equal(attn_registry_count(registry), 1);
    assert_string_equal(a.op->id, "org.attnplug.test.plain"); /* still there to read */
    attn_registry_close(registry);
}

static void test_bad_arguments(void **state)
{
    ATTN_ERROR_ON(err, 512);
    attn_registry *registry = NULL;
    attn_registry_options options = {.size = 4};
    const attn_device cuda = {ATTN_DEVICE_CUDA, 0, "cuda"};
    attn_host_op *op = NULL;
    (void)state;
    assert_int_equal(attn_registry_open(&options, &registry, &err), ATTN_INVALID);
    options = (attn_registry_options){.size = sizeof options, .n_paths = 2};
    assert_int_equal(attn_registry_open(&options, &registry, &err), ATTN_INVALID);
    const char *empty = "";
    options.paths = &empty;
    options.n_paths = 1;
    assert_int_equal(attn_registry_open(&options, &registry, &err), ATTN_INVALID);
    copy("a.so");
    registry = open_registry(root, ATTN_REGISTRY_ONLY_PATHS);
    assert_int_equal(
        attn_host_op_open(registry, "org.attnplug.test.plain", &cuda, NULL, NULL, 0, &op, &err),
        ATTN_UNSUPPORTED);
    assert_non_null(strstr(err.text, "not for device type 2 (cuda)"));
    assert_int_equal(attn_host_op_open(registry, NULL, &cuda, NULL, NULL, 0, &op, &err),
                     ATTN_INVALID);
    assert_int_equal(attn_registry_unregister(registry, "com.nobody", 0, &err), ATTN_NOT_FOUND);
    attn_registry_close(registry);
    attn_registry_close(NULL);
    assert_int_equal(attn_host_op_close(NULL), ATTN_OK);
}

typedef struct {
    _Atomic int64_t sum;
    _Atomic int inside[64];
    _Atomic int clashes;
    const attn_host *host;
    int depth;
} work;

static void body(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    work *w = arg;
    if (atomic_fetch_add(&w->inside[thread], 1) != 0 && !w->depth) {
        atomic_fetch_add(&w->clashes, 1);
    }
    for (int64_t i = begin; i < end; i++) {
        atomic_fetch_add(&w->sum, i);
    }
    atomic_fetch_sub(&w->inside[thread], 1);
}

static void nested(void *arg, int64_t begin, int64_t end, uint32_t thread)
{
    work *w = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        w->host->parallel_for(w->host->ctx, 10, 1, body, w);
    }
}

static void *use_pool(void *arg)
{
    const attn_host *host = arg;
    for (int i = 0; i < 200; i++) {
        work w = {.host = host};
        host->parallel_for(host->ctx, 1000, 1 + i % 7, body, &w);
        if (atomic_load(&w.sum) != 499500 || atomic_load(&w.clashes)) {
            return "wrong";
        }
    }
    return NULL;
}

static void test_pool(void **state)
{
    pthread_t threads[4];
    attn_pool *pool = NULL;
    (void)state;
    ATTN_ERROR_ON(err, 128);
    assert_int_equal(attn_pool_open(100000, &pool, &err), ATTN_INVALID);
    assert_string_equal(err.text, "n_threads is 100000, expected at most 4096");
    for (uint32_t n = 0; n < 5; n++) {
        assert_int_equal(attn_pool_open(n, &pool, NULL), ATTN_OK);
        const attn_host *host = attn_pool_host(pool);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, use_pool, (void *)(uintptr_t)host),
                             0);
        }
        for (int i = 0; i < 4; i++) {
            void *wrong = NULL;
            pthread_join(threads[i], &wrong);
            assert_null(wrong);
        }
        work w = {.host = host, .depth = 1};
        host->parallel_for(host->ctx, 8, 1, nested, &w);
        assert_int_equal(atomic_load(&w.sum), 8 * 45);
        host->parallel_for(host->ctx, 0, 1, body, &w);
        attn_pool_close(pool);
    }
}

static void test_words(void **state)
{
    (void)state;
    for (uint32_t v = 0; v <= ATTN_VERDICT_RETIRED; v++) {
        assert_string_not_equal(attn_verdict_name(v), "UNKNOWN");
    }
    assert_string_equal(attn_verdict_name(99), "UNKNOWN");
    assert_string_equal(attn_status_name(ATTN_BUSY), "busy");
    assert_string_equal(attn_status_name(-1), "unknown status");
}

int main(int argc, char **argv)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_search_order),   TEST(test_never_current_folder),
        TEST(test_names_of_files), TEST(test_thousand_files),
        TEST(test_refresh),        TEST(test_bad_arguments),
        TEST(test_pool),           TEST(test_words),
    };
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s PLUGIN.so\n", argv[0]);
        return 2;
    }
    plugin = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
