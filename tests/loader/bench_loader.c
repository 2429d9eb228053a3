/* What the loader costs: reading a head, a call through the handle, a name once resolved, by one
 * thread and by several at once. Prints the figures that tests/README.md keeps, and fails where one
 * is over its bound. */
#include "attention.h"

#include "attn_router.h"
#include "elf_head.h"
#include "error.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 51 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times)
{
    qsort(times, ROUNDS, sizeof *times, compare);
    return times[ROUNDS / 2];
}

static bool report(const char *what, double ns, double bound)
{
    (void)printf("%-44s %9.1f ns  (bound %.0f ns)%s\n", what, ns, bound,
                 ns < bound ? "" : "  TOO SLOW");
    return ns < bound;
}

static bool head_read(const char *path)
{
    enum { N = 50 };
    double times[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        double begin = now();
        for (int i = 0; i < N; i++) {
            struct stat st;
            elf_heads heads;
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd < 0 || fstat(fd, &st) != 0) {
                return false;
            }
            elf_source source = {.fd = fd, .size = (uint64_t)st.st_size};
            elf_read_heads(&source, &heads);
            close(fd);
            if (!heads.has_op) {
                (void)printf("%s: %s\n", path, heads.reason);
                return false;
            }
        }
        times[r] = (now() - begin) / N;
    }
    return report("head of a file (open, read, judge, close)", median(times), 100e3);
}

/* An op without work: what is left is the call. */
static attn_status empty_run(attn_op_plan *plan, const attn_op_call *call, attn_error *err)
{
    __asm__ volatile("" : : "r"(plan), "r"(call), "r"(err) : "memory");
    return ATTN_OK;
}

static bool through_handle(attn_registry *registry, const char *id)
{
    enum { N = 20000 };
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    double direct[ROUNDS], handle[ROUNDS];
    static attention a;
    attn_op_call call = attention_call(&a);
    attn_host_op *op = NULL;
    attn_host_op_plan *plan = NULL;
    uint64_t bytes = 0;
    attn_status (*volatile run)(attn_op_plan *, const attn_op_call *, attn_error *) = empty_run;
    ATTN_ERROR_ON(err, 256);
    if (attn_host_op_open(registry, id, &cpu, NULL, NULL, 0, &op, &err) != ATTN_OK ||
        attn_host_op_prepare(op, &call, &plan, &bytes, &err) != ATTN_OK) {
        (void)printf("%s\n", err.text);
        return false;
    }
    for (int r = 0; r < ROUNDS; r++) {
        double begin = now();
        for (int i = 0; i < N; i++) {
            (void)run(NULL, &call, &err);
        }
        double middle = now();
        for (int i = 0; i < N; i++) {
            if (attn_host_op_run(plan, &call, &err) != ATTN_OK) {
                return false;
            }
        }
        direct[r] = (middle - begin) / N;
        handle[r] = (now() - middle) / N;
    }
    attn_host_op_release(plan);
    (void)attn_host_op_close(op);
    return report("a call through the handle, more than direct", median(handle) - median(direct),
                  50);
}

static bool name_resolved(attn_registry *registry, const char *name)
{
    enum { N = 5000 };
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    double times[ROUNDS];
    attn_router *router = NULL;
    ATTN_ERROR_ON(err, 512);
    if (attn_router_open(registry, &cpu, NULL, &router, &err) != ATTN_OK) {
        return false;
    }
    for (int r = 0; r < ROUNDS; r++) {
        double begin = now();
        for (int i = 0; i < N; i++) {
            attn_host_op *op = NULL;
            if (attn_router_op(router, name, NULL, 0, &op, &err) != ATTN_OK) {
                (void)printf("%s\n", err.text);
                return false;
            }
        }
        times[r] = (now() - begin) / N;
    }
    (void)attn_router_close(router);
    char what[96];
    (void)snprintf(what, sizeof what, "a name resolved: %s", name);
    return report(what, median(times), 200);
}

/* One of several threads that resolve names with the same router. Its time is the processor's, not
 * the clock's: threads wait for cores where there are fewer, and that is not what a name costs. */
typedef struct {
    attn_router *router;
    pthread_barrier_t *begin;
    int first; /* of the names that it takes in turn */
    bool good;
    double times[ROUNDS];
} resolver;

static double own_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *resolve(void *arg)
{
    enum { N = 2000 };
    static const char *const names[] = {"math", "XFormersAttnProcessor", "memory_efficient",
                                        "org.attnplug.sliced"};
    resolver *r = arg;
    ATTN_ERROR_ON(err, 512);
    r->good = true;
    pthread_barrier_wait(r->begin);
    for (int round = 0; round < ROUNDS; round++) {
        double begin = own_time();
        for (int i = 0; i < N; i++) {
            attn_host_op *op = NULL;
            r->good = r->good && attn_router_op(r->router, names[(r->first + i) % 4], NULL, 0, &op,
                                                &err) == ATTN_OK;
        }
        r->times[round] = (own_time() - begin) / N;
    }
    return NULL;
}

static bool names_resolved_by(attn_registry *registry, int n)
{
    enum { MOST = 8 };
    const attn_device cpu = {ATTN_DEVICE_CPU, 0, "cpu"};
    resolver all[MOST];
    pthread_t threads[MOST];
    pthread_barrier_t begin;
    attn_router *router = NULL;
    ATTN_ERROR_ON(err, 512);
    if (attn_router_open(registry, &cpu, NULL, &router, &err) != ATTN_OK ||
        pthread_barrier_init(&begin, NULL, (unsigned)n) != 0) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        all[i] = (resolver){.router = router, .begin = &begin, .first = i};
        if (pthread_create(&threads[i], NULL, resolve, &all[i]) != 0) {
            (void)printf("no thread\n");
            exit(1); /* the others wait at the barrier */
        }
    }
    double slowest = 0;
    bool good = true;
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
        double ns = median(all[i].times);
        slowest = ns > slowest ? ns : slowest;
        good = good && all[i].good;
    }
    pthread_barrier_destroy(&begin);
    (void)attn_router_close(router);
    char what[96];
    (void)snprintf(what, sizeof what, "a name resolved, %d threads at once, slowest", n);
    return report(what, slowest, 200) && good;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        (void)fprintf(stderr, "usage: %s EMPTY.so PLUGIN.so PLUGINS\n", argv[0]);
        return 2;
    }
    ATTN_ERROR_ON(err, 512);
    const char *paths[] = {argv[1], argv[3]};
    attn_registry *registry = NULL;
    attn_registry_options options = {.size = sizeof options,
                                     .flags = ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                     .paths = paths,
                                     .n_paths = 2};
    if (attn_registry_open(&options, &registry, &err) != ATTN_OK) {
        (void)printf("%s\n", err.text);
        return 1;
    }
    bool good = head_read(argv[2]);
    good = through_handle(registry, "org.attnplug.test.empty") && good;
    good = name_resolved(registry, "math") && good;
    good = name_resolved(registry, "XFormersAttnProcessor") && good;
    for (int n = 2; n <= 8; n *= 2) {
        good = names_resolved_by(registry, n) && good;
    }
    attn_registry_close(registry);
    return good ? 0 : 1;
}
