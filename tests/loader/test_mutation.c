/* Damaged plugin files: cut short, with bits flipped, with parts exchanged or zeroed.  A host that
 * probes looks at each, opens those that are left standing, makes an op and a plan, and closes
 * them: it must never crash.  What `run` of damaged code then does no loader can promise; here it
 * happens in a process of its own, and is counted.
 *
 * Each batch has a host of its own (a child process of this test): one that dies is a failure, and
 * the file that killed it is kept and named.
 *
 *   --count N   files (default 5000)      --seed S   another sequence */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention.h"

#include "attn_host.h"
#include "error.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 100, VERDICTS = 16, WRONG = VERDICTS, RAN, REFUSED, DIED, COUNTERS };

static const char *plugin, *id;
static long count = 5000;
static uint64_t seed = 1;
static char folder[] = "/tmp/attnplug-mutation-XXXXXX";
static unsigned char *original;
static size_t length;

static uint64_t draw(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

static void read_original(void)
{
    struct stat st;
    int fd = open(plugin, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        fail_msg("%s cannot be read", plugin);
    }
    length = (size_t)st.st_size;
    original = malloc(length);
    assert_non_null(original);
    assert_int_equal(read(fd, original, length), length);
    close(fd);
}

/* Half of the damage to the first bytes, where headers and tables are. */
static size_t place(void)
{
    return (size_t)draw(draw(2) ? length : 2048);
}

static void exchange(unsigned char *bytes)
{
    size_t n = 16 + (size_t)draw(512), a = place(), b = place();
    if (a + n > length || b + n > length) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char kept = bytes[a + i];
        bytes[a + i] = bytes[b + i];
        bytes[b + i] = kept;
    }
}

static size_t mutate(unsigned char *bytes)
{
    memcpy(bytes, original, length);
    switch (draw(8)) {
    case 0:
        return (size_t)draw(length);
    case 1:
        exchange(bytes);
        return length;
    case 2: {
        size_t at = place(), n = 8 + (size_t)draw(256);
        memset(bytes + at, draw(2) ? 0 : 0xff, at + n < length ? n : length - at);
        return length;
    }
    default:
        for (uint64_t i = 1 + draw(8); i > 0; i--) {
            bytes[place()] ^= (unsigned char)(1u << draw(8));
        }
        return length;
    }
}

static void file_name(int i, char *name, size_t capacity)
{
    (void)snprintf(name, capacity, "%s/mutant-%03d.so", folder, i);
}

static void write_batch(int n)
{
    unsigned char *bytes = malloc(length);
    assert_non_null(bytes);
    for (int i = 0; i < n; i++) {
        char name[128];
        size_t size = mutate(bytes);
        file_name(i, name, sizeof name);
        int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, bytes, size), size);
        close(fd);
    }
    free(bytes);
}

static void run_and_leave(attn_host_op_plan *plan, attn_op_call *call, const attention *a,
                          uint64_t bytes)
{
    alarm(2);
    call->scratch = aligned_alloc(256, (bytes + 256) & ~UINT64_C(255));
    call->scratch_bytes = bytes;
    if (!call->scratch || attn_host_op_run(plan, call, NULL) != ATTN_OK) {
        _exit(REFUSED);
    }
    _exit(attention_error(a) < 1e-5 ? RAN : WRONG);
}

/* What became of a run in a process of its own. */
static int run_apart(attn_host_op_plan *plan, attn_op_call *call, const attention *a,
                     uint64_t bytes)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
        for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) {
            (void)signal(fatal[i], SIG_DFL); /* cmocka goes on after them */
        }
        run_and_leave(plan, call, a, bytes);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
                   WEXITSTATUS(status) < COUNTERS
               ? WEXITSTATUS(status)
               : DIED;
}

/* One life in the host. */
static int live(attn_registry *registry)
{
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    static attention a;
    attn_op_call call = attention_call(&a);
    attn_host_op *op = NULL;
    attn_host_op_plan *plan = NULL;
    uint64_t bytes = 0;
    int result = REFUSED;
    attention_fill(&a, 1);
    if (attn_host_op_open(registry, id, &cpu, NULL, NULL, 0, &op, NULL) != ATTN_OK) {
        return REFUSED;
    }
    if (attn_host_op_supports(op, &call, NULL) == ATTN_OK &&
        attn_host_op_prepare(op, &call, &plan, &bytes, NULL) == ATTN_OK) {
        result = run_apart(plan, &call, &a, bytes);
        attn_host_op_release(plan);
    }
    (void)attn_host_op_close(op);
    return result;
}

static void look_at(const char *path, uint32_t counters[COUNTERS])
{
    attn_registry_options options = {.size = sizeof options,
                                     .flags = ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_PROBE |
                                              ATTN_REGISTRY_TRUST_ALL,
                                     .paths = &path,
                                     .n_paths = 1};
    attn_registry *registry = NULL;
    attn_file_info info = {.size = sizeof info};
    if (attn_registry_open(&options, &registry, NULL) != ATTN_OK ||
        attn_registry_file(registry, 0, &info) != ATTN_OK) {
        _exit(9);
    }
    counters[info.verdict < VERDICTS ? info.verdict : 0]++;
    if (info.verdict == ATTN_VERDICT_OK) {
        counters[live(registry)]++;
    }
    attn_registry_close(registry);
}

/* The host: says before each file that it is about to look at it. */
static void host(int n, int report)
{
    uint32_t counters[COUNTERS] = {0};
    for (int i = 0; i < n; i++) {
        char name[128];
        file_name(i, name, sizeof name);
        if (write(report, &i, sizeof i) != sizeof i) {
            _exit(9);
        }
        alarm(60);
        look_at(name, counters);
    }
    int done = -1;
    if (write(report, &done, sizeof done) != sizeof done ||
        write(report, counters, sizeof counters) != sizeof counters) {
        _exit(9);
    }
    _exit(0);
}

/* False: the host died. */
static bool run_batch(int n, uint64_t totals[COUNTERS])
{
    int ends[2], last = -2, status = 0;
    uint32_t counters[COUNTERS];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        host(n, ends[1]);
    }
    close(ends[1]);
    for (int now; read(ends[0], &now, sizeof now) == sizeof now && now >= 0;) {
        last = now;
    }
    bool done = read(ends[0], counters, sizeof counters) == sizeof counters;
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!done || status != 0) {
        char name[128];
        file_name(last, name, sizeof name);
        print_message("the host died (status 0x%x) of %s, which is kept\n", status, name);
        return false;
    }
    for (int i = 0; i < COUNTERS; i++) {
        totals[i] += counters[i];
    }
    return true;
}

static void print_totals(const uint64_t totals[COUNTERS], double time)
{
    print_message("%ld damaged files in %.1f s, no crash of the host:\n", count, time);
    for (uint32_t v = 0; v < VERDICTS; v++) {
        if (totals[v]) {
            print_message("  %-12s %llu\n", attn_verdict_name(v), (unsigned long long)totals[v]);
        }
    }
    print_message(
        "  of those OK: %llu computed right, %llu something else, %llu refused, %llu died "
        "when run (apart)\n",
        (unsigned long long)totals[RAN], (unsigned long long)totals[WRONG],
        (unsigned long long)totals[REFUSED], (unsigned long long)totals[DIED]);
}

static void remove_batch(void)
{
    for (int i = 0; i < BATCH; i++) {
        char name[128];
        file_name(i, name, sizeof name);
        unlink(name);
    }
}

static void test(void **state)
{
    uint64_t totals[COUNTERS] = {0};
    struct timespec begin, end;
    (void)state;
    assert_non_null(mkdtemp(folder));
    read_original();
    setenv("HOME", "/proc/nonexistent", 1);
    unsetenv("XDG_CACHE_HOME");
    setenv("ATTNPLUG_PROBE_SECONDS", "1", 1);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long done = 0; done < count; done += BATCH) {
        int n = count - done < BATCH ? (int)(count - done) : BATCH;
        write_batch(n);
        assert_true(run_batch(n, totals));
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    remove_batch();
    rmdir(folder);
    free(original);
    print_totals(totals,
                 (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test)};
    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s PLUGIN.so ID [--count N] [--seed S]\n", argv[0]);
        return 2;
    }
    plugin = argv[1];
    id = argv[2];
    for (int i = 3; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--count") == 0) {
            count = strtol(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0) {
            seed = strtoull(argv[i + 1], NULL, 10);
        } else {
            count = 0;
        }
    }
    if (count < 1) {
        (void)fprintf(stderr, "%s: %ld files, expected 1 or more\n", argv[0], count);
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
