/* A plugin's file is replaced while eight threads compute with it: renamed over, overwritten in
 * place, cut short and written anew, deleted and put back.  No crash, no wrong result; each result
 * is of one version as a whole; the last version is in use at the end.
 *
 *   --swaps N     how many (default 16)
 *   --seconds S   spread over that time (default: as fast as it goes) */
#include "fault.h"

#include "attn_router.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { THREADS = 8, VERSIONS = 4 };

static const char *versions[VERSIONS];
static int n_swaps = 16;
static double seconds;

static attn_router *router;
static _Atomic int stop;
static _Atomic long calls, missing, by_version[8];

/* The number that signs all of the results, 0 if they differ. */
static uint32_t mark_of(const attention *a)
{
    uint32_t first = 0;
    for (size_t i = 0; i < sizeof a->out / 4; i++) {
        uint32_t bits;
        memcpy(&bits, &a->out[i], 4);
        first = i ? first : bits & 7;
        if ((bits & 7) != first) {
            return 0;
        }
    }
    return first;
}

static const char *compute(uint64_t seed, uint32_t *mark)
{
    static _Thread_local char why[1024];
    attn_error err = {sizeof err, sizeof why, why, 0};
    attention a;
    attention_fill(&a, seed);
    attn_op_call call = attention_call(&a);
    attn_status status = attn_attend_call(router, GOOD_ID, &call, &err);
    *mark = 0;
    if (status == ATTN_NOT_FOUND) {
        atomic_fetch_add(&missing, 1);
        return NULL;
    }
    if (status != ATTN_OK) {
        return why;
    }
    if (!(attention_error(&a) < 4e-6)) {
        return "wrong numbers";
    }
    *mark = mark_of(&a);
    atomic_fetch_add(&calls, 1);
    atomic_fetch_add(&by_version[*mark], 1);
    return *mark ? NULL : "a result of two versions";
}

static void *caller(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    uint32_t mark;
    while (!atomic_load(&stop)) {
        const char *wrong = compute(seed++, &mark);
        if (wrong) {
            return (void *)(uintptr_t)wrong;
        }
    }
    return NULL;
}

static size_t read_file(const char *path, char *bytes, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, bytes, capacity);
    close(fd);
    assert_true(n > 0 && (size_t)n < capacity);
    return (size_t)n;
}

/* In pieces, as a slow copy would. */
static void write_file(const char *name, int flags, const char *bytes, size_t n)
{
    int fd = open(fault_path(name), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    assert_true(fd >= 0);
    for (size_t done = 0; done < n;) {
        size_t piece = n - done < 4096 ? n - done : 4096;
        assert_int_equal(write(fd, bytes + done, piece), piece);
        done += piece;
    }
    assert_int_equal(ftruncate(fd, (off_t)n), 0);
    close(fd);
}

static void swap_file(int i)
{
    static char bytes[1 << 20];
    char target[128];
    size_t n = read_file(versions[i % VERSIONS], bytes, sizeof bytes);
    (void)snprintf(target, sizeof target, "%s", fault_path("good.so"));
    switch (i % 4) {
    case 0:
        write_file("good.so.new", O_TRUNC, bytes, n);
        assert_int_equal(rename(fault_path("good.so.new"), target), 0);
        break;
    case 1:
        write_file("good.so", 0, bytes, n);
        break;
    case 2:
        assert_int_equal(truncate(target, 1000), 0);
        assert_int_equal(attn_registry_refresh(the_fault.registry, NULL), ATTN_OK);
        write_file("good.so", 0, bytes, n);
        break;
    default:
        assert_int_equal(unlink(target), 0);
        assert_int_equal(attn_registry_refresh(the_fault.registry, NULL), ATTN_OK);
        write_file("good.so", 0, bytes, n);
        break;
    }
    assert_int_equal(attn_registry_refresh(the_fault.registry, NULL), ATTN_OK);
}

/* From the refresh on, what is opened is the new version. */
static void expect_version(uint32_t version)
{
    uint32_t mark = 0;
    const char *wrong = compute(1, &mark);
    if (wrong || mark != version) {
        fail_msg("version %u is in use, expected %u: %s", mark, version, wrong ? wrong : "");
    }
}

static void rest(double time)
{
    struct timespec t = {(time_t)time, (long)((time - (double)(time_t)time) * 1e9)};
    nanosleep(&t, NULL);
}

static void test(void **state)
{
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    pthread_t threads[THREADS];
    (void)state;
    fault_registry(0);
    assert_int_equal(attn_router_open(the_fault.registry, &cpu, NULL, &router, NULL), ATTN_OK);
    for (int i = 0; i < THREADS; i++) {
        void *seed = (void *)(uintptr_t)(i * 1000);
        assert_int_equal(pthread_create(&threads[i], NULL, caller, seed), 0);
    }
    for (int i = 1; i <= n_swaps; i++) {
        swap_file(i);
        expect_version((uint32_t)(i % VERSIONS) + 1);
        rest(seconds / n_swaps);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        if (wrong) {
            fail_msg("%s", (const char *)wrong);
        }
    }
    print_message("%d swaps under %d threads: %ld calls (%ld, %ld, %ld, %ld by version), %ld while "
                  "the file was gone or cut\n",
                  n_swaps, THREADS, atomic_load(&calls), atomic_load(&by_version[1]),
                  atomic_load(&by_version[2]), atomic_load(&by_version[3]),
                  atomic_load(&by_version[4]), atomic_load(&missing));
    assert_int_equal(attn_router_close(router), ATTN_OK);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {FAULT_TEST(test)};
    int at = 1;
    for (int i = 0; i < VERSIONS && at < argc; i++) {
        versions[i] = argv[at++];
    }
    for (; at + 1 < argc; at += 2) {
        if (strcmp(argv[at], "--swaps") == 0) {
            n_swaps = (int)strtol(argv[at + 1], NULL, 10);
        } else if (strcmp(argv[at], "--seconds") == 0) {
            seconds = strtod(argv[at + 1], NULL);
        }
    }
    return fault_main(2, argv, tests, 1);
}
